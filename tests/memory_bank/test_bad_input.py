"""Each mistake gets one clear line and leaves the bank as it was."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emosym.errors import UserError
from memory_bank import Decision, MemoryBank
from tests.emosym.pictures.test_loading import huge_png
from tests.memory_bank.make import DIM, MODEL, candidate, picture, vector

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bank(tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add([candidate(0), candidate(1)])
        yield bank


def files(bank: MemoryBank) -> list[Path]:
    return sorted(path for path in (bank.path / "images").rglob("*") if path.is_file())


def changed(index: int, value: float) -> np.ndarray:
    array = vector(5)
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding": vector(5, 9)}, r"embedding of the wrong shape; got \[9\]; .*dimension 16"),
        ({"embedding": np.ones((2, DIM))[:, :3]}, r"embedding of the wrong shape; got \[2, 3\]"),
        ({"embedding": changed(3, np.nan)}, "embedding with NaN or infinite values"),
        ({"embedding": np.full(DIM, 1e300)}, "embedding with NaN or infinite values"),
        ({"embedding": np.zeros(DIM)}, "embedding is a zero vector"),
        ({"image": Path("nowhere.png")}, r"cannot read image nowhere.png; got .*No such file"),
        ({"image": picture(5)[:-40]}, "cannot read an image given in memory; got image is damaged"),
        ({"image": picture(5, "JPEG")[:200]}, "cannot read an image"),
        ({"image": b""}, "cannot read an image given in memory; got no bytes"),
        ({"image": picture(5, "PPM")}, "cannot read .*not an image.*; expected a whole JPEG, PNG"),
        ({"confidence": float("nan")}, "confidence of an image to keep; got nan"),
    ],
)
def test_what_cannot_be_kept(bank: MemoryBank, changes: dict, message: str):
    before, on_disk = bank.entries(), files(bank)
    with pytest.raises(UserError, match=message):
        bank.add([candidate(4), candidate(5, **changes)])
    assert (bank.entries(), bank.version, files(bank)) == (before, 1, on_disk)
    assert bank.verify() == []


def test_an_embedding_of_two_rows_is_not_one_vector(bank: MemoryBank):
    with pytest.raises(UserError, match=r"embedding of the wrong shape; got \[2, 16\]"):
        bank.add([candidate(4, embedding=np.ones((2, DIM)))])
    assert bank.version == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emotion": "joyy"}, "unknown emotion 'joyy'"),
        ({"source": "stolen"}, "unknown source 'stolen'"),
        ({"valence": 1.0}, "valence and arousal belong together"),
        ({"valence": 4.0, "arousal": 0.0}, r"valence is outside its scale; got 4.0"),
        ({"seed": 2**63}, "seed is out of range"),
        ({"seed": -1}, "seed is out of range"),
    ],
)
def test_a_candidate_that_makes_no_sense(changes: dict, message: str):
    with pytest.raises(UserError, match=message):
        candidate(1, **changes)


def test_an_image_too_large_to_decode(bank: MemoryBank, tmp_path: Path):
    bomb = huge_png(tmp_path / "bomb.png")
    with pytest.raises(UserError, match=r"cannot read image .*more than 64,000,000 pixels"):
        bank.add([candidate(5, image=bomb)])
    assert bank.version == 1


def test_queries(bank: MemoryBank):
    for query, message in (
        (vector(1, 3), r"wrong shape; got \[3\]"),
        (np.zeros(DIM), "zero vector"),
        (changed(0, np.inf), "infinite"),
    ):
        with pytest.raises(UserError, match=message):
            bank.search(query)
    with pytest.raises(UserError, match="number of neighbours; got 0"):
        bank.search(vector(1), 0)
    with pytest.raises(UserError, match=r"unknown emotion .*DROP"):
        bank.search(vector(1), emotion="awe'; DROP TABLE entries; --")
    with pytest.raises(UserError, match=r"unknown source 'reel'.*did you mean 'real'\?"):
        bank.entries(source="reel")
    with pytest.raises(UserError, match="no such entry in the memory bank; got id 77"):
        bank.embeddings([1, 77])


def test_versions_and_ids_that_do_not_exist(bank: MemoryBank):
    for version in (-1, 2):
        with pytest.raises(UserError, match=f"no such version.*; got {version}; expected 0 to 1"):
            bank.rollback(version)
        with pytest.raises(UserError, match=f"no such version.*; got {version}; expected 0 to 1"):
            bank.reload(version)
    with pytest.raises(UserError, match="a writer works on the newest version; got 0; roll back"):
        bank.reload(0)
    with pytest.raises(UserError, match="no such entry in the memory bank; got id 9"):
        bank.remove([1, 9])
    for number in (2**63, -(2**63) - 1, 10**30):
        with pytest.raises(UserError, match=f"no such entry .*; got id {number}"):
            bank.entry(number)
        with pytest.raises(UserError, match=f"training step is out.*; got {number}"):
            bank.version_before(number)
        for name in ("min_step", "max_step"):
            with pytest.raises(UserError, match=f"{name} is out of range; got {number}"):
                bank.entries(**{name: number})
        with pytest.raises(UserError, match=f"step is out of range; got {number}"):
            candidate(3, step=number)
        with pytest.raises(UserError, match=f"fingerprint is out of range; got {number}"):
            candidate(3, fingerprint=number)
    bank.tag("first")
    for name in ("1", "0", "second"):
        with pytest.raises(UserError, match=f"unknown tag '{name}'; expected one of first"):
            bank.untag(name)
    assert bank.tags() == {"first": 1}
    assert (len(bank), bank.version) == (2, 1)


def test_a_reader_cannot_write(bank: MemoryBank):
    with MemoryBank.open(bank.path) as reader:
        for write in (
            lambda: reader.add([candidate(5)]),
            lambda: reader.remove([1]),
            lambda: reader.rollback(0),
        ):
            with pytest.raises(UserError, match="is open for reading; use mode='a'"):
                write()
    assert (len(bank), bank.version) == (2, 1)


def test_folders_that_are_no_bank(bank: MemoryBank, tmp_path: Path):
    with pytest.raises(UserError, match=r"not a memory bank: .*nowhere; got no bank.sqlite in it"):
        MemoryBank.open(tmp_path / "nowhere")
    other = tmp_path / "other"
    other.mkdir()
    (other / "bank.sqlite").write_bytes(b"something else entirely" * 100)
    for mode in ("r", "a"):
        with pytest.raises(UserError, match=r"is damaged; got file is not a database; restore"):
            MemoryBank.open(other, mode)
    (other / "bank.sqlite").unlink()
    sqlite3.connect(other / "bank.sqlite").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(UserError, match=r"is damaged; got no such table: meta; restore"):
        MemoryBank.open(other)
    with pytest.raises(UserError, match="unknown mode 'w'"):
        MemoryBank.open(bank.path, "w")


def test_create_never_overwrites(bank: MemoryBank, tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot create a memory bank at .*got a bank"):
        MemoryBank.create(bank.path, DIM, MODEL)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="got something else there already; expected a missing"):
        MemoryBank.create(tmp_path / "full", DIM, MODEL)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot create a memory bank"):
        MemoryBank.create(tmp_path / "file" / "bank", DIM, MODEL)
    with pytest.raises(UserError, match="dimension of a bank; got 0"):
        MemoryBank.create(tmp_path / "new", 0, MODEL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank", "file", "full"]
    (tmp_path / "empty").mkdir()
    MemoryBank.create(tmp_path / "empty", DIM, MODEL).close()
    assert MemoryBank.open(tmp_path / "empty").version == 0


def test_a_bank_of_another_model(bank: MemoryBank):
    message = "made by another model; got model embedder-2; expected model embedder-1"
    with pytest.raises(UserError, match=message):
        MemoryBank.open(bank.path, model_hash="embedder-2")
    assert MemoryBank.open(bank.path, model_hash=MODEL).dim == DIM
    bank.close()
    with pytest.raises(UserError, match=message):
        MemoryBank.open(bank.path, "a", model_hash="embedder-2")
    MemoryBank.open(bank.path, "a").close()  # the failed one let go of the lock


def test_a_newer_format(bank: MemoryBank):
    bank.close()
    database = sqlite3.connect(bank.path / "bank.sqlite", isolation_level=None)
    database.execute("UPDATE meta SET value = 3 WHERE key = 'format'")
    database.close()
    for mode in ("r", "a", "a"):
        with pytest.raises(UserError, match="by a newer version; got format 3; expected format 2"):
            MemoryBank.open(bank.path, mode)


def test_a_damaged_database(bank: MemoryBank):
    bank.add([candidate(number) for number in range(2, 60)])
    bank.close()
    path = bank.path / "bank.sqlite"
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)
    for mode in ("r", "a", "a"):
        with pytest.raises(UserError, match=r"database of the memory bank .* is damaged; got"):
            MemoryBank.open(bank.path, mode)


def edit(bank: MemoryBank, change: str) -> None:
    """Change the database behind the bank's back."""
    database = sqlite3.connect(bank.path / "bank.sqlite", isolation_level=None)
    database.execute(change)
    database.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE meta SET value = 'x' WHERE key = 'format'", "its format is 'x'"),
        ("UPDATE meta SET value = NULL WHERE key = 'dim'", "its dim is None"),
        ("UPDATE meta SET value = 'x' WHERE key = 'version'", "its version is 'x'"),
        ("UPDATE meta SET value = -1 WHERE key = 'generation'", "its generation is -1"),
        ("DELETE FROM meta WHERE key = 'dim'", "its dim is None"),
        ("UPDATE entries SET valence = 'high'", "valence of an image is 'high'"),
        ("UPDATE entries SET predicted_arousal = x'00'", r"predicted_arousal of an image is b'"),
        ("UPDATE entries SET seed = 1.5", "seed of an image is 1.5"),
        ("UPDATE entries SET embedding = 'x'", "a bytes-like object"),
        ("UPDATE entries SET embedding = x'00'", "buffer size must be"),
        ("UPDATE refusals SET step = 'x'", "step of an image is 'x'"),
        ("DELETE FROM meta WHERE key = 'last_id'", "its last_id is None"),
        ("UPDATE meta SET value = 9223372036854775807 WHERE key = 'version'", "its version is 9"),
        ("UPDATE entries SET scores = '{\"a\": NaN}'", "a score of an image is NaN"),
        ("INSERT INTO tags VALUES ('clean', 'x')", "the version of tag clean is 'x'"),
    ],
)
def test_a_database_that_somebody_edited(bank: MemoryBank, change: str, message: str):
    bank.record([Decision(candidate=candidate(2), admitted=False, reason="dull")])
    bank.close()
    (bank.path / "index.faiss").unlink()
    edit(bank, change)

    def use(mode: str) -> None:
        with MemoryBank.open(bank.path, mode) as again:
            again.entries()
            again.refusals()
            again.tags()

    for mode in ("r", "a"):
        with pytest.raises(UserError, match=rf"bank .* is damaged; got .*{message}.*; restore the"):
            use(mode)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("confidence = 'x'", "entry 1: confidence of an image is 'x'"),
        ("contrast = 9e999", "entry 1: contrast of an image is inf"),
        ("scores = '{\"a\": NaN}'", "entry 1: a score of an image is NaN"),
        ('scores = \'{"a": "b"}\'', "entry 1: the score a of an image is 'b'"),
        ("scores = '[]'", "entry 1: scores of an image is '[]'"),
        ("scores = x'00'", "entry 1: scores of an image is b'"),
        ("scores = '{\"a\": 1e999}'", "entry 1: the score a of an image is inf"),
        ("emotion = 'joy'", "entry 1: emotion of an image is 'joy'"),
        ("valence = 9, arousal = 0", "entry 1: valence is outside its scale; got 9"),
    ],
)
def test_verify_reads_what_is_known_of_an_image(bank: MemoryBank, change: str, message: str):
    edit(bank, f"UPDATE entries SET {change} WHERE id = 1")
    (problem,) = bank.verify()
    assert problem.startswith(message)


