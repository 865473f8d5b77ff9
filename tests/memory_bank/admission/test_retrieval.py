"""Neighbours by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memory_bank import MemoryBank
from memory_bank.admission.retrieval import affect_prior, hard_negatives
from tests.memory_bank.make import MODEL, candidate


@pytest.fixture
def bank(tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", 2, MODEL) as bank:
        yield bank


def real(number: int, angle: float, **changes):
    vector = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    return candidate(number, **({"source": "real", "embedding": vector} | changes))


def test_the_prior_is_the_mean_of_the_nearest_real_images(bank):
    bank.add(
        [
            real(1, 0, valence=1.0, arousal=2.0),
            real(2, 10, valence=2.0, arousal=-1.0),
            real(3, 20),  # nobody rated it
            real(4, 90, valence=-3.0, arousal=-3.0),
            real(5, 1, valence=3.0, arousal=3.0, source="synthetic"),
        ]
    )
    queries = np.array([[1.0, 0.0], [0.0, 2.0], [np.cos(0.35), np.sin(0.35)]])
    assert affect_prior(bank, queries, 2).tolist() == [[1.5, 0.5], [-3.0, -3.0], [2.0, -1.0]]
    assert np.isnan(affect_prior(bank, queries[2], 1)).all()


def test_a_hard_negative_shows_the_same_and_evokes_another_emotion(bank):
    bank.add(
        [
            real(1, 0, emotion="awe", prompt="a cat by the sea, clouds"),
            real(2, 0, emotion="fear", prompt="A cat by the sea"),  # 5 of 6 words
            real(3, 0, emotion="anger", prompt="a cat by the sea, clouds"),  # 6 of 6
            real(4, 0, emotion="sadness", prompt="a cat by the sea, clouds"),
            real(5, 0, emotion="disgust", prompt="a spider"),
            real(6, 0, emotion=None, prompt="a cat by the sea, clouds"),
            real(7, 0, emotion="awe", prompt=None),
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
