from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_tools.affectworld.world import write_world
from data_tools.quarantine import Quarantined
from data_tools.sources.emoset import read_emoset
from emosym.errors import UserError
from emosym.records import Sample


def folder(root: Path, picture, rows: list[object], notes: dict[str, object]) -> Path:
    """Write an EmoSet folder with a picture and an annotation for each of `notes`."""
    (root / "info.json").write_text("{}")
    (root / "train.json").write_text(json.dumps(rows))
    for name, note in notes.items():
        picture(root / "image" / "awe" / f"{name}.jpg")
        path = root / "annotation" / "awe" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(note))
    return root


def row(name: str, emotion: str = "awe", fields: int = 4) -> list[object]:
    paths = [f"image/awe/{name}.jpg", f"annotation/awe/{name}.json"]
    return [emotion, *([name] if fields == 4 else []), *paths]


def one(root: Path, picture, note: dict[str, object]) -> Sample | Quarantined:
    (item,) = read_emoset(folder(root, picture, [row("awe_1")], {"awe_1": note}))
    return item


@pytest.mark.parametrize("fields", [3, 4])
def test_rows_of_three_and_four_fields_read_alike(tmp_path, picture, fields):
    note = {
        "image_id": "awe_00007",
        "emotion": "awe",
        "brightness": 0.0,
        "colorfulness": 0.4,
        "scene": "ski_slope",
        "object": ["Sky", "Tree"],
        "facial_expression": "happy",
        "human_action": "skiing",
    }
    root = folder(tmp_path, picture, [row("awe_00007", fields=fields)], {"awe_00007": note})
    (sample,) = read_emoset(root)
    assert sample == Sample(
        id="awe_00007",
        image=tmp_path / "image" / "awe" / "awe_00007.jpg",
        split="train",
        emotion="awe",
        prompt="sky, tree, ski slope",
        attributes={key: note[key] for key in list(note)[2:]},
        source="emoset",
    )


def test_unlabelled_attributes_are_absent_but_zero_brightness_is_a_label(tmp_path, picture):
    note = {"brightness": 0, "colorfulness": -1, "scene": -1, "object": 0, "human_action": None}
    sample = one(tmp_path, picture, note)
    assert sample.attributes == {"brightness": 0}
    assert sample.prompt is None
    assert sample.valence is None


@pytest.mark.parametrize(
    ("note", "knowledge"),
    [
        ({"qwen_aug": " A storm. ", "scene_aug": "no"}, "A storm."),
        ({"scene_aug": "A wide coast.", "object_aug": "A boat."}, "A wide coast. A boat."),
        ({"scene_aug": "scene", "object_aug": "A boat."}, "A boat."),
        ({"scene_aug": "scene", "object_aug": "object"}, None),
        ({"qwen_aug": ""}, None),
        ({}, None),
    ],
)
def test_knowledge(tmp_path, picture, note, knowledge):
    assert one(tmp_path, picture, note).knowledge == knowledge


def test_added_affect_votes_and_texts_are_read(tmp_path, picture):
    note = {"valence": -1, "arousal": 2.5, "dominance": 0.0, "neutral_prompt": "a cat"}
    note["votes"] = {"awe": 3, "fear": 0.5}
    sample = one(tmp_path, picture, note)
    assert (sample.valence, sample.arousal, sample.dominance) == (-1.0, 2.5, 0.0)
    assert sample.prompt == "a cat"
    assert sample.votes == {"awe": 3, "fear": 0.5}


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        ({"valence": 7.0}, "valence is outside its scale; got 7.0"),
        ({"arousal": "high"}, "arousal is not a number: got 'high'"),
        ({"arousal": True}, "arousal is not a number: got True"),
        ({"votes": {"joy": 1}}, "votes: unknown emotion 'joy'"),
        ({"votes": {"awe": -1}}, "votes: the weight of 'awe' is -1"),
        ({"votes": []}, "votes: expected an object of emotions and weights, got []"),
        ({"emotion": "fear"}, "the emotion is awe in the row and fear in its annotation"),
        ([], "is not a JSON object"),
    ],
)
def test_a_wrong_annotation_is_set_aside(tmp_path, picture, note, reason):
    item = one(tmp_path, picture, note)
    assert isinstance(item, Quarantined)
    assert reason in item.reason
    assert (item.where, item.record) == ("train.json row 1", "image/awe/awe_1.jpg")