def test_an_unknown_kind_of_index_in_the_database(bank: MemoryBank):
    bank.close()
    edit(bank, "INSERT OR REPLACE INTO meta VALUES ('index', 'tree')")
    with pytest.raises(UserError, match="unknown kind of index 'tree'; expected one of auto"):
        MemoryBank.open(bank.path)
    with MemoryBank.open(bank.path, "a", index="flat") as again:
        assert again.verify() == []


def test_a_link_that_goes_in_a_circle(tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises(UserError, match="not a memory bank"):
        MemoryBank.open(link)
    with pytest.raises(UserError, match="cannot create a memory bank"):
        MemoryBank.create(link, DIM, MODEL)


@pytest.mark.parametrize("wait", [-1, np.nan])
def test_a_wait_that_is_no_time(bank: MemoryBank, wait: float):
    with pytest.raises(UserError, match=f"wait for another writer; got {wait}; expected seconds"):
        MemoryBank.open(bank.path, "a", wait=wait)


@pytest.mark.parametrize("change", ["UPDATE entries SET embedding = 'x'", "DROP TABLE entries"])
def test_a_database_edited_while_it_is_open(bank: MemoryBank, change: str):
    edit(bank, change)
    with pytest.raises(UserError, match="is damaged; got"):
        bank.embeddings([1])
    bank.close()


def test_a_lost_folder_of_images(bank: MemoryBank):
    bank.close()
    shutil.rmtree(bank.path / "images")
    with MemoryBank.open(bank.path, "a") as again:
        problems = again.verify()
        assert [problem.split(" /")[0] for problem in problems] == [
            f"entry {one.id}: cannot read image" for one in again.entries()
        ]
        refused = again.add([candidate(0), candidate(1)]).refused
        assert all(one.reason.endswith("whose lost file is restored") for one in refused)
        assert again.verify() == []


def test_a_strange_name_among_the_images_is_left_alone(bank: MemoryBank):
    bank.close()
    strays = [bank.path / "images" / name for name in (".DS_Store", "xy", "notes/mine.tmp")]
    for stray in strays:
        stray.parent.mkdir(exist_ok=True)
        stray.write_text("mine")
    folder = bank.path / "images" / "ab" / f"{'ab' * 32}.png"  # the name of an image of no entry
    folder.mkdir(parents=True)
    with MemoryBank.open(bank.path, "a") as again:
        assert again.add([candidate(3)]).version == 2
    assert all(stray.read_text() == "mine" for stray in strays)
    assert folder.is_dir()


def test_a_full_disk_in_the_database(bank: MemoryBank):
    on_disk = files(bank)
    database = bank._store._db
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UserError, match=r"cannot write to .*full.*the bank is unchanged"):
        bank.add([candidate(number) for number in range(10, 60)])
    assert (len(bank), bank.version, bank.verify()) == (2, 1, [])
    database.execute("PRAGMA max_page_count = 100000")
    assert bank.add([candidate(10)]).version == 2
    bank.close()
    MemoryBank.open(bank.path, "a").close()
    assert len(files(bank)) == len(on_disk) + 1


