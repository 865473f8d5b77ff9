"""The parts of the study that decide what its numbers mean."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.few_labels import few_labels
from benchmarks.memory_study import LABELS, inverted, table
from emosym.affect.taxonomies import MIKELS8
from emosym.records import Sample
from tests.memory_bank.make import candidate


def judged(fingerprint: int, predicted: str):
    return candidate(
        1,
        emotion="awe",
        predicted=predicted,
        valence=1.0,
        arousal=-2.0,
        predicted_valence=0.0,
        predicted_arousal=0.0,
        confidence=0.9,
        fingerprint=fingerprint,
    )


def test_a_wrong_judge_inverts_two_judgements_in_five():
    right = [inverted(judged(n, "awe")) for n in range(1000)]
    wrong = [inverted(judged(n, "fear")) for n in range(1000)]
    changed = [one.predicted != "awe" for one in right]
    assert sum(changed) == pytest.approx(400, abs=4 * (1000 * 0.4 * 0.6) ** 0.5)
    assert changed == [one.predicted == "awe" for one in wrong]  # decided by the image
    first = changed.index(True)
    assert (right[first].predicted_valence, right[first].predicted_arousal) == (-1.0, 2.0)
    assert (wrong[first].predicted_valence, wrong[first].predicted_arousal) == (1.0, -2.0)
    assert right[first].confidence == pytest.approx(0.1)


def test_labels_are_few_and_balanced():
    samples = [
        Sample(id=str(n), image=Path("none"), split="train", emotion=MIKELS8[n % 8])
        for n in range(400)
    ]
    counts = Counter(sample.emotion for sample in few_labels(samples, LABELS, 0))
    assert counts.total() == LABELS
    assert set(counts.values()) == {18, 19}
    assert few_labels(samples, LABELS, 0) != few_labels(samples, LABELS, 1)


def test_the_table_has_changes_against_no_bank():
    base = {"wrong": False, "v_mae": 0.5, "a_mae": 0.5}
    rows = [
        {"seed": 0, "arm": "no bank", "accuracy": 0.5, **base},
        {"seed": 1, "arm": "no bank", "accuracy": 0.7, **base},
        {"seed": 0, "arm": "ours", "accuracy": 0.6, **base, "real": 2, "synthetic": 4, "right": 1},
        {"seed": 1, "arm": "ours", "accuracy": 0.8, **base, "real": 2, "synthetic": 2, "right": 0},
    ]
    last = table(rows).splitlines()[-1]
    assert last.startswith("| ours | right | 2 | 2, 3 | 0.50 | 0.700 ± 1.271 | +0.100 ± 0.000 |")
