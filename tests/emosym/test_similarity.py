from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emosym.errors import UserError
from emosym.norms import WORDS
from emosym.similarity import affect_similarity, reward_matrix, semantic_similarity
from emosym.taxonomy import EKMAN7, EMOTIC26, MIKELS8, PLUTCHIK24

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "eemo_logic"
"""EEmo-Logic's inputs and matrices, where they are at hand."""
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs EEmo-Logic's published files")
SETS = (MIKELS8, EKMAN7, PLUTCHIK24, EMOTIC26)


def read(name: str) -> dict:
    return json.loads((PUBLISHED / f"{name}.json").read_text())


def labels_of(key: str) -> list[str]:
    return [name.strip().lower() for name in key.split(",")]


@published
def test_the_norms_are_the_published_ones():
    assert {word: tuple(values) for word, values in read("emotion_vad_scores").items()} == WORDS


@published
def test_the_published_matrices_come_out():
    """All five label sets, 1,429 entries, from the published embedding similarities."""
    semantic, entries = read("embedding_similarity"), []
    for key, matrix in read("reward_matrix_1").items():
        found = reward_matrix(affect_similarity(labels_of(key)), np.array(semantic[key]))
        assert np.abs(found - matrix).max() < 1e-9
        entries += found.ravel().tolist()
    assert len(entries) == 1429
    assert np.mean(entries) == pytest.approx(0.1136, abs=5e-5)
    assert np.median(entries) == pytest.approx(0.0337, abs=5e-5)


@published
def test_the_label_sets_are_the_published_ones():
    known = [set(labels_of(key)) for key in read("reward_matrix_1")]
    assert all(set(labels) in known for labels in SETS)


def test_affect_by_hand():
    """Three words: fear (2.93 6.14 3.32), anger (2.50 5.93 5.14) and joy (8.21 5.55 7.00)."""
    found = affect_similarity(["fear", "anger", "joy"])
    near = np.sqrt(0.5 * 0.43**2 + 0.3 * 0.21**2 + 0.2 * 1.82**2)
    far = np.sqrt(0.5 * 5.28**2 + 0.3 * 0.59**2 + 0.2 * 3.68**2)
    assert found[0].tolist() == pytest.approx([1, 1 - near / far, 0])
    assert reward_matrix(found)[0].tolist() == pytest.approx([1, (1 - near / far) ** 3, 0])


@pytest.mark.parametrize("labels", SETS, ids=len)
def test_a_matrix_of_every_label_set(labels):
    rng = np.random.default_rng(0)
    semantic = semantic_similarity(rng.normal(size=(len(labels), 12)))
    assert semantic.min(1).tolist() == [0] * len(labels)
    assert semantic.max(1) == pytest.approx(1)
    for matrix in (
        reward_matrix(affect_similarity(labels)),
        reward_matrix(affect_similarity(labels), semantic),
    ):
        assert np.diag(matrix) == pytest.approx(1)
        assert matrix.min() >= 0
        assert (matrix[~np.eye(len(labels), dtype=bool)] < 1).all()


def test_a_word_without_norms():
    with pytest.raises(UserError, match=r"unknown emotion word 'angr'.*did you mean 'anger'"):
        affect_similarity(["joy", "angr"])
