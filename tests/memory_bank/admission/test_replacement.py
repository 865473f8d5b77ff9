"""Who leaves a full class, by hand and against slow twins."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from memory_bank import REPLACEMENTS, AdmissionPolicy, Candidate, MemoryBank, admit
from memory_bank.admission.replacement import PUBLISHED, random_key
from tests.memory_bank.make import MODEL, candidate

DIM = 64


@pytest.fixture
def bank(tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        yield bank


def made(number: int, confidence: float, emotion: str = "awe", **changes) -> Candidate:
    """A candidate that is at a right angle to those of other numbers below `DIM`."""
    own = {
        "source": "synthetic",
        "emotion": emotion,
        "predicted": emotion,
        "confidence": confidence,
        "embedding": np.eye(DIM)[number % DIM],
        "seed": number,
        "step": 0,
    }
    return candidate(number, **(own | changes))


def policy(replacement: str, capacity: int) -> AdmissionPolicy:
    return AdmissionPolicy(
        gates=("capacity",),
        top_quantile=1.0,
        replacement=replacement,
        capacity_per_class=capacity,
    )


def offer(bank: MemoryBank, pool: list[Candidate], rules: AdmissionPolicy) -> list[int]:
    """Rule on a pool and record it; return the seeds of what is held then."""
    ruling = admit(pool, bank, rules)
    bank.record(ruling.decisions, evict=ruling.evict)
    return sorted(entry.seed for entry in bank.entries())


def test_none_keeps_what_it_holds(bank):
    rules = policy("none", 2)
    assert offer(bank, [made(1, 0.2), made(2, 0.1), made(3, 0.9, "fear")], rules) == [1, 2, 3]
    assert offer(bank, [made(4, 0.9), made(5, 0.9, "fear")], rules) == [1, 2, 3, 5]
    assert (
        bank.refusals()[0].reason
        == "class awe is full, and replacement none evicts no image for it"
    )


def test_lowest_confidence_by_hand(bank):
    rules = policy("lowest_confidence", 3)
    offer(bank, [made(1, 0.5), made(2, 0.3), made(3, 0.7)], rules)
    # 0.6 is decided first and takes the place of 0.3; 0.4 finds 0.5 the lowest, and is refused.
    assert offer(bank, [made(4, 0.4), made(5, 0.6)], rules) == [1, 3, 5]
    assert bank.entries()[-1].reason == "passed capacity; replaces entry 2"


def test_random_is_decided_by_the_version_of_the_bank(tmp_path):
    kept = []
    for name in ("one", "two"):
        with MemoryBank.create(tmp_path / name, DIM, MODEL) as bank:
            for first in range(0, 40, 4):
                held = offer(bank, [made(first + n, 0.5) for n in range(4)], policy("random", 6))
            kept.append(held)
            assert len(held) == 6
    assert kept[0] == kept[1]
    assert kept[0] != list(range(34, 40))


def test_a_reservoir_holds_those_with_the_lowest_tickets_that_ever_came(bank):
    rules, came = policy("reservoir", 5), [made(n, random.Random(n).random()) for n in range(40)]
    for one in came:  # one at a time: within a pool, who was just admitted stays
        held = offer(bank, [one], rules)
    assert held == sorted(one.seed for one in sorted(came, key=random_key)[:5])


def test_every_image_has_the_same_chance_in_a_reservoir(tmp_path):
    """20 images, 5 places: each stays in a quarter of 400 reservoirs (± 4 standard errors)."""
    stays = Counter()
    for trial in range(400):
        tickets = sorted(
            range(20), key=lambda n, t=trial: random_key(made(n, 0.5, prompt=f"trial {t}"))
        )
        stays.update(tickets[:5])
    assert all(abs(stays[n] - 100) < 4 * (400 * 0.25 * 0.75) ** 0.5 for n in range(20))


def test_the_published_policy_evicts_the_most_confident_real_images(bank):
    """bank = generated[:K] + bank[K:]: by hand, then until no real image is left."""
    real = [made(n, confidence, source="real") for n, confidence in enumerate((0.9, 0.2, 0.7))]
    bank.add(real)
    rules = policy(PUBLISHED, 1000)
    assert offer(bank, [made(10, 0.1, "fear")], rules) == [1, 2, 10]
    assert offer(bank, [made(11, 0.3), made(12, 0.3)], rules) == [10, 11, 12]
    assert bank.stats()["real"] == 0


@pytest.mark.parametrize("name", sorted(REPLACEMENTS.keys() - {PUBLISHED}))
def test_no_other_policy_evicts_a_real_image_or_another_class(bank, name):
    bank.add([made(n, 0.99, source="real") for n in range(4)])
    bank.add([made(n, 0.01, "fear") for n in range(4, 8)])
    rng = random.Random(name)
    for first in range(8, 56, 6):
        offer(bank, [made(first + n, rng.random()) for n in range(6)], policy(name, 4))
    stats = bank.stats()
    assert stats["real"] == 4
    assert stats["by_emotion_synthetic"]["fear"] == 4
    assert stats["by_emotion_synthetic"]["awe"] == 4
    assert bank.verify() == []
