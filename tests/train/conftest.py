from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_tools.affectworld.world import write_world
from tests.train import probes
from tests.train.processes import in_ranks


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """Return the folder of a random model: the tiny member's architecture, narrower still."""
    folder = tmp_path_factory.mktemp("zoo") / "model"
    in_ranks(probes.write_model, folder)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Return an AffectWorld of 64 pictures: 32 to train on, the others held out."""
    folder = tmp_path_factory.mktemp("data") / "world"
    write_world(folder, 64, 3)
    return folder


@pytest.fixture
def preset(tmp_path, model, world):
    """Return a function that writes a preset (JSON is YAML) of small sizes and returns its path."""

    def write(name: str = "preset", **sections) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(probes.settings(model, world, **sections)))
        return path

    return write
