from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.affectworld.world import draw_world
from emosym.errors import UserError
from eval.generation import subject
from eval.generation.drawn_training import draw
from eval.generation.subject import SubjectClassifier
from eval.generation.subject_training import train


def test_the_shipped_weights_name_subjects_they_never_saw_drawn() -> None:
    classifier = SubjectClassifier.load()
    pixels, scenes = draw(200, "a test")
    subjects = [scene.subject for scene in scenes]
    images = [
        Image.fromarray((rows.permute(1, 2, 0) * 255).round().byte().numpy()) for rows in pixels
    ]
    named = classifier(images)
    assert np.mean([one == true for one, true in zip(named, subjects, strict=True)]) >= 0.97
    blurred = [im.resize((32, 32), Image.Resampling.BOX).resize((64, 64)) for im in images]
    named = classifier(blurred)
    assert np.mean([one == true for one, true in zip(named, subjects, strict=True)]) >= 0.95
    assert classifier([]) == []


def test_the_worlds_own_files_are_named_at_any_size() -> None:
    drawings = list(draw_world(40, seed=77, size=128))
    images = [Image.open(io.BytesIO(drawing.jpeg)) for drawing in drawings]
    named = SubjectClassifier.load()(images)
    right = [one == drawing.scene.subject for one, drawing in zip(named, drawings, strict=True)]
    assert np.mean(right) >= 0.95


def test_the_shipped_weights_are_those_on_record() -> None:
    on_record = re.search(r"SHA-256\s`([0-9a-f]{64})`", subject.__doc__)[1]
    assert hashlib.sha256(subject.WEIGHTS.read_bytes()).hexdigest() == on_record
    assert subject.WEIGHTS.stat().st_size < 1_000_000


def test_noise_is_no_subject_for_certain() -> None:
    noise = torch.rand(64, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        chosen = SubjectClassifier.load().net(noise).softmax(1).max(1).values
    assert chosen.mean() < 0.9


def test_training_repeats_with_its_seed() -> None:
    first, again, other = (train(64, seed, epochs=4).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_learns_its_pictures() -> None:
    classifier = SubjectClassifier(train(64, 0, epochs=16))
    pixels, scenes = draw(64, "learned 0")
    named = classifier.read(pixels)
    right = [one == scene.subject for one, scene in zip(named, scenes, strict=True)]
    assert np.mean(right) > 0.8


def test_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*no.safetensors.*make subject-classifier"):
        SubjectClassifier.load(tmp_path / "no.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="cannot read"):
        SubjectClassifier.load(tmp_path / "bad.safetensors")
