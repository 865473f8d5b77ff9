"""Versions with names, what differs between them, forgetting, another embedder, an old format."""

from __future__ import annotations

import resource
import signal
import sqlite3
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from emosym.errors import UserError
from memory_bank import Decision, MemoryBank
from memory_bank.store.filter import Filter
from tests.memory_bank.make import DIM, MODEL, candidate, picture, vector


@pytest.fixture
def bank(tmp_path: Path):
    """Version 1 holds entries 1 to 3, version 2 also 4; 5 in version 3, where 1 left."""
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add([candidate(0), candidate(1, step=10), candidate(2, step=10)])
        decisions = [Decision(candidate=candidate(3, step=20), admitted=True, reason="good")]
        bank.record([*decisions, Decision(candidate=candidate(9), admitted=False, reason="dull")])
        decisions = [Decision(candidate=candidate(4, step=30), admitted=True, reason="better")]
        bank.record(decisions, evict=[1])
        yield bank
    with MemoryBank.open(tmp_path / "bank", "a") as again:
        assert again.verify() == []


def ids(entries) -> list[int]:
    return [entry.id for entry in entries]


def files(bank: MemoryBank) -> list[str]:
    return sorted(path.stem for path in (bank.path / "images").rglob("*.png"))


def test_diffs_by_hand(bank: MemoryBank):
    bank.tag("start", 1)
    for old, new, came, left in (
        (1, 3, [4, 5], [1]),
        ("start", 2, [4], []),
        (3, "start", [1], [4, 5]),
        (0, 3, [2, 3, 4, 5], []),
        (2, 2, [], []),
    ):
        found = bank.diff(old, new)
        assert (ids(found.came), ids(found.left)) == (came, left)
    with MemoryBank.open(bank.path) as reader:
        reader.reload("start")
        assert ids(reader.diff("2", "3").came) == [5]


def test_the_log_keeps_what_was_rolled_back(bank: MemoryBank):
    bank.rollback(1)
    bank.remove([2])
    told = [(e.what, e.version, e.added, e.removed, e.refused) for e in bank.events()]
    assert told == [
        ("init", 0, 0, 0, 0),
        ("add", 1, 3, 0, 0),
        ("admit", 2, 1, 0, 1),
        ("admit", 3, 1, 1, 0),
        ("rollback", 1, 1, 2, 0),
        ("remove", 2, 0, 1, 0),
    ]
    times = [event.time for event in bank.events()]
    assert times == sorted(times)
    assert all(time.endswith("+00:00") for time in times)


def test_tags(bank: MemoryBank):
    assert bank.tag("now") == 3
    assert bank.tag("v1.0_a-b", 1) == 1
    assert bank.tag("again", "now") == 3
    assert bank.tags() == {"v1.0_a-b": 1, "again": 3, "now": 3}
    assert bank.version == 3
    for name in ("", "7", "-x", ".x", "a b", "a/b", "x" * 65, "é", "a\n", "'; DROP TABLE tags; --"):
        with pytest.raises(UserError, match=r"the name of a tag; got .*; expected up to 64"):
            bank.tag(name)
    with pytest.raises(UserError, match="the tag now is in use; got version 3; delete it first"):
        bank.tag("now", 1)
    with pytest.raises(UserError, match="no such version of the memory bank; got 9"):
        bank.tag("later", 9)
    with pytest.raises(UserError, match=r"unknown tag 'noww'.*did you mean 'now'\?"):
        bank.rollback("noww")
    assert bank.rollback("v1.0_a-b") == 1
    assert bank.tags() == {"v1.0_a-b": 1}
    bank.untag("v1.0_a-b")
    with pytest.raises(UserError, match="unknown tag 'now'; expected the number of a version"):
        bank.untag("now")
    with MemoryBank.open(bank.path) as reader, pytest.raises(UserError, match="open for reading"):
        reader.tag("x")


@pytest.mark.parametrize(("step", "version"), [(0, 0), (10, 0), (11, 1), (20, 1), (30, 2), (31, 3)])
def test_before_a_step(bank: MemoryBank, step: int, version: int):
    assert bank.version_before(step) == version
    bank.rollback(bank.version_before(step))
    assert all(entry.step is None or entry.step < step for entry in bank.entries())


