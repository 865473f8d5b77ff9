"""Adding, searching, reopening, rolling back; against brute force and a dictionary."""

from __future__ import annotations

import shutil
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
from PIL import Image

from emosym.affect.scales import UNIT, Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from memory_bank import Decision, Entry, MemoryBank, fingerprint
from memory_bank.store.store import DUPLICATE
from tests.memory_bank.make import DIM, MODEL, candidate, picture, vector


@pytest.fixture
def bank(tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        yield bank


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The slow twin: [Q, D], [N, D] -> [Q, N] in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T


def refused(number: int, reason: str = "too dull") -> Decision:
    return Decision(candidate=candidate(number), admitted=False, reason=reason)


@pytest.mark.parametrize(
    "filters",
    [{}, {"emotion": "awe"}, {"source": "real"}, {"emotion": "Fear", "source": "real"}],
)
def test_search_equals_brute_force(bank: MemoryBank, filters: dict):
    for start in range(0, 120, 40):
        bank.add([candidate(number) for number in range(start, start + 40)])
    entries = bank.entries(**filters)
    queries = np.stack([vector(1000 + q) * 10.0**q for q in range(5)])
    scores = cosine(queries, bank.embeddings([entry.id for entry in entries]))
    best = np.argsort(-scores, axis=1)[:, :7]

    hits = bank.search(queries, 7, **filters)

    assert [[hit.entry for hit in row] for row in hits] == [[entries[i] for i in r] for r in best]
    found = np.array([[hit.cosine for hit in row] for row in hits])
    np.testing.assert_allclose(found, np.take_along_axis(scores, best, 1), atol=1e-6)


def test_one_query_and_fewer_entries_than_asked(bank: MemoryBank):
    assert bank.search(vector(0), 3) == [[]]
    bank.add([candidate(0), candidate(1)])
    (hits,) = bank.search(vector(1) * 1e30, 10)
    assert [hit.entry.id for hit in hits] == [2, 1]
    assert hits[0].cosine == pytest.approx(1.0, abs=1e-6)
    assert bank.search(vector(1), 10, emotion="sadness") == [[]]
    assert bank.search(np.empty((0, DIM)), 3) == []


def test_affect_is_searched_on_record(tmp_path: Path):
    """Asked for (1, 1) and (-2, 0), seen as (0, 0.5), and one of which nothing is known."""
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add(
            [
                candidate(
                    1, valence=1.0, arousal=1.0, predicted_valence=0.0, predicted_arousal=0.0
                ),
                candidate(3, valence=-2.0, arousal=0.0),
                candidate(5, predicted_valence=0.0, predicted_arousal=0.5),
                candidate(7),
            ]
        )
        hits = bank.search_affect(Affect(0.5, 0.5, UNIT))  # (0, 0) on [-3, 3]
        assert [(hit.entry.id, hit.distance) for hit in hits] == [(3, 0.5), (1, 2.0), (2, 2.0)]
        assert [hit.entry.id for hit in bank.search_affect(Affect(0, 0), 1)] == [3]
        assert [hit.entry.id for hit in bank.search_affect(Affect(0, 0), emotion=MIKELS8[1])] == [1]
        with pytest.raises(UserError, match="number of neighbours; got 0"):
            bank.search_affect(Affect(0, 0), 0)


def test_an_entry_keeps_everything_it_was_given(bank: MemoryBank):
    given = {
        "source": "synthetic",
        "emotion": "awe",
        "valence": 1.5,
        "arousal": -0.5,
        "predicted": "awe",
        "predicted_valence": np.float32(1.25),
        "predicted_arousal": -0.75,
        "confidence": 0.875,
        "contrast": 0.25,
        "prompt": "a hill; DROP TABLE entries",
        "seed": 2**63 - 1,
        "model_hash": "generator-7",
        "step": np.int64(40),
        "fingerprint": -(2**63),
        "scores": {"pickscore": 0.25},
    }
    recorded = bank.add([candidate(3, **given)], reason="passed all")

    (entry,) = bank.entries()
    assert recorded.version == bank.version == 1
    assert {name: getattr(entry, name) for name in given} == given
    assert (entry.id, entry.added, entry.reason, entry.label) == (1, 1, "passed all", "awe")
    assert bank.image_path(entry).read_bytes() == picture(3)
    assert bank.image_path(entry).parts[-2:] == (entry.sha256[:2], f"{entry.sha256}.png")
    np.testing.assert_array_equal(bank.embeddings([1]), vector(3)[None])


def test_what_is_evicted_leaves_in_the_version_of_what_comes(bank: MemoryBank):
    bank.add([candidate(0), candidate(1)])
    decisions = [Decision(candidate=candidate(2), admitted=True, reason="better")]
    assert bank.record(decisions, evict=[1]).version == 2
    assert [entry.id for entry in bank.entries()] == [2, 3]
    with pytest.raises(UserError, match="no such entry in the memory bank; got id 1"):
        bank.record([Decision(candidate=candidate(3), admitted=True, reason="")], evict=[1, 2])
    assert (bank.version, len(bank), bank.verify()) == (2, 2, [])
    bank.rollback(1)
    assert [entry.id for entry in bank.entries()] == [1, 2]


def test_fingerprints_by_hand():
    """A ramp to the right is darker than its right everywhere; brightness does not matter."""
    ramp = np.tile(np.arange(0, 180, 10, np.uint8), (16, 1))
    assert fingerprint(Image.fromarray(ramp)) == -1  # 64 ones
    assert fingerprint(Image.fromarray(ramp[:, ::-1].copy())) == 0
    ramp[8:] = 7
    half = fingerprint(Image.fromarray(ramp))
    assert half == fingerprint(Image.fromarray(ramp + 40)) == -(2**32)


def test_pictures_paths_and_jpegs_are_taken(bank: MemoryBank, tmp_path: Path):
    (tmp_path / "photo.jpeg").write_bytes(picture(1, "JPEG"))
    drawn = Image.new("RGB", (4, 4), "red")
    bank.add([candidate(1, image=tmp_path / "photo.jpeg"), candidate(2, image=drawn)])
    photo, drawing = bank.entries()
    assert bank.image_path(photo).read_bytes() == picture(1, "JPEG")
    assert (photo.suffix, drawing.suffix) == ("jpg", "png")
    with Image.open(bank.image_path(drawing)) as kept:
        assert kept.getpixel((0, 0)) == (255, 0, 0)


def test_a_duplicate_is_refused_by_name_and_the_rest_goes_in(bank: MemoryBank):
    bank.add([candidate(1)])
    recorded = bank.add([candidate(2), candidate(1), candidate(2)])
    assert [one.candidate.emotion for one in recorded.admitted] == [MIKELS8[2]]
    assert [one.reason for one in recorded.refused] == [DUPLICATE, DUPLICATE]
    assert [one.reason for one in bank.refusals()] == [DUPLICATE, DUPLICATE]
    assert (len(bank), bank.version, bank.stats()["refused"]) == (2, 2, 2)


def test_a_duplicate_brings_its_lost_file_back(bank: MemoryBank):
    bank.add([candidate(0), candidate(1), candidate(2)])
    paths = [bank.image_path(entry) for entry in bank.entries()]
    paths[0].unlink()
    paths[1].write_bytes(b"rubbish")
    taken = bank.add([candidate(number) for number in (0, 1, 2, 0)])
    restored = "duplicate image, whose lost file is restored"
    assert [one.reason for one in taken.refused] == [restored] * 2 + ["duplicate image"] * 2
    assert [path.read_bytes() for path in paths] == [picture(number) for number in range(3)]
    assert (len(bank), bank.verify()) == (3, [])
    shutil.rmtree(paths[2].parents[1])
    bank.add([candidate(number) for number in range(3)])
    assert bank.verify() == []


def test_stats_by_hand(bank: MemoryBank):
    bank.add([candidate(number) for number in range(6)])  # 0, 2, 4 real; 1, 3, 5 synthetic
    bank.record([refused(7), Decision(candidate=candidate(9), admitted=True, reason="good")])
    stats = bank.stats()
    assert stats == {
        "version": 2,
        "oldest": 0,
        "size": 7,
        "real": 3,
        "synthetic": 4,
        "admitted": 4,
        "refused": 1,
        "by_emotion": dict(zip(MIKELS8, (1, 2, 1, 1, 1, 1, 0, 0), strict=True)),
        "by_emotion_synthetic": dict(zip(MIKELS8, (0, 2, 0, 1, 0, 1, 0, 0), strict=True)),
        "dim": DIM,
        "model_hash": MODEL,
        "index": "flat",
    }
    (refusal,) = bank.refusals()
    assert (refusal.reason, refusal.version, refusal.emotion) == ("too dull", 2, MIKELS8[7])


def test_an_empty_batch_makes_no_version(bank: MemoryBank):
    assert bank.add([]).version == 0
    assert bank.remove([]) == 0


def test_a_reader_stays_at_its_version_until_it_reloads(bank: MemoryBank):
    bank.add([candidate(0)])
    with MemoryBank.open(bank.path) as reader:
        bank.add([candidate(1)])
        bank.add([candidate(2), candidate(3)])
        bank.remove([1])
        assert [entry.id for entry in reader.entries()] == [1]
        assert [hit.entry.id for hit in reader.search(vector(0), 5)[0]] == [1]
        assert reader.stats()["size"] == reader.version == 1
        assert reader.reload(2) == 2
        assert {hit.entry.id for hit in reader.search(vector(0), 5)[0]} == {1, 2}
        assert reader.reload() == 4
        assert {hit.entry.id for hit in reader.search(vector(0), 5)[0]} == {2, 3, 4}
        assert reader.reload(3) == 3
        assert {hit.entry.id for hit in reader.search(vector(0), 5)[0]} == {1, 2, 3, 4}
        assert reader.verify() == []


def test_rollback_restores_exactly(bank: MemoryBank):
    def everything() -> tuple[list[Entry], list[str], dict, list]:
        hits = bank.search(vector(50), 100)[0]
        return bank.entries(), [one.reason for one in bank.refusals()], bank.stats(), hits

    seen = [everything()]
    bank.record([*(Decision(candidate=candidate(n), admitted=True, reason="") for n in range(5))])
    seen.append(everything())
    bank.record([refused(20), Decision(candidate=candidate(6), admitted=True, reason="")])
    seen.append(everything())
    bank.remove([2, 6])
    seen.append(everything())
    bank.add([candidate(1), candidate(8)])  # 1 was removed, so it is no duplicate

    for version in (4, 3, 2, 1, 0):
        if version < 4:
            assert bank.rollback(version) == version
            assert everything() == seen[version]
        assert bank.verify() == []


def test_what_a_rollback_brought_back_stays(bank: MemoryBank):
    bank.add([candidate(0), candidate(1)])
    bank.remove([1])
    bank.rollback(1)
    bank.add([candidate(2)])  # version 2 again: entry 1 was removed in the forgotten one
    assert [entry.id for entry in bank.entries()] == [1, 2, 3]
    assert bank.verify() == []


def test_a_new_history_after_a_rollback_is_not_mistaken_for_the_old(bank: MemoryBank):
    bank.add([candidate(0)])
    bank.add([candidate(1)])
    bank.close()
    with MemoryBank.open(bank.path, "a") as writer, MemoryBank.open(bank.path) as reader:
        writer.rollback(1)
        with pytest.raises(Exception, match=r"was changed by its writer; reload it"):
            reader.entries()
        writer.add([candidate(5)])  # version 2 and id 2 again, another image
        assert reader.reload() == 2
        assert reader.search(vector(5), 1)[0][0].cosine == pytest.approx(1.0, abs=1e-6)
        assert reader.entries() == writer.entries()
        assert reader.verify() == []


def test_the_same_history_gives_the_same_ids_after_a_rollback(bank: MemoryBank):
    bank.add([candidate(0)])
    bank.add([candidate(1), candidate(2)])
    before = bank.entries()
    bank.rollback(1)
    bank.add([candidate(1), candidate(2)])
    assert bank.entries() == before


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped", "older", "other dim"])
def test_the_index_is_rebuilt(bank: MemoryBank, damage: str, tmp_path: Path):
    path = bank.path / "index.faiss"
    bank.add([candidate(number) for number in range(6)])
    bank.close()
    old = path.read_bytes()
    with MemoryBank.open(bank.path, "a") as writer:
        writer.add([candidate(7)])
        writer.remove([3])
    data = path.read_bytes()
    assert data != old
    if damage == "missing":
        path.unlink()
    elif damage == "other dim":
        with MemoryBank.create(tmp_path / "other", DIM + 1, MODEL) as other:
            other.add([candidate(1, embedding=vector(1, DIM + 1))])
        path.write_bytes((tmp_path / "other" / "index.faiss").read_bytes())
    else:
        half = len(data) // 2
        flipped = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        path.write_bytes({"empty": b"", "cut": data[:-9], "flipped": flipped, "older": old}[damage])
    with MemoryBank.open(bank.path) as reader:
        assert reader.verify() == []
        assert [hit.entry.id for hit in reader.search(vector(7), 1)[0]] == [7]
        assert len(reader) == 6
    with MemoryBank.open(bank.path, "a") as writer:
        assert writer.verify() == []
    assert path.read_bytes() == data


@pytest.mark.parametrize("count", [2, 4, 6])
def test_the_index_of_another_bank_is_not_believed(bank: MemoryBank, count: int, tmp_path: Path):
    """It has the same dimension, generation and version, and a sound checksum."""
    bank.add([candidate(number) for number in range(4)])
    bank.close()
    with MemoryBank.create(tmp_path / "other", DIM, MODEL) as other:
        other.add([candidate(number) for number in range(100, 100 + count)])
    path = bank.path / "index.faiss"
    path.write_bytes((tmp_path / "other" / "index.faiss").read_bytes())
    for mode in ("r", "a", "r"):
        with MemoryBank.open(bank.path, mode) as again:
            for number in range(4):
                (hit,) = again.search(vector(number), 1)[0]
                assert hit.entry.id == number + 1
                assert hit.cosine == pytest.approx(1, abs=1e-6)
            assert again.verify() == []


def test_the_index_of_a_copy_that_went_another_way_is_not_believed(bank: MemoryBank, tmp_path):
    """Both remove one entry as version 2; one of them sees the other's index."""
    bank.add([candidate(number) for number in range(4)])
    bank.close()
    shutil.copytree(bank.path, tmp_path / "copy")
    for path, gone in ((bank.path, [2]), (tmp_path / "copy", [3, 4])):
        with MemoryBank.open(path, "a") as writer:
            writer.remove(gone)
    shutil.copy(tmp_path / "copy" / "index.faiss", bank.path / "index.faiss")
    with MemoryBank.open(bank.path) as again:
        assert again.search(vector(3), 4)[0][0].entry.id == 4
        assert again.verify() == []


def test_files_of_no_entry_are_swept_by_the_next_writer(bank: MemoryBank):
    bank.add([candidate(0)])
    bank.add([candidate(1)])
    kept, dropped = (bank.image_path(entry) for entry in bank.entries())
    unfinished = kept.with_name(f".{'a' * 64}.png.tmp")
    unfinished.write_bytes(b"half")
    own = kept.with_name("notes.txt")
    own.write_text("somebody's")
    bank.rollback(1)
    bank.close()
    MemoryBank.open(bank.path, "a").close()
    assert kept.exists()
    assert own.exists()
    assert not dropped.exists()
    assert not unfinished.exists()


def test_verify_names_what_is_wrong(bank: MemoryBank):
    bank.add([candidate(number) for number in range(4)])
    paths = [bank.image_path(entry) for entry in bank.entries()]
    paths[0].unlink()
    paths[1].write_bytes(picture(9))
    bank._store._db.execute("UPDATE entries SET embedding = x'00' WHERE id = 3")
    lines = bank.verify()
    assert [line.split(":")[0] for line in lines] == ["entry 1", "entry 2", "entry 3"]
    assert "No such file" in lines[0]
    assert "does not match its hash" in lines[1]
    assert "embedding of 1 bytes" in lines[2]


def test_verify_compares_the_index_with_the_store(bank: MemoryBank):
    bank.add([candidate(0), candidate(1)])
    blob = vector(5).tobytes()
    bank._store._db.execute("UPDATE entries SET embedding = ? WHERE id = 2", (blob,))
    assert bank.verify() == ["index: vector of entry 2 differs"]


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