def test_a_full_disk_in_the_images(bank: MemoryBank):
    on_disk = files(bank)
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write to .*File too large.*is unchanged"):
            bank.add([candidate(5), candidate(4, image=Image.fromarray(pixels))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert files(bank) == on_disk
    assert (len(bank), bank.version, bank.verify()) == (2, 1, [])


READ_ONLY = """
import os, sys
from pathlib import Path
from emosym.errors import UserError
from memory_bank import MemoryBank
path = Path(sys.argv[1])
MemoryBank.open(path.parent / "warm-up").verify()  # nobody may not import from root's Python
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
with MemoryBank.open(path) as bank:
    print(len(bank), bank.verify())
for attempt in (lambda: MemoryBank.open(path, "a"), lambda: MemoryBank.create(path / "x", 2, "m")):
    try:
        attempt()
    except UserError as error:
        print(error)
"""


def test_a_folder_that_may_not_be_written():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / "bank"
        with MemoryBank.create(path, DIM, MODEL) as bank:
            bank.add([candidate(0), candidate(1)])
        shutil.copytree(path, path.parent / "warm-up")
        inside = sorted(item for item in path.rglob("*") if item.is_dir())
        for item in (Path(folder), path, *inside):
            item.chmod(0o555)
        try:
            done = subprocess.run(
                [sys.executable, "-c", READ_ONLY, str(path)],
                cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            for item in (Path(folder), path, *inside):
                item.chmod(0o755)
    lines = done.stdout.splitlines()
    assert lines[:1] == ["2 []"], done.stderr
    assert lines[1].startswith(f"cannot write to the memory bank {path}; got ")
    assert lines[1].endswith("open it for reading, or make the folder writable")
    assert lines[2].startswith(f"cannot create a memory bank at {path}/x; got ")
