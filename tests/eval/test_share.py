"""Evaluation by several processes: every item once, in one order, in equal shares."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from eval import share
from eval.share import in_batches


class Rank:
    """One of several processes, run in a thread."""

    def __init__(self, place: int, shares: list, met: threading.Barrier) -> None:
        self.place, self.shares, self.met = place, shares, met

    def rank(self) -> int:
        return self.place

    def size(self) -> int:
        return len(self.shares)

    def collect(self, work):
        self.shares[self.place] = work()
        self.met.wait()
        return self.shares


@pytest.mark.parametrize("items", [0, 1, 5, 6, 7, 20])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_item_once_and_in_order(items: int, size: int) -> None:
    asked: list[list[int]] = []
    shares: list = [None] * size
    met = threading.Barrier(size)
    results: list = [None] * size

    def double(batch):
        asked.append([*batch])
        return [2 * each for each in batch]

    def work(place: int) -> None:
        processes = Rank(place, shares, met)
        results[place] = in_batches(
            range(items), double, what="numbers", processes=processes, batch=2
        )

    threads = [threading.Thread(target=work, args=(place,)) for place in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[2 * each for each in range(items)]] * size
    assert sorted(asked) == [[*range(items)[start : start + 2]] for start in range(0, items, 2)]
    sizes = [sum(map(len, share)) for share in shares]
    assert max(sizes) - min(sizes) <= 2, "equal shares, up to one batch"


def test_the_work_shows_how_far_it_is(monkeypatch) -> None:
    shown: list[tuple] = []

    @contextmanager
    def progress(what, total):
        yield lambda *numbers: shown.append((what, total, *numbers))

    monkeypatch.setattr(share, "progress", progress)
    in_batches(range(5), lambda batch: batch, what="numbers", batch=2)
    assert shown == [("numbers", 5, done, 5) for done in (2, 4, 5)]
