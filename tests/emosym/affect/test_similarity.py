from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emosym.affect.definitions import DEFINITIONS, definition_cosines, sentence
from emosym.affect.norms import WORDS
from emosym.affect.similarity import (
    affect_similarity,
    reward_matrix,
    semantic_similarity,
    similarities,
)
from emosym.affect.taxonomies import EKMAN7, MIKELS8, SPELLINGS
from emosym.errors import UserError

PUBLISHED = Path(__file__).resolve().parents[4] / "shared" / "data" / "eemo_logic"
"""EEmo-Logic's inputs and matrices, where they are at hand."""
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs EEmo-Logic's published files")

PLUTCHIK24 = (
    "acceptance",
    "admiration",
    "amazement",
    "anger",
    "annoyance",
    "anticipation",
    "apprehension",
    "boredom",
    "disgust",
    "distraction",
    "ecstasy",
    "fear",
    "grief",
    "interest",
    "joy",
    "loathing",
    "pensiveness",
    "rage",
    "sadness",
    "serenity",
    "surprise",
    "terror",
    "trust",
    "vigilance",
)
"""Plutchik's eight in three strengths. Ref: FindingEmo."""

EMOTIC26 = (
    "affection",
    "anger",
    "annoyance",
    "anticipation",
    "aversion",
    "confidence",
    "disapproval",
    "disconnection",
    "disquietment",
    "doubt/confusion",
    "embarrassment",
    "engagement",
    "esteem",
    "excitement",
    "fatigue",
    "fear",
    "happiness",
    "pain",
    "peace",
    "pleasure",
    "sadness",
    "sensitivity",
    "suffering",
    "surprise",
    "sympathy",
    "yearning",
)
"""Ref: EMOTIC."""

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


@published
@pytest.mark.parametrize(
    ("definitions", "correlations", "errors", "mean"),
    [
        (False, [0.774, 0.877, 0.778, 0.882, 0.878], [0.094, 0.131, 0.091, 0.060, 0.125], 0.186),
        (True, [0.610, 0.881, 0.600, 0.768, 0.838], [0.049, 0.016, 0.047, 0.050, 0.023], 0.069),
    ],
)
def test_how_near_ours_come_to_the_published_matrices(definitions, correlations, errors, mean):
    """The table of docs/experiments.md: definitions mend the size of R, not its order."""
    pairs = []
    for key, matrix in read("reward_matrix_1").items():
        ours = similarities(tuple(labels_of(key)), definitions=definitions)
        apart = ~np.eye(len(ours), dtype=bool)
        pairs.append((np.array(matrix)[apart], ours[apart]))
    found = [np.corrcoef(*pair)[0, 1] for pair in pairs]
    assert found == pytest.approx(correlations, abs=6e-4)
    assert [np.abs(a - b).mean() for a, b in pairs] == pytest.approx(errors, abs=6e-4)
    goal, both = (np.concatenate(part) for part in zip(*pairs, strict=True))
    assert goal.mean() == pytest.approx(0.066, abs=6e-4)
    assert both.mean() == pytest.approx(mean, abs=6e-4)
    assert np.corrcoef(goal, both)[0, 1] == pytest.approx(0.803 if definitions else 0.829, abs=6e-4)


@pytest.mark.parametrize("definitions", [False, True])
def test_top_confusions_of_the_seven(definitions):
    """The published ones are fear-anger, surprise-joy and disgust-anger."""
    matrix = similarities(EKMAN7, definitions=definitions)
    near = np.where(np.eye(7), -1, matrix).argmax(1)
    top = {label: EKMAN7[place] for label, place in zip(EKMAN7, near, strict=True)}
    assert (top["surprise"], top["disgust"]) == ("joy", "anger")
    assert top["fear"] == ("disgust" if definitions else "anger")
    fear = dict(zip(EKMAN7, matrix[EKMAN7.index("fear")], strict=True))
    earned = (0.181, 0.229) if definitions else (0.485, 0.447)
    assert (fear["anger"], fear["disgust"]) == pytest.approx(earned, abs=6e-4)


def test_every_word_with_norms_is_defined_in_full():
    assert set(DEFINITIONS) == set(WORDS) - set(SPELLINGS)
    assert [word for word, parts in DEFINITIONS.items() if not all(parts)] == []
    assert len(set(DEFINITIONS.values())) == len(DEFINITIONS)
    assert sentence("fear") == (
        "fear: a negative emotion of high energy. It arises when danger threatens, and makes people"
        " freeze, hide or run away."
    )


def test_stored_cosines_go_by_the_name_of_a_word():
    assert (definition_cosines(EMOTIC26) == definition_cosines(EMOTIC26[::-1])[::-1, ::-1]).all()
    both = definition_cosines(("sad", "joy", "sadness"))
    assert (both == both.T).all()
    assert both[0].tolist() == both[2].tolist()
    assert both[0, 2] == 1
    near, far = definition_cosines(("panic", "terror", "peace"))[0, 1:]
    assert near > far
    with pytest.raises(UserError, match=r"unknown emotion word 'angr'.*did you mean 'anger'"):
        definition_cosines(("joy", "angr"))


@pytest.mark.parametrize("labels", SETS, ids=len)
def test_definitions_against_a_slow_twin(labels):
    """R = (0.6 V + 0.4 Ē²)³, one entry at a time."""
    cosines, count = definition_cosines(labels).tolist(), len(labels)
    rows = [[(value - min(row)) / (max(row) - min(row)) for value in row] for row in cosines]
    largest = max(rows[i][j] for i in range(count) for j in range(count) if i != j)
    near = affect_similarity(labels)
    twin = [
        [
            (0.6 * near[i, j] + 0.4 * (1 if i == j else rows[i][j] / largest) ** 2) ** 3
            for j in range(count)
        ]
        for i in range(count)
    ]
    assert np.abs(similarities(labels, definitions=True) - twin).max() < 1e-12
    assert (similarities(labels) == reward_matrix(affect_similarity(labels))).all()


@pytest.mark.parametrize("definitions", [False, True])
def test_one_option_or_two(definitions):
    """Where a question lists no third emotion, a miss is as far off as can be."""
    assert similarities(("joy",), definitions=definitions).tolist() == [[1]]
    two = similarities(("joy", "fear"), definitions=definitions)
    assert two.tolist() == [[1, 0], [0, 1]]


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
    unit = rng.normal(size=(len(labels), 12))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    semantic = semantic_similarity(unit @ unit.T)
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
