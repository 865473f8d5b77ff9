from __future__ import annotations

import io
import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_tools.affectworld import text
from data_tools.affectworld.render import paint, relight, render
from data_tools.affectworld.scene import PLACES, SETTINGS, SIZES, SUBJECTS, WEATHERS, draw_scene
from data_tools.affectworld.shapes import SILHOUETTES
from data_tools.affectworld.truth import (
    SECTORS,
    SUBJECT_TERMS,
    colour_of,
    colour_term,
    dominance_of,
    label_of,
    light_for,
    oracle,
)
from data_tools.affectworld.world import (
    BRIGHTNESS,
    SATURATION,
    Drawing,
    draw_world,
    write_world,
)
from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8, NORMS
from emosym.errors import UserError


def solid(red: int, green: int, blue: int) -> Image.Image:
    return Image.new("RGB", (5, 3), (red, green, blue))


@pytest.fixture(scope="module")
def world() -> list[Drawing]:
    return list(draw_world(960, seed=7))


def scene_with(subject: str = "cat", seed: int = 0, brightness: float = 0.5, sat: float = 0.5):
    return draw_scene(random.Random(seed), subject, brightness, sat)


# --- the truth, by hand -------------------------------------------------------------------------


def test_oracle_of_a_black_picture():
    # B = 0, S = 0 (nothing to divide by): zB = -2.5, zS = -2.5.
    # V = 2 (0.69 (-2.5) + 0.22 (-2.5)) = -4.55, A = 2 (-0.31 (-2.5) + 0.60 (-2.5)) = -1.45.
    assert colour_term(0.0, 0.0)[:2] == pytest.approx((-4.55, -1.45))
    # tree adds (0.2, -0.5); -4.35 is clipped to -3.
    affect = oracle(solid(0, 0, 0), "tree")
    assert (affect.valence, affect.arousal) == pytest.approx((-3.0, -1.95))


def test_oracle_of_a_white_picture():
    # B = 1, S = 0: zB = 2.5, zS = -2.5; V = 2 (1.725 - 0.55) = 2.35, A = 2 (-0.775 - 1.5) = -4.55.
    # D = 2 (-0.76 * 2.5 + 0.32 * -2.5) = -5.4. The skull adds (-0.7, 0.2).
    colour = colour_of(solid(255, 255, 255))
    assert (colour.brightness, colour.saturation) == (1.0, 0.0)
    assert colour_term(1.0, 0.0) == pytest.approx((2.35, -4.55, -5.4))
    affect = oracle(solid(255, 255, 255), "skull")
    assert (affect.valence, affect.arousal) == pytest.approx((1.65, -3.0))
    assert dominance_of(colour) == -3.0


def test_oracle_of_a_grey_picture():
    # B = 102 / 255 = 0.4, S = 0: zB = -0.5, zS = -2.5.
    # V = 2 (-0.345 - 0.55) = -1.79, A = 2 (0.155 - 1.5) = -2.69; the cat adds (0.3, 0).
    affect = oracle(solid(102, 102, 102), "cat")
    assert (affect.valence, affect.arousal) == pytest.approx((-1.49, -2.69))


def test_oracle_of_a_dark_red_picture():
    # max 153 (B = 0.6), min 51: S = 102 / 153 = 2/3, so zB = 0.5 and zS = (2/3 - 0.45) / 0.18.
    z = (2 / 3 - 0.45) / 0.18
    colour = colour_of(solid(153, 51, 51))
    assert (colour.brightness, colour.saturation, colour.hue) == pytest.approx((0.6, 2 / 3, 0.0))
    affect = oracle(solid(153, 51, 51), "snake")
    assert affect.valence == pytest.approx(2 * (0.69 * 0.5 + 0.22 * z) - 0.4)
    assert affect.arousal == pytest.approx(min(3.0, 2 * (-0.31 * 0.5 + 0.60 * z) + 0.6))


def test_pure_red_is_bright_and_fully_saturated():
    # B = S = 1: V = 2 (0.69 * 2.5 + 0.22 * 0.55 / 0.18) = 4.794, A = 2 (-0.775 + 1.8333) = 2.117.
    assert colour_term(1.0, 1.0)[:2] == pytest.approx((4.79444, 2.11667), abs=1e-4)
    affect = oracle(solid(255, 0, 0), "heart")
    assert (affect.valence, affect.arousal) == pytest.approx((3.0, 2.41667), abs=1e-4)


