from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.emosym.cli.command import emosym


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A random tiny model, saved as a model folder; for `generate` it counts as trained."""
    from model_zoo import zoo
    from train.data.base_texts import base_texts

    folder = tmp_path_factory.mktemp("zoo") / "model"
    made = zoo.build("emosym-tiny", base_texts(300, 0), 0)
    made.generator.conditioner.absent.data += 0.01
    return zoo.save(made, folder)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder with four different pictures, one of them in a folder of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    draw = np.random.default_rng(5)
    for name in ("a.png", "b.jpg", "c.png", "more/d.png"):
        levels = draw.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(levels).resize((64, 64)).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def drawn(model, tmp_path_factory) -> Path:
    """Three generated images, 4.png to 6.png."""
    folder = tmp_path_factory.mktemp("drawn") / "out"
    done = emosym(
        *("generate", "--emotion", "awe", "--prompt", "a tree"),
        *(
            "--num-images-per-prompt",
            3,
            "--seed",
            4,
            "--num-inference-steps",
            2,
            "--out",
            folder,
            "--model",
            model,
        ),
    )
    assert (done.code, done.err) == (0, "")
    return folder


@pytest.fixture
def bank(model, pictures, tmp_path) -> Path:
    """A bank that holds the four pictures."""
    done = emosym("bank", "add", tmp_path / "bank", pictures, "--model", model)
    assert (done.code, done.err) == (0, "")
    return tmp_path / "bank"


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "world"
    done = emosym("data", "world", out, "--count", 24, "--seed", 5, "--size", 32, "--json")
    assert done.json == {"dataset": str(out), "count": 24, "seed": 5, "size": 32}
    assert done.err == ""
    return out
