"""Hard negatives, checked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memory_bank import MemoryBank
from memory_bank.admission.hard_negatives import hard_negatives
from tests.memory_bank.make import MODEL, candidate


@pytest.fixture
def bank(tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", 2, MODEL) as bank:
        yield bank


def real(number: int, **changes):
    return candidate(number, **({"source": "real", "embedding": np.array([1.0, 0.0])} | changes))


def test_a_hard_negative_shows_the_same_and_evokes_another_emotion(bank):
    bank.add(
        [
            real(1, emotion="awe", prompt="a cat by the sea, clouds"),
            real(2, emotion="fear", prompt="A cat by the sea"),  # 5 of 6 words
            real(3, emotion="anger", prompt="a cat by the sea, clouds"),  # 6 of 6
            real(4, emotion="sadness", prompt="a cat by the sea, clouds"),
            real(5, emotion="disgust", prompt="a spider"),
            real(6, emotion=None, prompt="a cat by the sea, clouds"),
            real(7, emotion="awe", prompt=None),
        ]
    )
    found = hard_negatives(
        bank.entries(),
        [
            ("clouds, a cat by the sea", "awe"),
            ("clouds, a cat by the sea", "anger"),
            ("a spider in the hills", "awe"),  # 2 of 5 words: something else
            ("a spider", "disgust"),
            ("", "awe"),
            ("a spider", None),
        ],
    )
    assert [one and one.id for one in found] == [3, 1, None, None, None, None]
