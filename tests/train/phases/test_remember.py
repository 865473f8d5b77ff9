"""The phase remember: offers of images that were generated before, and the breaker."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch.distributed as dist

from data_tools.manifest import write_manifest
from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.records import Sample, Understanding
from memory_bank.admission.diversity import WINDOW
from tests.memory_bank.make import picture
from tests.train.data.test_bank_session import drawn, memory_of
from train.config import DataConfig
from train.data.bank_session import BankSession
from train.data.dataset import TrainingSet
from train.phases.remember import Remember


@pytest.fixture
def alone():
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Judge:
    """Sees awe in everything."""

    def recognise(self, images):
        probabilities = {name: 0.3 if name == "awe" else 0.1 for name in MIKELS8}
        seen = Understanding(
            emotion="awe", probabilities=probabilities, affect=Affect(0.0, 0.0), text=""
        )
        images = list(images)
        return [seen] * len(images), np.random.default_rng(len(images)).normal(
            size=(len(images), 16)
        )


def phase(memory: BankSession, folder: Path, images: int) -> Remember:
    """Return phase remember of a run that offers images drawn before."""
    samples = []
    for number in range(images):
        path = folder / f"{number}.png"
        path.write_bytes(picture(number))
        emotion = "fear" if number % 3 else "awe"
        samples.append(Sample(id=str(number), image=path, split="train", emotion=emotion))
    write_manifest(folder / "generated.jsonl", samples)
    memory.config.generated = str(folder / "generated.jsonl")
    return Remember(
        SimpleNamespace(
            config=SimpleNamespace(remember=memory.config, seed=0),
            model=SimpleNamespace(config=SimpleNamespace(emotions=MIKELS8)),
            training_set=TrainingSet([], [], DataConfig(), 0),
            reference=Judge(),
            memory=memory,
        )
    )


def test_images_that_were_drawn_before_are_offered_in_portions_once(alone, tmp_path):
    with memory_of(tmp_path, per_emotion=2) as memory:
        remember = phase(memory, tmp_path, 12)  # 4 of awe, 8 of fear
        counts = [remember.act(10 * turn, turn)["admitted"] for turn in range(5)]
        assert counts == [4, 4, 2, 2, 0]
        entries = memory.bank.entries()
        assert len({entry.sha256 for entry in entries}) == 12
        assert {entry.step for entry in entries[:4]} == {0}
        assert {entry.confidence for entry in entries if entry.emotion == "fear"} == {0.1}


def test_a_tripped_breaker_draws_nothing_and_says_so_once(alone, tmp_path, capsys):
    with memory_of(tmp_path, per_emotion=2) as memory:
        remember = phase(memory, tmp_path, 12)
        memory.bank.record([])
        for first in range(0, WINDOW, 64):
            memory.offer([(n, drawn(100 + first + n, 0)) for n in range(64)], 0)
        version = memory.version
        for turn in range(2):
            found = remember.act(turn, turn)
            assert found["stopped"] == 1
            assert (found["admitted"], found["refused"]) == (0, 0)
        assert memory.version == version
        said = "256 of the last 256 candidates entered, outside 1% to 60%"
        assert capsys.readouterr().err == f"the memory bank admits nothing more: {said}\n"
        assert memory.stats()["stopped"] == said
        memory.bank.rollback(2)
        assert remember.act(2, 2)["stopped"] == 0
        assert "stopped" not in memory.stats()


def test_generated_images_need_what_was_asked_for(tmp_path):
    with memory_of(tmp_path) as memory:
        (tmp_path / "0.png").write_bytes(picture(0))
        write_manifest(
            tmp_path / "plain.jsonl", [Sample(id="0", image=tmp_path / "0.png", split="train")]
        )
        memory.config.generated = str(tmp_path / "plain.jsonl")
        context = SimpleNamespace(
            config=SimpleNamespace(remember=memory.config),
            model=SimpleNamespace(config=SimpleNamespace(emotions=MIKELS8)),
        )
        with pytest.raises(UserError, match="images without an emotion; expected the requested"):
            Remember(context)
