"""Random histories of a bank, against a dictionary of its versions."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from emosym.errors import UserError
from memory_bank import Decision, MemoryBank
from tests.memory_bank.make import (
    DIM,
    MODEL,
    candidate,
    cosine,
    picture,
    vector,
)


class Against(RuleBasedStateMachine):
    """Random histories: the bank answers as a dictionary of its versions does."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.count = len(list(self.folder.iterdir()))
        self.bank = MemoryBank.create(self.folder / str(self.count), DIM, MODEL)
        self.history: list[dict[int, int]] = [{}]  # version -> {id: number of the picture}
        self.highest: list[int] = [0]
        self.oldest = 0
        self.tags: dict[str, int] = {}

    @rule(numbers=st.lists(st.integers(0, 15), min_size=1, max_size=4))
    def add(self, numbers: list[int]) -> None:
        recorded = self.bank.add([candidate(number) for number in numbers])
        live, last = dict(self.history[-1]), self.highest[-1]
        for number in numbers:
            if number not in live.values():
                last += 1
                live[last] = number
        assert len(recorded.admitted) == len(live) - len(self.history[-1])
        assert len(recorded.refused) == len(numbers) - len(recorded.admitted)
        self.history.append(live)
        self.highest.append(last)

    @precondition(lambda self: self.history[-1])
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.history[-1])))
        self.bank.remove([gone])
        self.history.append({i: n for i, n in self.history[-1].items() if i != gone})
        self.highest.append(self.highest[-1])

    @precondition(lambda self: self.history[-1])
    @rule(data=st.data(), number=st.integers(0, 15))
    def evict(self, data: st.DataObject, number: int) -> None:
        live = self.history[-1]
        gone = data.draw(st.sampled_from(sorted(live)))
        decision = Decision(candidate=candidate(number), admitted=True, reason="")
        recorded = self.bank.record([decision], evict=[gone])
        new = number not in live.values()  # one that leaves just now is still a duplicate
        assert len(recorded.admitted) == new
        left = {i: n for i, n in live.items() if i != gone}
        self.history.append(left | ({self.highest[-1] + 1: number} if new else {}))
        self.highest.append(self.highest[-1] + new)

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        version = data.draw(st.integers(self.oldest, len(self.history) - 1))
        names = [name for name, of in self.tags.items() if of == version]
        assert self.bank.rollback(names[0] if names else version) == version
        del self.history[version + 1 :], self.highest[version + 1 :]
        self.tags = {name: of for name, of in self.tags.items() if of <= version}

    @rule(data=st.data(), name=st.sampled_from(["a", "b", "c"]))
    def tag(self, data: st.DataObject, name: str) -> None:
        version = data.draw(st.integers(self.oldest, len(self.history) - 1))
        if name in self.tags:
            self.bank.untag(name)
        assert self.bank.tag(name, version) == version
        self.tags[name] = version

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        oldest = data.draw(st.none() | st.integers(self.oldest, len(self.history) - 1))
        forgotten = self.bank.compact(oldest)
        if oldest is None:
            oldest = min([*self.tags.values(), len(self.history) - 1])
        assert forgotten.oldest == oldest
        assert set(forgotten.tags) == {name for name, of in self.tags.items() if of < oldest}
        self.tags = {name: of for name, of in self.tags.items() if of >= oldest}
        self.oldest = oldest

    @rule(data=st.data())
    def look_back(self, data: st.DataObject) -> None:
        old, new = (data.draw(st.integers(self.oldest, len(self.history) - 1)) for _ in "ab")
        with MemoryBank.open(self.bank.path) as reader:
            assert reader.reload(old) == old
            live = self.history[old]
            kept = {entry.id: reader.image_path(entry).read_bytes() for entry in reader.entries()}
            assert kept == {number: picture(of) for number, of in live.items()}
            hits = reader.search(vector(99), 100)[0]
            assert {hit.entry.id for hit in hits} == live.keys()
            found = reader.diff(old, new)
            assert {entry.id for entry in found.came} == self.history[new].keys() - live.keys()
            assert {entry.id for entry in found.left} == live.keys() - self.history[new].keys()
            if self.oldest:
                with pytest.raises(UserError, match="has forgotten"):
                    reader.reload(self.oldest - 1)

    @rule()
    def reopen(self) -> None:
        self.bank.close()
        self.bank = MemoryBank.open(self.bank.path, "a", model_hash=MODEL)

    @rule(number=st.integers(0, 15), k=st.integers(1, 5))
    def search(self, number: int, k: int) -> None:
        live = self.history[-1]
        query = vector(number) + 0.1 * vector(99)
        ids = sorted(live)
        scores = cosine(query[None], np.array([vector(live[i]) for i in ids]).reshape(-1, DIM))[0]
        expected = [ids[place] for place in np.argsort(-scores)[:k]]
        assert [hit.entry.id for hit in self.bank.search(query, k)[0]] == expected

    @invariant()
    def same(self) -> None:
        assert self.bank.version == len(self.history) - 1
        assert self.bank.stats()["oldest"] == self.oldest
        assert self.bank.tags() == self.tags
        assert len(self.bank) == len(self.history[-1])
        assert {
            entry.id: self.bank.image_path(entry).read_bytes() for entry in self.bank.entries()
        } == {number: picture(of) for number, of in self.history[-1].items()}

    def teardown(self) -> None:
        assert self.bank.verify() == []
        self.bank.close()


def test_against_a_dictionary(tmp_path: Path):
    machine = type("Machine", (Against,), {"folder": tmp_path})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
