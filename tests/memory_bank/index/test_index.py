"""Every kind of index against brute force: recall, filters, removal, rollback, growth, damage."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from benchmarks.bank import K, draw, recall
from emosym.errors import UserError
from memory_bank import MemoryBank
from memory_bank.index import kinds
from memory_bank.index.index import Index
from memory_bank.index.kinds import HNSW, IVF, KINDS, Flat, IndexKind, kind_for
from memory_bank.store.database import State
from tests.memory_bank.make import DIM, MODEL, candidate, vector

APPROXIMATE = ("ivf", "hnsw")


def cosines(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The slow twin, float64 [Q, N]."""
    a, b = queries.astype(np.float64), vectors.astype(np.float64)
    return (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T


def best(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-cosines(queries, vectors), axis=1)[:, :k]


def test_kinds_share_a_base_and_inherit_nothing_from_each_other():
    assert [kind.__bases__ for kind in KINDS.values()] == [(IndexKind,)] * 3
    with pytest.raises(TypeError, match="abstract"):
        IndexKind(None)


def filled(kind: str, vectors: np.ndarray) -> IndexKind:
    """An index of a kind with ids 100, 101, ..."""
    rng = np.random.default_rng(3)
    made = KINDS[kind].empty(
        vectors.shape[1], len(vectors), lambda n: vectors[rng.permutation(len(vectors))[:n]]
    )
    made.add(vectors, np.arange(len(vectors)) + 100)
    return made


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """20,000 vectors of 64 dimensions in 100 overlapping clusters, and 256 queries."""
    return draw(20_000, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_recall(kind: str, drawn: tuple[np.ndarray, np.ndarray]):
    vectors, queries = drawn
    index = filled(kind, vectors)
    if kind == "ivf":
        assert index.faiss.nlist == 282  # 2 √20000: a query reads 64 of them
    found, ids = index.search(queries, K)
    truth = best(queries, vectors, K)
    score = recall(ids - 100, truth)
    assert score == 1.0 if kind == "flat" else score >= 0.99
    np.testing.assert_allclose(
        found, np.take_along_axis(cosines(queries, vectors), ids - 100, 1), atol=1e-5
    )
    np.testing.assert_array_equal(index.vectors(ids[0]), vectors[ids[0] - 100])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_removed_is_not_found_and_the_rest_is(kind: str, drawn):
    vectors, queries = drawn
    vectors = vectors[:5000]
    index = filled(kind, vectors)
    gone = np.unique(best(queries, vectors, 3)[:, 0])  # the nearest of every query
    index.remove(gone + 100)
    index.add(vectors[gone[:5]], np.arange(5) + 9000)
    left = np.setdiff1d(np.arange(5000), gone)
    assert len(index) == left.size + 5
    assert sorted(index.ids) == [*(left + 100), *range(9000, 9005)]
    held = np.concatenate([left + 100, np.arange(5) + 9000])
    truth = held[best(queries, np.concatenate([vectors[left], vectors[gone[:5]]]), K)]
    assert recall(index.search(queries, K)[1], truth) >= 0.99


def test_a_graph_is_worn_when_a_fifth_is_removed_and_lists_when_they_hold_four_times():
    vectors = draw(2000, 8)[0]
    graph = filled("hnsw", vectors[:1000])
    graph.remove(np.arange(100, 300))
    assert not graph.outgrown()
    graph.remove(np.array([300, 301]))
    assert (graph.outgrown(), len(graph)) == (True, 798)
    lists = filled("ivf", vectors[:400])
    assert lists.faiss.nlist == 10  # one of 40
    lists.add(vectors[400:839], np.arange(439) + 5000)
    assert not lists.outgrown()
    lists.add(vectors[839:840], np.array([9000]))
    assert lists.outgrown()  # 840 // 40 = 21 > 2 * 10
    assert not filled("flat", vectors).outgrown()


def test_the_kind_by_size_and_setting():
    assert kind_for("auto", kinds.FLAT_UP_TO) is Flat
    assert kind_for("auto", kinds.FLAT_UP_TO + 1) is IVF
    assert [kind_for("hnsw", size) for size in (0, 10**7)] == [HNSW, HNSW]
    assert [IVF.lists_for(size) for size in (0, 39, 80, 6400, 1_000_000)] == [
        1, 1, 2, 160, 2000,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_bank_of_each_kind(kind: str, tmp_path: Path):
    """Filters, removal, reopening, rollback and old versions answer as brute force does."""
    path = tmp_path / "bank"

    def same(bank: MemoryBank) -> None:
        for filters in ({}, {"emotion": "awe"}, {"emotion": "awe", "source": "real"}):
            entries = bank.entries(**filters)
            held = bank.embeddings([entry.id for entry in entries])
            queries = np.stack([vector(1000 + q) for q in range(4)])
            expected = [[entries[i].id for i in row] for row in best(queries, held, 7)]
            hits = bank.search(queries, 7, **filters)
            assert [[hit.entry.id for hit in row] for row in hits] == expected
        assert bank.verify() == []
        assert bank.stats()["index"] == kind

    with MemoryBank.create(path, DIM, MODEL, index=kind) as bank:
        for start in range(0, 120, 40):
            bank.add([candidate(number) for number in range(start, start + 40)])
            same(bank)
        bank.remove([2, 3, 50])
        same(bank)
    data = (path / "index.faiss").read_bytes()
    with MemoryBank.open(path, "a") as bank:
        same(bank)
    assert (path / "index.faiss").read_bytes() == data  # what was removed is on the disk too
    with MemoryBank.open(path) as reader:
        same(reader)
        assert reader.reload(2) == 2
        assert len(reader) == 80
        same(reader)
        assert reader.reload() == 4
        same(reader)
    with MemoryBank.open(path, "a") as bank:
        bank.rollback(3)
        assert len(bank) == 120
        same(bank)
        bank.add([candidate(number) for number in range(120, 130)])
        same(bank)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_filter_is_exact_however_rare_what_it_asks_for_is(kind: str, drawn):
    """What passes lies far from every query: lists and links near the query hold none of it."""
    vectors, queries = drawn
    index = Index(Path("nowhere"), 64)
    index._kind = filled(kind, vectors)
    far = np.argsort(cosines(queries, vectors).max(axis=0))
    for count in (3, 500, 12_000):
        among = np.sort(far[:count])
        found, ids = index.search(queries, K, among + 100)
        truth = among[best(queries, vectors[among], K)]
        assert ids.shape == (256, min(K, count))
        assert recall(ids - 100, truth) == 1.0
        assert (np.diff(found, axis=1) <= 0).all()
    assert index.search(queries, K, np.empty(0, np.int64))[0].shape == (256, 0)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_asking_for_all_finds_all(kind: str, drawn):
    """The lists or the walk of a query end before k: the rest is compared one by one."""
    vectors, queries = drawn
    index = Index(Path("nowhere"), 64)
    index._kind = filled(kind, vectors[:3000])
    _, ids = index.search(queries[:2], 3000)
    assert [sorted(row) for row in ids] == [list(range(100, 3100))] * 2


def test_the_setting_is_kept_and_changing_it_rebuilds(tmp_path: Path):
    path = tmp_path / "bank"
    with MemoryBank.create(path, DIM, MODEL) as bank:
        bank.add([candidate(number) for number in range(50)])
        assert bank.stats()["index"] == "flat"
        before = bank.search(vector(7), 5)
    for kind in ("hnsw", "ivf", "flat"):
        with MemoryBank.open(path, "a", index=kind) as bank:
            assert bank.stats()["index"] == kind
        with MemoryBank.open(path) as reader:
            assert reader.stats()["index"] == kind
            assert reader._index._saved == State(0, 1)  # read, not rebuilt
            ((hits,), (message,)) = reader.search(vector(7), 5), before
            assert [hit.entry for hit in hits] == [hit.entry for hit in message]
            # Another index sums in another order.
            assert [hit.cosine for hit in hits] == pytest.approx([hit.cosine for hit in message])
            assert reader.verify() == []
        with MemoryBank.open(path, index=kind) as reader:
            assert reader.version == 1  # asking for what is there is no change
    with pytest.raises(UserError, match="is open for reading; use mode='a'"):
        MemoryBank.open(path, index="hnsw")
    for make in (
        lambda: MemoryBank.open(path, "a", index="hsnw"),
        lambda: MemoryBank.create(tmp_path / "new", DIM, MODEL, index="hsnw"),
    ):
        with pytest.raises(UserError, match=r"unknown kind of index 'hsnw'.*'hnsw'"):
            make()
    assert not (tmp_path / "new").exists()
    MemoryBank.open(path, "a").close()  # the failed ones let go of the lock


def test_a_bank_grows_out_of_exact_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kinds, "FLAT_UP_TO", 90)
    path = tmp_path / "bank"
    with MemoryBank.create(path, DIM, MODEL) as bank:
        seen = []
        for start in range(0, 200, 50):
            bank.add([candidate(number) for number in range(start, start + 50)])
            seen.append(bank.stats()["index"])
            found = [hit.entry.id for hit in bank.search(vector(start), 1)[0]]
            assert found == [start + 1]
            assert bank.verify() == []
        assert seen == ["flat", "ivf", "ivf", "ivf"]
        bank.remove(list(range(1, 150)))  # smaller again: no reason to build anew
        assert bank.stats()["index"] == "ivf"
    with MemoryBank.open(path) as reader:
        assert (reader.stats()["index"], reader.verify()) == ("ivf", [])


def test_a_reader_takes_the_vectors_into_memory_when_they_change(tmp_path: Path):
    path = tmp_path / "bank"
    with MemoryBank.create(path, DIM, MODEL, index="flat") as bank:
        bank.add([candidate(number) for number in range(8)])
    file = path / "index.faiss"
    data = file.read_bytes()
    with MemoryBank.open(path) as reader, MemoryBank.open(path) as other:
        assert reader._index._kind.mapped
        hits = reader.search(vector(7), 3)
        with MemoryBank.open(path, "a") as bank:
            assert not bank._index._kind.mapped
            bank.remove([3])
            assert file.read_bytes() == data  # written at the end
            reader.reload()
            assert not reader._index._kind.mapped
            assert (len(reader), reader.verify()) == (7, [])
            bank.add([candidate(number) for number in range(8, 12)])
            reader.reload()
            assert (len(reader), reader.verify()) == (11, [])
        assert file.read_bytes() != data
        # The file was replaced; who has mapped the old one still reads it.
        assert other._index._kind.mapped
        assert (other.version, other.search(vector(7), 3), other.verify()) == (1, hits, [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["cut", "flipped", "flipped vector", "foreign"])
def test_a_damaged_index_is_never_used(kind: str, damage: str, tmp_path: Path, caplog):
    path = tmp_path / "bank"
    with MemoryBank.create(path, DIM, MODEL, index=kind) as bank:
        bank.add([candidate(number) for number in range(60)])
        bank.remove([4])
        hits = bank.search(vector(7), 5)
    file = path / "index.faiss"
    data = bytearray(file.read_bytes())
    if damage == "cut":
        del data[-40:]
    elif damage == "flipped":
        data[20] ^= 1
    elif damage == "flipped vector":
        data[len(data) // 2] ^= 1
    else:
        faiss.write_index(faiss.IndexFlatIP(DIM), str(file))
        data = bytearray(file.read_bytes())
    file.write_bytes(data)
    with MemoryBank.open(path) as reader:
        assert "rebuilding it from the store" in caplog.text
        assert reader.search(vector(7), 5) == hits
        assert reader.verify() == []


def test_verify_finds_a_vector_that_changed_in_memory(tmp_path: Path):
    for kind in KINDS:
        with MemoryBank.create(tmp_path / kind, DIM, MODEL, index=kind) as bank:
            bank.add([candidate(0), candidate(1)])
            blob = vector(5).tobytes()
            bank._store._db.execute("UPDATE entries SET embedding = ? WHERE id = 2", (blob,))
            assert bank.verify() == ["index: vector of entry 2 differs"]


@pytest.mark.parametrize("place", ["lists", "quantizer"])
def test_an_index_whose_vectors_are_in_another_file_is_not_used(place: str, tmp_path: Path):
    """FAISS writes to the file that such an index names, which may be anywhere."""
    index = filled("ivf", draw(2_000, DIM)[0]).faiss
    victim = tmp_path / "victim"
    if place == "lists":
        lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(victim))
        lists.merge_from_1(index.invlists)
        index.replace_invlists(lists, False)
    else:
        graph = faiss.IndexHNSWFlat(DIM, 8, faiss.METRIC_INNER_PRODUCT)
        graph.add(index.quantizer.reconstruct_n(0, index.nlist))
        index.own_fields = False
        index.quantizer = graph
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    with pytest.raises(ValueError, match="holds IndexIVFFlat"):
        kinds.read(tmp_path / "index.faiss", mapped=False)
