from __future__ import annotations

import hashlib
import random
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from data_tools.affectworld.render import render
from data_tools.affectworld.scene import Scene, draw_scene
from emosym.errors import UserError
from eval.generation import attributes
from eval.generation.attribute_training import accuracy, targets, train
from eval.generation.attributes import (
    ATTRIBUTES,
    AttributeReader,
    Attributes,
    _hue,
    agreement,
    true_attributes,
)
from eval.generation.drawn_training import degraded, draw
from eval.generation.subject import SubjectClassifier

LEAST = {
    "scene_hue": 0.97,
    "subject_hue": 0.97,
    "setting": 0.96,
    "weather": 0.95,
    "place": 0.97,
    "size": 0.94,
    "subject": 0.97,
}
"""What the shipped weights reach on any 200 pictures: the docstring's accuracies less a margin."""


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, list[Scene]]:
    return draw(200, "a test of attributes")


def scene(**changes: object) -> Scene:
    return replace(draw_scene(random.Random(0), "cat", 0.5, 0.5), **changes)


def below(found: dict[str, float]) -> dict[str, float]:
    return {name: share for name, share in found.items() if share < LEAST[name]}


# --- the shipped weights ------------------------------------------------------------------------


def test_the_shipped_weights_read_pictures_they_never_saw_drawn(drawn) -> None:
    reader = AttributeReader.load()
    found = accuracy(reader, *drawn)
    assert tuple(found) == ATTRIBUTES
    assert below(found) == {}
    pixels, scenes = drawn
    torch.manual_seed(0)
    assert below(accuracy(reader, degraded(pixels), scenes)) == {}


def test_images_are_read_at_any_size() -> None:
    rng = random.Random("sizes of images")
    scenes = [draw_scene(rng, "house", 0.5, 0.5) for _ in range(20)]
    reader = AttributeReader.load()
    read = reader([render(one, 64 + 64 * (row % 2)) for row, one in enumerate(scenes)])
    right = agreement(read, true_attributes(scenes))
    assert len(read) == 20
    assert min(rows.mean() for rows in right.values()) >= 0.9


def test_hues_of_faint_colours_are_read() -> None:
    rng = random.Random("faint")
    scenes = [draw_scene(rng, "boat", rng.uniform(0.3, 0.7), 0.07) for _ in range(40)]
    read = AttributeReader.load()([render(one) for one in scenes])
    right = agreement(read, true_attributes(scenes))
    assert right["scene_hue"].mean() >= 0.9
    assert right["subject_hue"].mean() >= 0.9


def test_the_shipped_weights_are_those_on_record() -> None:
    on_record = re.search(r"SHA-256\s`([0-9a-f]{64})`", attributes.__doc__)[1]
    assert hashlib.sha256(attributes.WEIGHTS.read_bytes()).hexdigest() == on_record
    assert attributes.WEIGHTS.stat().st_size < 1_000_000


# --- agreement ----------------------------------------------------------------------------------


def test_fields_are_the_attributes() -> None:
    assert tuple(field.name for field in fields(Attributes)) == ATTRIBUTES


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (0.2, 0.2, True),
        (0.2, 0.28, True),
        (0.2, 0.29, False),
        (0.97, 0.04, True),  # across 0
        (0.04, 0.97, True),
        (0.95, 0.04, False),
        (0.0, 0.5, False),
    ],
)
def test_hues_agree_within_30_degrees_on_the_circle(one, other, same) -> None:
    first = true_attributes([scene(hue=one, body_hue=0.5)])
    second = true_attributes([scene(hue=other, body_hue=0.5)])
    shared = agreement(first, second)
    assert shared["scene_hue"].tolist() == [same]
    assert shared["subject_hue"].tolist() == [True]


def test_classes_agree_by_row() -> None:
    ours = scene(setting="sea", weather="rain", place="left", size="small", subject="cat")
    theirs = scene(setting="city", weather="rain", place="right", size="large", subject="boat")
    shared = agreement(true_attributes([ours, ours]), true_attributes([theirs, ours]))
    assert {name: rows.tolist() for name, rows in shared.items()} == {
        "scene_hue": [True, True],
        "subject_hue": [True, True],
        "setting": [False, True],
        "weather": [True, True],
        "place": [False, True],
        "size": [False, True],
        "subject": [False, True],
    }


def test_images_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="images are paired by row: got 1 and 3"):
        agreement(true_attributes([scene()]), true_attributes([scene()] * 3))


def test_hues_of_vectors_are_below_one() -> None:
    vectors = np.array([[2, 0], [0, 0.1], [-1, 0], [0, -3], [1, -1e-20]], dtype=np.float32)
    assert _hue(vectors).tolist() == [0, 0.25, 0.5, 0.75, 0]


# --- training -----------------------------------------------------------------------------------


def test_targets_by_hand() -> None:
    wanted = targets([scene(hue=0.25, body_hue=0.5, setting="sea", size="large")])
    assert wanted["scene_hue"].numpy() == pytest.approx(np.array([[0, 1]]), abs=1e-6)
    assert wanted["subject_hue"].numpy() == pytest.approx(np.array([[-1, 0]]), abs=1e-6)
    assert wanted["setting"].tolist() == [5]
    assert wanted["size"].tolist() == [2]


def test_training_repeats_with_its_seed() -> None:
    first, again, other = (train(64, seed, epochs=2).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_learns_its_pictures() -> None:
    reader = AttributeReader(train(64, 0, epochs=24), SubjectClassifier.load())
    found = accuracy(reader, *draw(64, "learned 0"))
    assert {name: share for name, share in found.items() if share < 0.8} == {}


# --- files --------------------------------------------------------------------------------------


def test_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*no.safetensors.*make attribute-reader"):
        AttributeReader.load(tmp_path / "no.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"cannot read .*expected weights of the attribute reader"):
        AttributeReader.load(tmp_path / "bad.safetensors")
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="cannot read") as told:
        AttributeReader.load(tmp_path / "other.safetensors")
    assert "\n" not in str(told.value)


def test_images_of_one_colour_have_attributes_too() -> None:
    read = AttributeReader.load()([Image.new("RGB", (64, 64), tone) for tone in ("black", "white")])
    assert np.isfinite(read.scene_hue).all()
    assert np.isfinite(read.subject_hue).all()