def test_compaction_keeps_what_tags_need(bank: MemoryBank):
    bank.remove([2])  # version 4
    bank.tag("second", 2)
    before = [entry.sha256 for entry in MemoryBank.open(bank.path).entries()]
    forgotten = bank.compact()
    assert (forgotten.oldest, forgotten.entries, forgotten.refusals) == (2, 0, 0)
    assert len(files(bank)) == 5
    bank.untag("second")
    bank.tag("third", 3)
    forgotten = bank.compact(4, refusals=True)
    assert (forgotten.oldest, forgotten.entries, forgotten.refusals) == (4, 2, 1)
    assert forgotten.tags == ["third"]
    assert (bank.tags(), bank.refusals()) == ({}, [])
    assert files(bank) == sorted(before)
    assert [entry.sha256 for entry in bank.entries()] == before
    told = "a version that the memory bank has forgotten; got 3; expected 4 to 4"
    for act in (bank.rollback, bank.compact, lambda v: bank.tag("x", v), lambda v: bank.diff(v, 4)):
        with pytest.raises(UserError, match=told):
            act(3)
    with pytest.raises(UserError, match=told):
        bank.rollback(bank.version_before(31) if bank.version_before(31) < 4 else 3)


def test_ids_of_the_forgotten_are_not_given_again(bank: MemoryBank):
    """Entry 6 is the last, leaves and is forgotten; a rollback gives 7 again, but never 6."""
    bank.add([candidate(6)])
    bank.remove([6])
    bank.compact()
    for _ in range(2):
        bank.add([candidate(7), candidate(8)])
        assert ids(bank.entries()) == [2, 3, 4, 5, 7, 8]
        bank.rollback(5)
    bank.close()
    with MemoryBank.open(bank.path, "a") as again:
        again.add([candidate(6)])
        assert ids(again.entries()) == [2, 3, 4, 5, 7]


def test_what_is_forgotten_leaves_no_trace_in_the_folder(tmp_path: Path):
    secret = "a prompt that nobody else would write"
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add([candidate(number) for number in range(4)])
        bank.add([candidate(5, prompt=secret, model_hash="hushed")])
        bank.record([Decision(candidate=candidate(6, prompt=secret), admitted=False, reason="x")])
        gone = vector(5).tobytes()
        unit = (vector(5).astype(np.float64) / np.linalg.norm(vector(5).astype(np.float64))).astype(
            np.float32
        )
        bank.remove([5])

        def traces() -> int:
            data = [path.read_bytes() for path in bank.path.rglob("*") if path.is_file()]
            wanted = (secret.encode(), b"hushed", gone, unit.tobytes(), picture(5), b"nobodi")
            return sum(text in one for one in data for text in wanted)

        assert traces() > 0
        bank.compact(refusals=True)
        assert traces() == 0
        assert bank.verify() == []


def test_a_reader_at_a_forgotten_version_is_told(bank: MemoryBank):
    with MemoryBank.open(bank.path) as reader:
        reader.reload(1)
        bank.compact()
        with pytest.raises(UserError, match="was changed by its writer; reload it"):
            reader.entries()
        with pytest.raises(UserError, match="has forgotten; got 1; expected 3 to 3"):
            reader.reload(1)
        assert reader.reload() == 3
        assert (ids(reader.entries()), reader.verify()) == ([2, 3, 4, 5], [])


def other(paths) -> np.ndarray:
    """Another embedder: from the first bytes of the image."""
    return np.stack([np.frombuffer(path.read_bytes()[-28:-16], np.uint8) + 1.0 for path in paths])


def test_another_embedder(bank: MemoryBank):
    bank.tag("old")
    before = bank.entries()
    done: list[tuple[int, int]] = []
    with MemoryBank.open(bank.path) as reader:
        assert bank.rebuild(other, 12, "embedder-2", lambda *show: done.append(show)) == 4
        with pytest.raises(UserError, match="was changed by its writer"):
            reader.entries()
        with pytest.raises(UserError, match="rebuilt for another model; got model embedder-2"):
            reader.reload()
    assert done == [(4, 4)]
    assert (bank.dim, bank.model_hash, bank.tags()) == (12, "embedder-2", {})
    assert bank.entries() == before
    expected = other([bank.image_path(entry) for entry in before])
    np.testing.assert_array_equal(bank.embeddings(ids(before)), expected.astype(np.float32))
    for row, entry in zip(expected, before, strict=True):
        assert bank.search(row, 1)[0][0].entry == entry
    assert len(files(bank)) == 4
    with pytest.raises(UserError, match="has forgotten; got 3; expected 4 to 4"):
        bank.rollback(3)
    with pytest.raises(UserError, match="made by another model; got model embedder-1"):
        MemoryBank.open(bank.path, model_hash=MODEL)
    assert bank.add([candidate(7, embedding=expected[0])]).admitted
    assert ids(bank.entries()) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("embed", "dim", "told"),
    [
        (other, 11, r"embedding of the wrong shape; got \[4, 12\]; expected dimension 11"),
        (lambda paths: other(paths) * np.nan, 12, "NaN or infinite"),
        (lambda paths: other(paths) * 0, 12, "zero vector"),
        (other, 0, "the dimension of a bank; got 0"),
    ],
)
def test_a_rebuild_that_fails_changes_nothing(bank: MemoryBank, embed, dim, told):
    bank.tag("old")
    before = (bank.entries(), bank.events(), bank.embeddings(ids(bank.entries())).tobytes())
    with pytest.raises(UserError, match=told):
        bank.rebuild(embed, dim, "embedder-2")
    assert before == (bank.entries(), bank.events(), bank.embeddings([2, 3, 4, 5]).tobytes())
    assert (bank.dim, bank.model_hash, bank.tags()) == (DIM, MODEL, {"old": 3})


