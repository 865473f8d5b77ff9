"""The bank of a run: what it says of an image is what the model saw of it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from emosym.records import Sample
from memory_bank import MemoryBank
from tests.model_zoo import make
from train.config import DataConfig, RememberConfig
from train.data import Corpus
from train.memory import Memory
from train.reference import Reference


def test_the_contrast_of_a_16_bit_picture_is_that_of_its_8_bits(tmp_path):
    """A grey ramp; Pillow by itself would cut all but its darkest 256th to white."""
    ramp = np.linspace(0, 255, 64).round().astype(np.uint8)
    levels = np.tile(ramp, (64, 1))
    Image.fromarray(levels).save(tmp_path / "8.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "16.png")
    samples = [
        Sample(id=name, image=tmp_path / f"{name}.png", split="train", emotion=emotion)
        for name, emotion in (("8", "awe"), ("16", "fear"))
    ]
    model = make.tiny()
    width = model.understander.backbone.width
    with MemoryBank.create(tmp_path / "bank", width, "a model") as bank:
        memory = Memory(None, RememberConfig(real=1), model, Reference(model), "a model")
        memory.bank = bank
        memory.fill(Corpus(samples, [], DataConfig(), 0))
        found = {entry.emotion: entry.contrast for entry in bank.entries()}
    assert found["awe"] == pytest.approx(ramp.astype(float).std() / 255, abs=1e-12)
    assert found["fear"] == found["awe"]
