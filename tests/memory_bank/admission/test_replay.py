"""What is replayed depends on the key alone, is balanced and stays a minority."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given

from emosym.errors import UserError
from memory_bank import Entry, synthetic_count
from memory_bank.admission.replay import replay


def entry(number: int, label: str) -> Entry:
    return Entry(
        id=number,
        sha256=f"{number:064x}",
        suffix="png",
        source="synthetic",
        emotion=label,
        reason="",
        added=1,
    )


MEMORY = [entry(n, "awe" if n < 20 else "fear" if n < 23 else "anger") for n in range(40)]


FEAR = (20, 21, 22)


def test_the_key_decides_and_the_order_of_entries_does_not():
    first = replay(MEMORY, 12, (1, 2, 3))
    assert first == replay(MEMORY[::-1], 12, (1, 2, 3))
    others = [replay(MEMORY, 12, key) for key in ((1, 2, 4), (1, 3, 3), (0, 2, 3))]
    assert all(first != other for other in others)


def test_this_key_gives_these_entries():
    """Pinned: a resumed run must draw what the interrupted one would have drawn."""
    assert [one.id for one in replay(MEMORY, 6, (7, 0, 100, 0, 3))] == [20, 0, 35, 21, 8, 28]


def test_labels_take_turns_then_the_small_ones_step_aside():
    picked = replay(MEMORY, 9, (5,))
    assert Counter(one.label for one in picked) == {"awe": 3, "fear": 3, "anger": 3}
    picked = replay(MEMORY, 13, (5,))
    assert Counter(one.label for one in picked) == {"awe": 5, "fear": 3, "anger": 5}


@given(count=st.integers(0, 100), key=st.integers(0, 2**40))
def test_all_are_used_before_one_comes_twice(count: int, key: int):
    uses = Counter(one.id for one in replay(MEMORY, count, (key,)))
    assert uses.total() == count
    assert max(uses.values(), default=0) <= -(-count // len(MEMORY))
    if count > len(MEMORY):
        assert len(uses) == len(MEMORY)


def test_every_entry_gets_its_chance():
    seen = Counter(replay(MEMORY, 1, (step,))[0].label for step in range(600))
    assert all(150 < seen[label] < 250 for label in ("awe", "fear", "anger"))
    fears = Counter(one.id for s in range(300) for one in replay(MEMORY, 3, (s,)) if one.id in FEAR)
    assert all(60 < fears[number] < 140 for number in FEAR)


def test_an_empty_memory():
    assert replay([], 0, (1,)) == []
    with pytest.raises(ValueError, match="replay from no entries"):
        replay([], 1, (1,))


@pytest.mark.parametrize(
    ("batch", "share", "available", "expected"),
    [(32, 0.25, 100, 8), (10, 0.25, 100, 2), (32, 0.25, 5, 5), (32, 0.0, 9, 0), (30, 0.1, 9, 3),
     (8, 0.5, 9, 4), (3, 0.25, 9, 0)],
)  # fmt: skip
def test_synthetic_count_by_hand(batch: int, share: float, available: int, expected: int):
    assert synthetic_count(batch, share, available) == expected


@pytest.mark.parametrize("share", [0.51, -0.1, float("nan")])
def test_a_share_above_the_cap_is_refused(share: float):
    with pytest.raises(UserError, match=r"synthetic share of a batch; got .*; expected a share"):
        synthetic_count(32, share, 100)
