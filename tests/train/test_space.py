"""A run that trained generation leaves a model with an emotion space of its own states."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from data_tools.dataset import open_dataset
from data_tools.manifest import write_manifest
from emosym.inference.emotion_space_fitting import choose_samples, fit_emotion_space
from emosym.models.emotion_space import EmotionSpace, Gaussian
from emosym.pictures.loading import load_image
from model_zoo import zoo
from tests.train import probes
from tests.train.processes import train


def left(folder: Path, model: Path, data: Path, cycle: dict[str, int], **sections: Any):
    """Run a preset of two steps; return the model that it leaves."""
    stages = [{"steps": 2, "cycle": cycle}]
    whole = probes.settings(model, data, stages=stages, **sections)
    folder.mkdir()
    (folder / "preset.yaml").write_text(json.dumps(whole))
    done = train("run", folder / "preset.yaml", "--run", folder / "run")
    assert done.code == 0, done.err
    return zoo.load(folder / "run" / "model")


def assert_fits(model, world: Path) -> None:
    """Assert that a model's space is that of its own states."""
    samples = choose_samples(open_dataset(world))
    again = fit_emotion_space(model, samples, lambda sample: load_image(sample.image)).gaussians
    found = model.space.gaussians
    assert found.keys() == again.keys()
    for name, one in found.items():
        assert (one.mean - again[name].mean).abs().max() < 1e-4
        pair = [part.factor.flatten(1) for part in (one, again[name])]
        assert pair[0].shape == pair[1].shape
        assert (pair[0].T @ pair[0] - pair[1].T @ pair[1]).abs().max() < 1e-4


def test_the_space_is_that_of_the_model_that_is_left(tmp_path, model, world):
    """Of the average, where there is one."""
    rate = {"learning_rate": 1e-2, "warmup_steps": 0, "lr_scheduler_type": "constant"}
    engine = {"understander": {**rate, "ema_decay": 0.9, "ema_update_every": 2}, "generator": rate}
    found = left(
        tmp_path / "a", model, world, {"generate": 2}, engine=engine,
        generate={"update_understander": True, "image_share": 1.0},
    )  # fmt: skip
    start = zoo.load(model).understander.reasoner.emotion
    assert (found.understander.reasoner.emotion - start).abs().max() > 1e-3
    assert len(found.space.gaussians) == 8
    assert_fits(found, world)


def test_who_has_a_space_and_who_has_none(tmp_path, model, world):
    assert left(tmp_path / "a", model, world, {"compress": 1}).space is None
    unlabelled = world / "unlabelled.jsonl"
    write_manifest(unlabelled, [dataclasses.replace(s, emotion=None) for s in open_dataset(world)])
    assert left(tmp_path / "b", model, unlabelled, {"generate": 1}).space is None

    # A space that was there is not of the states that are there now.
    old = tmp_path / "old"
    shutil.copytree(model, old)
    spacious = zoo.load(model)
    shape = (1 + spacious.config.reasoning_tokens, spacious.understander.backbone.width)
    spacious.space = EmotionSpace({"awe": Gaussian(torch.zeros(shape), torch.zeros(1, *shape))})
    zoo.save(spacious, old)
    found = left(tmp_path / "c", old, world, {"compress": 1})
    assert len(found.space.gaussians) == 8
    assert_fits(found, world)
    assert left(tmp_path / "d", old, world, {"compress": 1}, reasoning_tokens=2).space is None
    assert list(left(tmp_path / "e", old, world, {"autoencode": 1}).space.gaussians) == ["awe"]