def test_wrong_rows_are_set_aside_among_good_ones(tmp_path, picture):
    rows = [
        row("a"),
        row("b", emotion="joy"),
        ["awe", "only two"],
        "text",
        row("missing"),
        ["awe", "x", "../../secret.jpg", "annotation/awe/a.json"],
        ["awe", "x", "image/awe/a.jpg", "/etc/passwd"],
        ["awe", "x", None, 5],
        row("broken"),
        row("b"),
    ]
    root = folder(tmp_path, picture, rows, {"a": {}, "b": {}, "broken": {}})
    (root / "annotation" / "awe" / "broken.json").write_text("{")
    items = list(read_emoset(root))
    assert [isinstance(item, Sample) for item in items] == [True, *[False] * 8, True]
    reasons = [item.reason for item in items[1:-1]]
    for reason, message in zip(
        reasons,
        [
            "unknown emotion 'joy'",
            "expected a row of 3 or 4 fields",
            "expected a row of 3 or 4 fields",
            "'image/awe/missing.jpg' does not exist",
            "leaves the dataset's folder",
            "is absolute",
            "path is not a non-empty string: got None",
            "annotation broken.json cannot be read: not JSON",
        ],
        strict=True,
    ):
        assert message in reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"valence": 1' + "0" * 400 + "}", "valence: a number that is NaN, infinite or too large"),
        ('{"valence": 1' + "0" * 5000 + "}", "valence: a number that is NaN, infinite or too"),
        ('{"scene": NaN}', "scene: a number that is NaN"),
        ('{"neutral_prompt": "\\ud800"}', "neutral_prompt: a text with half a character"),
        ('{"valence": 1, "valence": 2}', "valence: this key comes twice"),
    ],
)
def test_an_annotation_that_nothing_could_store_is_set_aside(tmp_path, picture, text, reason):
    root = folder(tmp_path, picture, [row("a")], {"a": {}})
    (root / "annotation" / "awe" / "a.json").write_text(text)
    (item,) = read_emoset(root)
    assert isinstance(item, Quarantined)
    assert f"annotation a.json cannot be read: {reason}" in item.reason


@pytest.mark.parametrize("content", ["{}", "[", "nul", '["\\ud800"]', "[1" + "0" * 5000 + "]"])
def test_a_split_file_that_cannot_be_read(tmp_path, content):
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(UserError, match=r"cannot read .*train\.json"):
        list(read_emoset(tmp_path))


def test_a_folder_of_another_kind(tmp_path):
    with pytest.raises(UserError, match="is not an EmoSet folder"):
        list(read_emoset(tmp_path))


def test_an_affectworld_reads_whole(tmp_path):
    write_world(tmp_path / "w", 32, seed=0)
    samples = list(read_emoset(tmp_path / "w"))
    assert len(samples) == 32
    for sample in samples:
        assert sample.source == "affectworld"
        assert sample.emotion == sample.image.parent.name
        assert sample.knowledge.endswith(f"{sample.emotion}.")
        assert sample.emotional_prompt.startswith(sample.prompt)
        assert set(sample.attributes) == {"brightness", "colorfulness", "scene", "object"}


def test_the_published_label_map_names_our_emotions(shared):
    from emosym.affect.taxonomies import MIKELS8

    info = json.loads((shared / "emoset" / "info.json").read_text())
    assert tuple(info["emotion"]["label2idx"]) == MIKELS8


def test_our_label_map_has_the_published_structure(shared, tmp_path):
    write_world(tmp_path / "w", 8, seed=0)
    ours = json.loads((tmp_path / "w" / "info.json").read_text())
    theirs = json.loads((shared / "emoset" / "info.json").read_text())
    assert list(ours) == list(theirs)
    for name in ("emotion", "brightness", "colorfulness"):
        assert ours[name] == theirs[name]
    assert all(list(value) == ["label2idx", "idx2label"] for value in ours.values())