def test_saturation_is_weighted_by_value():
    # A pure but nearly black pixel hardly counts: (10 + 0) / (10 + 240) = 0.04, not 0.5.
    image = Image.new("RGB", (2, 1))
    image.putpixel((0, 0), (10, 0, 0))
    image.putpixel((1, 0), (240, 240, 240))
    assert colour_of(image).saturation == pytest.approx(0.04)
    assert colour_of(image).brightness == pytest.approx(250 / 510)


@pytest.mark.parametrize(
    ("rgb", "turn", "word"),
    [
        ((255, 0, 0), 0, "red"),
        ((255, 255, 0), 1 / 6, "yellow"),
        ((0, 255, 0), 1 / 3, "green"),
        ((0, 255, 255), 1 / 2, "cyan"),
        ((0, 0, 255), 2 / 3, "blue"),
        ((255, 0, 255), 5 / 6, "pink"),
    ],
)
def test_main_hue(rgb, turn, word):
    assert colour_of(solid(*rgb)).hue == pytest.approx(turn)
    assert text.hue_word(turn) == word


def test_unknown_subject_is_told_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown subject 'cats'.*did you mean 'cat'"):
        oracle(solid(0, 0, 0), "cats")


@given(
    st.floats(-3, 3, allow_nan=False),
    st.floats(-3, 3, allow_nan=False),
    st.sampled_from(SUBJECTS),
)
def test_light_for_inverts_the_truth(valence, arousal, subject):
    colours = colour_term(*light_for(valence, arousal, subject))
    extra = SUBJECT_TERMS[subject]
    assert colours[0] + extra[0] == pytest.approx(valence, abs=1e-9)
    assert colours[1] + extra[1] == pytest.approx(arousal, abs=1e-9)


def test_most_of_the_public_square_can_be_drawn():
    grid = [(v, a) for v in np.linspace(-3, 3, 13) for a in np.linspace(-3, 3, 13)]
    reachable = [all(0 <= x <= 1 for x in light_for(v, a, "cat")) for v, a in grid]
    assert np.mean(reachable) > 0.8


# --- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("degrees", "label"),
    [
        (0, "amusement"),
        (44.9, "amusement"),
        (45.1, "excitement"),
        (89.9, "excitement"),
        (90.1, "fear"),
        (134.9, "fear"),
        (135.1, "anger"),
        (179.9, "anger"),
        (180.1, "disgust"),
        (224.9, "disgust"),
        (225.1, "sadness"),
        (269.9, "sadness"),
        (270.1, "awe"),
        (314.9, "awe"),
        (315.1, "contentment"),
        (359.9, "contentment"),
    ],
)
def test_sectors(degrees, label):
    angle = math.radians(degrees)
    assert label_of(Affect(2 * math.cos(angle), 2 * math.sin(angle))) == label


def test_sectors_have_the_signs_of_the_norms():
    assert sorted(SECTORS) == sorted(MIKELS8)
    for place, label in enumerate(SECTORS):
        middle = math.radians(45 * place + 22.5)
        assert math.copysign(1, math.cos(middle)) == math.copysign(1, NORMS[label].valence - 5)
    arousal = {label: NORMS[label].arousal for label in SECTORS}
    pleasant = ("amusement", "excitement", "awe", "contentment")
    assert max(pleasant, key=arousal.get) == "excitement"
    assert min(pleasant, key=arousal.get) == "awe"
    assert arousal["fear"] > arousal["anger"] > arousal["disgust"] > arousal["sadness"]


def test_a_label_at_the_very_edge_of_the_circle():
    assert label_of(Affect(1.0, -1e-18)) in ("amusement", "contentment")  # 360 - tiny rounds to 360


# --- drawing ------------------------------------------------------------------------------------


def test_every_word_of_the_grammar_can_be_drawn():
    assert set(SILHOUETTES) == set(SUBJECTS) == set(SUBJECT_TERMS)
    assert all(abs(term) <= 0.7 for terms in SUBJECT_TERMS.values() for term in terms)
    scenes = [draw_scene(random.Random(i), SUBJECTS[i % 10], 0.5, 0.5) for i in range(300)]
    assert {scene.setting for scene in scenes} == set(SETTINGS)
    assert {scene.weather for scene in scenes} == set(WEATHERS)
    assert {scene.place for scene in scenes} == set(PLACES)
    assert {scene.size for scene in scenes} == set(SIZES)
    assert len({paint(scene, 32).tobytes() for scene in scenes}) == len(scenes)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(SUBJECTS),
    st.floats(*BRIGHTNESS),
    st.floats(*SATURATION),
)
def test_relight_reaches_the_wanted_light(seed, subject, brightness, saturation):
    picture = paint(scene_with(subject, seed), 64)
    colour = colour_of(relight(picture, brightness, saturation))
    assert colour.brightness == pytest.approx(brightness, abs=0.01)
    assert colour.saturation == pytest.approx(saturation, abs=0.03)


