"""The data of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emosym.config import load_config
from emosym.errors import UserError
from tests.train.processes import in_ranks
from train.data.run_data import load_run_data
from train.phases.registry import train_config

PRESET = Path(__file__).resolve().parents[3] / "train" / "presets" / "tiny" / "compress-tiny.yaml"


def drawn_then_piped(run: Path) -> tuple[int, str]:
    """Draw the world of a run; return its size, and what is told when a pipe is in it."""
    config = load_config(train_config(), PRESET, ["data.world.count=24"])
    count = len(load_run_data(config, run).samples)
    (run / "world" / "train.json").unlink()
    os.mkfifo(run / "world" / "train.json")
    with pytest.raises(UserError) as error:
        load_run_data(config, run)
    return count, str(error.value)


def test_a_pipe_in_the_drawn_world_is_named_and_not_waited_for(tmp_path: Path) -> None:
    [(count, told)] = in_ranks(drawn_then_piped, tmp_path)
    world = tmp_path / "world"
    assert count == 24
    assert told == (
        f"the images that were drawn for this run cannot be read: {world / 'train.json'} is not a"
        " regular file (a folder, a pipe, a device or a broken link); expected a file of the"
        f" dataset in that place; put the file itself there; or delete {world}, and it is drawn"
        " again"
    )