def test_a_full_disk_while_rebuilding_or_compacting(bank: MemoryBank):
    """The journal may not grow: nothing changes, and later it works."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = (bank.entries(), bank.events())
    size = (bank.path / "bank.sqlite-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
    try:
        for act in (lambda: bank.rebuild(other, 12, "embedder-2"), lambda: bank.compact(3)):
            with pytest.raises(UserError, match=r"cannot write to .*; the bank is unchanged"):
                act()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert before == (bank.entries(), bank.events())
    bank.compact(3)


def test_filters_against_brute_force(tmp_path: Path):
    draw = np.random.default_rng(3)
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add(
            candidate(
                number,
                confidence=None if number % 5 == 0 else float(draw.integers(0, 5)) / 4,
                step=None if number % 7 == 0 else int(draw.integers(0, 9)),
                scores={
                    name: float(draw.integers(0, 5)) / 4 for name in ("a'b", 'c"d')[: number % 3]
                },
            )
            for number in range(60)
        )
        entries = bank.entries()
        bounds = st.dictionaries(
            st.sampled_from(["confidence", "a'b", 'c"d']), st.sampled_from([0.25, 0.5, 1.0])
        )
        steps = st.none() | st.integers(0, 9)

        @settings(
            max_examples=60,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            bounds,
            bounds,
            steps,
            steps,
            st.sampled_from([None, "real"]),
            st.sampled_from([None, "awe"]),
        )
        def check(low, high, first, last, source, emotion):
            def score(entry, name):
                return entry.confidence if name == "confidence" else entry.scores.get(name)

            def fits(entry) -> bool:
                return (
                    all(
                        score(entry, n) is not None and score(entry, n) >= v for n, v in low.items()
                    )
                    and all(
                        score(entry, n) is not None and score(entry, n) <= v
                        for n, v in high.items()
                    )
                    and (first is None or (entry.step is not None and entry.step >= first))
                    and (last is None or (entry.step is not None and entry.step <= last))
                    and source in (None, entry.source)
                    and emotion in (None, entry.label)
                )

            wanted = {
                "min_scores": low, "max_scores": high, "min_step": first, "max_step": last,
                "source": source, "emotion": emotion,
            }  # fmt: skip
            assert bank.entries(**wanted) == [entry for entry in entries if fits(entry)]
            hits = bank.search(vector(99), 100, **wanted)[0]
            assert sorted(hit.entry.id for hit in hits) == ids(filter(fits, entries))

        check()
        assert not Filter()
        assert Filter(min_step=0)


PROMPTS = {
    1: "a lonely street at night",
    2: "nights of lonely streets, lonely lamps and rain over the old harbour of a town",
    3: "a sunny meadow",
    4: None,
    5: 'STREET — lights; "quoted" AND (brackets) OR *stars* NEAR x:y',
}


def test_words_find_prompts(tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add(candidate(number, prompt=prompt) for number, prompt in PROMPTS.items())

        def found(words: str, k: int = 10, **wanted: object) -> list[int]:
            hits = bank.search_text(words, k, **wanted)
            assert [hit.match for hit in hits] == sorted((hit.match for hit in hits), reverse=True)
            return [hit.entry.id for hit in hits]

        assert set(found("lonely night street")) == {1, 2, 5}
        assert found("lonely night street")[0] == 1  # the same words, fewer others
        assert found("Meadows") == [3]
        assert found("absent") == []
        assert found("street", source="real") == [2]  # odd numbers are synthetic
        assert len(found("street", 1)) == 1
        for words in (
            '"',
            "sunny*",
            "prompt:sunny",
            "sunny NOT a",
            "NEAR(sunny, 2)",
            "^sunny",
            "{sunny}",
        ):
            assert words == '"' or found(words)[0] == 3
        for words in ("", " ", "*", '"', "();--"):
            with pytest.raises(UserError, match="a search without words; got"):
                bank.search_text(words)
        with pytest.raises(UserError, match="number of neighbours; got 0"):
            bank.search_text("x", 0)
        bank.remove([3])
        assert found("meadow") == []
        with MemoryBank.open(bank.path) as reader:
            reader.reload(1)
            assert [hit.entry.id for hit in reader.search_text("meadow")] == [3]
        bank.rollback(1)
        assert found("meadow") == [3]
        bank.remove([1])
        bank.compact()
        assert found("sunny night") in ([3, 2], [2, 3])
        assert bank.verify() == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("INSERT INTO tags VALUES ('x', 9)", "tag x: no version 9, there are 0 to 3"),
        (
            "UPDATE entries SET added = 8 WHERE id = 3",
            "entry 3: added at version 8, the newest is 3",
        ),
        ("DELETE FROM prompts_docsize WHERE id = 2", "entry 2: its prompt is not indexed"),
        ("INSERT INTO prompts_docsize VALUES (77, x'00')", "entry 77: its prompt is indexed"),
        (
            "UPDATE entries SET removed = 1 WHERE id = 2",
            "entry 2: removed at version 1, added at 2",
        ),
    ],
)
def test_verify_tells_of_history(tmp_path: Path, change: str, told: str):
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        for number in range(3):
            bank.add([candidate(number)])
        database = sqlite3.connect(bank.path / "bank.sqlite", isolation_level=None)
        database.execute(change)
        database.close()
        assert told in bank.verify()


def test_verify_tells_a_writer_of_files_of_no_entry(bank: MemoryBank):
    stray = bank.path / "images" / "ab" / f"ab{'0' * 62}.png"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(picture(50))
    assert bank.verify() == [f"no entry has the file {stray}"]
    shown: list[tuple[int, int]] = []
    with MemoryBank.open(bank.path) as reader:
        assert reader.verify(lambda *show: shown.append(show)) == []
    assert shown == [(number, 5) for number in range(1, 6)]
    stray.unlink()


OLD_PROVENANCE = """source TEXT NOT NULL, emotion TEXT, valence REAL, arousal REAL, predicted TEXT,
predicted_valence REAL, predicted_arousal REAL, confidence REAL, contrast REAL, prompt TEXT,
seed INTEGER, model_hash TEXT, step INTEGER, reason TEXT NOT NULL"""


@pytest.fixture
def old(bank: MemoryBank) -> Path:
    """The bank as format 1 had it."""
    for number in (2, 4):
        with bank._store.writing() as db:
            prompt = f"quiet lake {number}"
            db.execute("UPDATE entries SET prompt = ? WHERE id = ?", (prompt, number))
    bank.close()
    db = sqlite3.connect(bank.path / "bank.sqlite", isolation_level=None)
    for name in ("prompt_came", "prompt_left"):
        db.execute(f"DROP TRIGGER {name}")
    for name in ("prompts", "events", "tags"):
        db.execute(f"DROP TABLE {name}")
    db.execute("DROP INDEX entry_live")
    db.execute("CREATE INDEX entry_added ON entries (added)")
    for table in ("entries", "refusals"):
        for column in ("fingerprint", "scores"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    db.execute("DELETE FROM meta WHERE key IN ('oldest', 'last_id', 'index')")
    db.execute("UPDATE meta SET value = 1 WHERE key = 'format'")
    columns = [row[1] for row in db.execute("PRAGMA table_info(refusals)")]
    assert columns[1:-1] == [part.split()[0] for part in OLD_PROVENANCE.split(",")]
    db.close()
    return bank.path


def test_an_old_format_is_brought_up_to_date_by_a_writer(old: Path):
    told = "made by an older version; got format 1; expected format 2; upgrade it with"
    with pytest.raises(UserError, match=told):
        MemoryBank.open(old)
    with MemoryBank.open(old, "a", model_hash=MODEL) as bank:
        assert (bank.version, ids(bank.entries()), len(bank.refusals())) == (3, [2, 3, 4, 5], 1)
        assert [dict(entry.scores) for entry in bank.entries()] == [{}] * 4
        assert [(event.what, event.version) for event in bank.events()] == [("upgrade", 3)]
        assert [hit.entry.id for hit in bank.search_text("lake")] in ([2, 4], [4, 2])
        assert bank.verify() == []
        assert bank.rollback(1) == 1
        assert ids(bank.entries()) == [1, 2, 3]
        bank.add([candidate(7, scores={"a": 1.0}, fingerprint=5)])
        assert bank.entry(4).fingerprint == 5
    assert MemoryBank.open(old).version == 2


def test_an_upgrade_that_fails_changes_nothing(old: Path):
    data = (old / "bank.sqlite").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (33_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write to .*; the bank is unchanged"):
            MemoryBank.open(old, "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    with pytest.raises(UserError, match="got format 1"):
        MemoryBank.open(old)
    assert (old / "bank.sqlite").read_bytes() == data