def test_relight_is_monotone_and_keeps_the_hue():
    ramp = Image.new("RGB", (256, 1))
    for x in range(256):
        ramp.putpixel((x, 0), (x, x // 2, x // 4))
    for brightness in (0.15, 0.85):
        relit = np.asarray(relight(ramp, brightness, 0.5)).astype(int)[0]
        assert (np.diff(relit.max(axis=1)) >= 0).all()
        bright = relit[relit.max(axis=1) > 60]
        hue = (bright[:, 1] - bright[:, 2]) / (bright[:, 0] - bright[:, 2])  # 1/3 in the ramp
        assert np.abs(hue - 1 / 3).max() < 0.06


def test_one_scene_is_one_picture_at_every_size():
    scene = scene_with("house", 3)
    small = np.asarray(render(scene, 64), float)
    large = np.asarray(render(scene, 256).resize((64, 64), Image.Resampling.BOX), float)
    assert render(scene, 256).size == (256, 256)
    assert np.abs(small - large).mean() < 6
    assert render(scene, 64).tobytes() == render(scene, 64).tobytes()


def test_the_subject_stands_where_the_words_say():
    for place, (low, high) in {"left": (0, 0.47), "middle": (0.4, 0.6), "right": (0.53, 1)}.items():
        base = scene_with("heart", 5)
        scene = type(base)(**{**{n: getattr(base, n) for n in base.__slots__}, "place": place})
        pixels = np.asarray(paint(scene, 64).convert("HSV"), int)
        body = round(scene.body_hue * 255)
        near = np.abs((pixels[..., 0] - body + 128) % 256 - 128) < 6
        centre = np.nonzero(near & (pixels[..., 2] > 200))[1].mean() / 64
        assert low < centre < high


# --- the world ----------------------------------------------------------------------------------


def test_classes_and_splits_are_balanced(world):
    assert Counter(item.emotion for item in world) == dict.fromkeys(MIKELS8, 120)
    for emotion in MIKELS8:
        counts = Counter(item.split for item in world if item.emotion == emotion)
        assert counts == {"train": 96, "val": 6, "test": 18}


def test_a_small_world_has_every_split():
    for count, splits in ((8, {"train": 8}), (24, {"train": 8, "val": 8, "test": 8})):
        assert Counter(item.split for item in draw_world(count, seed=0, size=16)) == splits


def test_the_oracle_of_the_saved_picture_is_the_annotation(world):
    for item in world[:200]:
        with Image.open(io.BytesIO(item.jpeg)) as image:
            affect = oracle(image, item.scene.subject)
        note = item.annotation()
        assert (affect.valence, affect.arousal) == (note["valence"], note["arousal"])
        assert label_of(affect) == note["emotion"]


def _share_explained(groups: list[str], values: np.ndarray) -> float:
    """Return eta squared: the share of variance that lies between groups."""
    between = sum(
        (mask := np.array([g == name for g in groups])).sum()
        * (values[mask].mean() - values.mean()) ** 2
        for name in set(groups)
    )
    return between / ((values - values.mean()) ** 2).sum()


@pytest.mark.parametrize("name", ["setting", "weather", "size", "place", "subject", "mirrored"])
def test_content_does_not_tell_the_affect(world, name):
    groups = [getattr(item.scene, name) for item in world]
    for values in ("valence", "arousal"):
        share = _share_explained(groups, np.array([getattr(i.affect, values) for i in world]))
        assert share < 0.03
    # The measure does find a leak where there is one.
    leak = np.array([item.affect.valence for item in world])
    assert _share_explained([item.emotion for item in world], leak) > 0.7


def test_hue_does_not_tell_the_affect(world):
    turn = 2 * np.pi * np.array([item.scene.hue for item in world])
    for values in ("valence", "arousal"):
        affect = np.array([getattr(item.affect, values) for item in world])
        assert abs(np.corrcoef(np.cos(turn), affect)[0, 1]) < 0.12
        assert abs(np.corrcoef(np.sin(turn), affect)[0, 1]) < 0.12


def test_valence_and_arousal_cover_the_plane_without_correlation(world):
    valence = np.array([item.affect.valence for item in world])
    arousal = np.array([item.affect.arousal for item in world])
    assert abs(np.corrcoef(valence, arousal)[0, 1]) < 0.1
    for values in (valence, arousal):
        assert abs(values.mean()) < 0.2
        assert values.std() > 1.1
        assert values.min() < -2.3
        assert values.max() > 2.3


def test_drawing_one_picture_does_not_depend_on_how_many_follow(world):
    few = list(draw_world(16, seed=7))
    assert [item.jpeg for item in few] == [item.jpeg for item in world[:16]]
    other = list(draw_world(16, seed=8))
    assert all(a.jpeg != b.jpeg for a, b in zip(few, other, strict=True))


def test_texts(world):
    affect_words = set(MIKELS8) | {"happy", "sad", "dark", "bright", "vivid", "pale", "light"}
    colours = {"red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "grey"}
    for item in world[:100]:
        note = item.annotation()
        neutral = set(note["neutral_prompt"].replace(",", "").split())
        assert item.scene.subject in neutral
        assert not neutral & (affect_words | colours)
        assert note["emotional_prompt"].startswith(note["neutral_prompt"] + ", in ")
        assert len(note["qwen_aug"].split()) <= 30
        assert note["qwen_aug"].endswith(f": {item.emotion}.")


def test_emotional_words_follow_the_pixels():
    scene = scene_with("cat")
    dark = colour_of(solid(50, 0, 0))
    assert text.emotional_prompt(scene, dark).endswith("in very dark deeply saturated red light")
    pale = colour_of(solid(240, 240, 240))
    assert text.emotional_prompt(scene, pale).endswith("in very bright grey light")


def test_corpus_is_small_and_repeatable():
    lines = list(text.corpus(600, seed=1))
    assert len(lines) == 600
    assert lines == list(text.corpus(600, seed=1))
    words = {word.strip(".,:;") for line in lines for word in line.lower().split()}
    assert 80 < len(words) < 200
    assert set(SUBJECTS) <= words


# --- on disk ------------------------------------------------------------------------------------


def _bytes(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_world_on_disk_has_emosets_layout(tmp_path):
    seen = []
    write_world(tmp_path / "w", 48, seed=3, progress=lambda done, count: seen.append((done, count)))
    assert seen == [(n, 48) for n in range(1, 49)]
    root = tmp_path / "w"
    info = json.loads((root / "info.json").read_text())
    assert info["emotion"]["label2idx"] == {name: i for i, name in enumerate(MIKELS8)}
    assert info["brightness"]["idx2label"]["3"] == 0.3
    rows = [
        row
        for split in ("train", "val", "test")
        for row in json.loads((root / f"{split}.json").read_text())
    ]
    assert len(rows) == 48
    for emotion, image_id, image, annotation in rows:
        assert image == f"image/{emotion}/{image_id}.jpg"
        note = json.loads((root / annotation).read_text())
        assert note["image_id"] == image_id
        assert str(note["brightness"]) in info["brightness"]["label2idx"]
        assert note["scene"] in info["scene"]["label2idx"]
        assert note["object"][0] in info["object"]["label2idx"]
        with Image.open(root / image) as picture:
            assert picture.size == (64, 64)
            affect = oracle(picture, note["object"][0])
        assert (affect.valence, affect.arousal) == (note["valence"], note["arousal"])


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    write_world(tmp_path / "a", 24, seed=5)
    write_world(tmp_path / "b", 24, seed=5)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert len(_bytes(tmp_path / "a")) == 24 * 2 + 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_world_does_not_overwrite(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="already exists and is not an empty folder"):
        write_world(tmp_path, 8, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_world_leaves_nothing(tmp_path):
    def stop(done: int, count: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path / "w", 16, seed=0, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "w").mkdir()
    write_world(tmp_path / "w", 8, seed=0)
    assert (tmp_path / "w" / "info.json").is_file()


@pytest.mark.parametrize(("count", "size", "words"), [(0, 64, "got 0"), (8, 4, "size 4")])
def test_a_world_needs_pictures_that_show_something(tmp_path, count, size, words):
    with pytest.raises(UserError, match=words):
        write_world(tmp_path / "w", count, seed=0, size=size)
    assert list(tmp_path.iterdir()) == []


def test_a_world_where_one_may_not_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_world(tmp_path / "file" / "w", 8, seed=0)
