"""The bank of a run: what enters it and when, and what it puts into batches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.dataset import open_dataset, validate_dataset
from data_tools.manifest import write_manifest
from emosym.errors import UserError
from emosym.records import Sample
from memory_bank import AdmissionPolicy, Candidate, MemoryBank
from memory_bank.store.entry import Provenance
from tests.memory_bank.make import candidate
from tests.model_zoo import make
from train.config import DataConfig
from train.data.bank_session import BankSession
from train.data.candidate_queue import CandidateQueue
from train.data.dataset import TrainingSet
from train.phases.remember import RememberConfig
from train.reference import ReferenceModel

OPEN = {"gates": ["capacity"], "top_quantile": 1.0}


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
        memory = BankSession(None, RememberConfig(real=1), model, ReferenceModel(model), "a model")
        memory.bank = bank
        memory.fill(TrainingSet(samples, [], DataConfig(), 0))
        found = {entry.emotion: entry.contrast for entry in bank.entries()}
    assert found["awe"] == pytest.approx(ramp.astype(float).std() / 255, abs=1e-12)
    assert found["fear"] == found["awe"]


KINDS = {
    "a.jpg": ("JPEG", "RGB"),
    "phone.jpg": ("MPO", "RGB"),
    "print.jpg": ("JPEG", "CMYK"),
    "a.webp": ("WEBP", "RGBA"),
    "a.avif": ("AVIF", "RGB"),
    "a.gif": ("GIF", "P"),
    "a.bmp": ("BMP", "RGB"),
    "a.tiff": ("TIFF", "RGBA"),
    "a.jp2": ("JPEG2000", "RGB"),
    "a.png": ("PNG", "LA"),
}


def test_every_picture_that_validates_is_trained_on_and_opens_the_bank(tmp_path):
    draw = np.random.default_rng(0)
    samples = []
    for name, (kind, mode) in KINDS.items():
        image = Image.fromarray(draw.integers(0, 256, (64, 64, 3), np.uint8)).convert(mode)
        options = {"save_all": True, "append_images": [image]} if kind == "MPO" else {}
        image.save(tmp_path / name, kind, **options)
        samples.append(Sample(id=name, image=tmp_path / name, split="train", emotion="awe"))
    write_manifest(tmp_path / "manifest.jsonl", samples)
    assert validate_dataset(tmp_path) == []
    training_set = TrainingSet(open_dataset(tmp_path), [], DataConfig(), 0)
    views = training_set.views(training_set.samples, torch.zeros(len(KINDS), 4))
    assert {(view.mode, view.size) for view in views} == {("RGB", (64, 64))}
    model = make.tiny()
    with MemoryBank.create(tmp_path / "bank", model.understander.backbone.width, "m") as bank:
        memory = BankSession(None, RememberConfig(real=20), model, ReferenceModel(model), "m")
        memory.bank = bank
        memory.fill(training_set)
        assert len(bank) == len(KINDS)
        assert bank.verify() == []
        kept = {bank.image_path(entry).read_bytes() for entry in bank.entries()}
    given = {name: (tmp_path / name).read_bytes() for name in KINDS}
    as_given = {name for name, data in given.items() if data in kept}
    assert as_given == {"a.jpg", "phone.jpg", "print.jpg", "a.png"}


@contextmanager
def memory_of(folder: Path, admission: Mapping[str, Any] = MappingProxyType({}), **values: Any):
    """Give a memory with an empty bank for vectors of 16 numbers."""
    with MemoryBank.create(folder / "bank", 16, "a model") as bank:
        values = {"admission": AdmissionPolicy(**(OPEN | admission)), **values}
        memory = BankSession(None, RememberConfig(**values), None, None, "a model")
        memory.bank = bank
        yield memory


def drawn(number: int, step: int, **changes) -> Candidate:
    own = {"source": "synthetic", "step": step, "seed": number, "confidence": 0.5}
    return candidate(number, **(own | changes))


def test_what_is_drawn_waits_before_it_is_offered(tmp_path):
    gates = ["delay", "capacity"]
    with memory_of(tmp_path, {"gates": gates, "delay": 5}) as memory:
        assert memory.offer([(0, drawn(1, 10)), (1, drawn(2, 10))], 10)["admitted"] == 0
        assert memory.offer([(0, drawn(3, 14))], 14)["admitted"] == 0
        found = memory.offer([(0, drawn(4, 15))], 15)
        assert (found["admitted"], found["refused"]) == (2, 0)
        assert [entry.seed for entry in memory.bank.entries()] == [1, 2]
        assert [one.seed for one in memory.waiting.candidates] == [3, 4]
        assert memory.offer([], 20)["admitted"] == 2
        assert memory.waiting.candidates == []


def test_what_waits_is_read_as_it_was_written(tmp_path):
    waiting, again = CandidateQueue(), CandidateQueue()
    again.load(tmp_path / "none.safetensors")
    assert again.candidates == []
    waiting.candidates = [
        drawn(
            n,
            3,
            image=Image.fromarray(np.full((4, 4 + n, 3), n, np.uint8)),
            fingerprint=-n,
            scores={"max_grad_norm": 1 / 3},
            prompt="ä",
            valence=0.1 + n,
            arousal=-1 / 3,
            predicted_valence=None,
        )
        for n in range(2)
    ]
    waiting.save(tmp_path / "waiting.safetensors")
    again.load(tmp_path / "waiting.safetensors")
    for one, other in zip(waiting.candidates, again.candidates, strict=True):
        for field in fields(Provenance):
            assert getattr(one, field.name) == getattr(other, field.name), field.name
        assert one.image.tobytes() == other.image.tobytes()
        assert one.image.size == other.image.size
        assert one.embedding.tobytes() == other.embedding.tobytes()
    (tmp_path / "waiting.safetensors").write_bytes(b"{}")
    with pytest.raises(
        UserError,
        match=r"waiting.safetensors does not hold candidates; got .*; resume from another",
    ):
        again.load(tmp_path / "waiting.safetensors")


def batch(count: int) -> list[Sample]:
    return [
        Sample(id=str(n), image=Path("none"), split="train", emotion="awe", prompt="a cat")
        for n in range(count)
    ]


def test_batches_keep_their_real_images_up_to_the_cap(tmp_path):
    with memory_of(tmp_path, synthetic_share=0.25) as memory:
        memory.bank.add([candidate(n, source="real") for n in range(8)])
        assert memory.mix(batch(8), (0,)) == batch(8)
        memory.offer([(n, drawn(20 + n, 0)) for n in range(8)], 0)
        mixed = memory.mix(batch(8), (0,))
        assert mixed[:6] == batch(8)[:6]
        assert {one.id for one in mixed[6:]} <= {f"bank-{n}" for n in range(9, 17)}


def test_under_the_published_policy_the_bank_is_the_training_set(tmp_path):
    with memory_of(tmp_path, {"replacement": "highest_confidence"}) as memory:
        memory.bank.add([candidate(n, source="real", confidence=n / 10) for n in range(8)])
        found = memory.offer([(n, drawn(20 + n, 0, confidence=0.01 * n)) for n in range(3)], 0)
        assert (found["admitted"], found["evicted"], found["size"]) == (3, 3, 8)
        mixed = memory.mix(batch(8), (0,))
        # Entries 6, 7 and 8 were the most confident.
        assert {one.id for one in mixed} == {f"bank-{n}" for n in (1, 2, 3, 4, 5, 9, 10, 11)}


def test_hard_negatives_come_first_and_are_real(tmp_path):
    with memory_of(tmp_path) as memory:
        assert memory.contrast(batch(8), 0.5) == batch(8)
        memory.bank.add(
            [
                candidate(0, source="real", emotion="awe", prompt="a cat"),
                candidate(1, source="synthetic", emotion="fear", prompt="a cat"),
                candidate(2, source="real", emotion="fear", prompt="a cat"),
                candidate(3, source="real", emotion="fear", prompt="a dog in the sea"),
            ]
        )
        mixed = memory.contrast(batch(8), 0.5)
        assert [one.id for one in mixed] == ["bank-3", *map(str, range(7))]
        assert mixed[0].emotion == "fear"
        assert memory.contrast(batch(8), 0.0) == batch(8)
