"""Out and in again: nothing changes on the way, and nothing broken gets in."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from emosym.errors import UserError
from memory_bank import Decision, MemoryBank
from memory_bank.exchange import embedder_of, export_bank, import_bank
from tests.memory_bank.make import DIM, MODEL, candidate, picture, vector

NAMES = ("out", "out.parquet", "out.tar")
OWN = {"id", "added"}
"""What is the bank's own and does not travel."""


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


def rich(number: int, **changes: object):
    """A candidate with every field set, with floats that have no short decimal form."""
    known: dict[str, object] = {
        "valence": -1 / 3,
        "arousal": 2.9999999999999996,
        "predicted": "fear",
        "predicted_valence": np.pi,
        "predicted_arousal": 5e-324,
        "confidence": 0.1 + 0.2,
        "contrast": 1 / 7,
        "fingerprint": -(2**63),
        "scores": {"pick \"score'; --": 1 / 3, "ä": -1e300},
        "prompt": "a «lonely» street\n\tat 夜; DROP TABLE entries --",
        "seed": 2**63 - 1,
        "model_hash": "generator",
        "step": number,
    }
    return candidate(number, **(known | changes))


@pytest.fixture
def bank(tmp_path: Path):
    """Six entries, of which one left, one is a JPEG and two say everything."""
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add([candidate(0), candidate(1), candidate(2, image=picture(2, "JPEG"))])
        decisions = [Decision(candidate=rich(n), admitted=True, reason=f"why {n}") for n in (3, 4)]
        bank.record([*decisions, Decision(candidate=candidate(9), admitted=False, reason="dull")])
        bank.remove([2])
        yield bank


def contents(bank: MemoryBank) -> list[tuple[dict, bytes, bytes]]:
    """All that travels of each entry: record, image, vector."""
    return [
        (
            {name: value for name, value in asdict(entry).items() if name not in OWN},
            bank.image_path(entry).read_bytes(),
            bank.embeddings([entry.id]).tobytes(),
        )
        for entry in bank.entries()
    ]


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_back_is_what_went_out(bank: MemoryBank, tmp_path: Path, name: str):
    out = tmp_path / "exports" / name
    assert export_bank(bank, out, quiet) == 4
    assert [path.name for path in out.parent.iterdir()] == [name]
    assert embedder_of(out) == (DIM, MODEL)
    with MemoryBank.create(tmp_path / "new", DIM, MODEL) as new:
        taken = import_bank(new, out, quiet)
        assert (taken.version, taken.admitted, taken.refused) == (1, 4, 0)
        assert contents(new) == contents(bank)
        assert (new.verify(), [event.what for event in new.events()]) == ([], ["init", "import"])
        again = import_bank(new, out, quiet)
        assert (again.version, again.admitted, again.refused) == (2, 0, 4)
        assert {one.reason for one in new.refusals()} == {"duplicate image"}


@pytest.mark.parametrize("name", NAMES)
def test_a_bank_takes_in_what_it_lacks_as_one_version(bank: MemoryBank, tmp_path: Path, name: str):
    """150 images are three batches."""
    with MemoryBank.create(tmp_path / "other", DIM, MODEL) as other:
        other.add([candidate(number) for number in range(150)])
        export_bank(other, tmp_path / name, quiet)
        expected = {entry.sha256 for entry in (*bank.entries(), *other.entries())}
    taken = import_bank(bank, tmp_path / name, quiet)
    # It holds pictures 0, 3 and 4; 2 it has as a JPEG, and 1 left.
    assert (taken.version, taken.admitted, taken.refused) == (4, 147, 3)
    assert {entry.sha256 for entry in bank.entries()} == expected
    assert {entry.added for entry in bank.entries()} == {1, 2, 4}
    assert bank.verify() == []
    bank.rollback(3)
    assert (len(bank), bank.verify()) == (4, [])


@pytest.mark.parametrize("name", NAMES)
def test_filters_and_equal_bytes(bank: MemoryBank, tmp_path: Path, name: str):
    for place in ("a", "b"):
        assert export_bank(bank, tmp_path / place / name, quiet, min_step=4) == 1
    with MemoryBank.create(tmp_path / "new", DIM, MODEL) as new:
        import_bank(new, tmp_path / "a" / name, quiet)
        assert [entry.step for entry in new.entries()] == [4]
    one, two = (
        [path.read_bytes() for path in sorted((tmp_path / place).rglob("*")) if path.is_file()]
        for place in "ab"
    )
    assert one == two
    with pytest.raises(UserError, match=r"nothing to export .*; got no entry"):
        export_bank(bank, tmp_path / "c", quiet, min_step=5)
    with pytest.raises(UserError, match=r"a.* exists; give another name"):
        export_bank(bank, tmp_path / "a" / name, quiet)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_image_does_not_go_out(bank: MemoryBank, tmp_path: Path, name: str):
    bank.image_path(bank.entry(4)).write_bytes(picture(99))
    with pytest.raises(UserError, match="the image of entry 4 does not match its hash"):
        export_bank(bank, tmp_path / "x" / name, quiet)
    bank.image_path(bank.entry(4)).unlink()
    with pytest.raises(
        UserError, match=r"the image of entry 4 cannot be read: .*; got No such file"
    ):
        export_bank(bank, tmp_path / "x" / name, quiet)
    assert list((tmp_path / "x").iterdir()) == []


def test_datasets_load_what_is_written(bank: MemoryBank, tmp_path: Path, monkeypatch):
    import datasets

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    bank.remove([3])  # one kind of image in a tar
    for name, builder in zip(NAMES, ("imagefolder", "parquet", "webdataset"), strict=True):
        out = tmp_path / name
        export_bank(bank, out, quiet)
        where = {"data_dir": str(out)} if out.is_dir() else {"data_files": str(out)}
        rows = list(
            datasets.load_dataset(
                builder, **where, split="train", cache_dir=str(tmp_path / "cache")
            )
        )
        records = [row["json"] if name == "out.tar" else row for row in rows]
        assert [record["reason"] for record in records] == ["added by hand", "why 3", "why 4"]
        assert [record["seed"] for record in records] == [None, 2**63 - 1, 2**63 - 1]
        for row, number in zip(rows, (0, 3, 4), strict=True):
            image = row["png"] if name == "out.tar" else row["image"]
            with Image.open(io.BytesIO(picture(number))) as given:
                np.testing.assert_array_equal(np.asarray(image), np.asarray(given))
            found = row["npy"] if name == "out.tar" else row["embedding"]
            np.testing.assert_array_equal(np.float32(found), vector(number))


@pytest.fixture
def target(tmp_path: Path):
    """A bank that takes in; each test ends with it as it was."""
    with MemoryBank.create(tmp_path / "target", DIM, MODEL) as target:
        target.add([candidate(20)])
        yield target
        assert (target.version, len(target), target.verify()) == (1, 1, [])


def lines_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": "../bank/bank.sqlite"}, "a path that leaves the export; got ../bank/bank"),
        ({"file_name": "/etc/passwd"}, "a path that leaves the export; got /etc/passwd"),
        ({"file_name": "link.png"}, "link.png is a symbolic link"),
        ({"file_name": "linked/x.png"}, "linked is a symbolic link"),
        ({"file_name": "gone.png"}, "no such image: gone.png"),
        ({"file_name": 7}, "a line that is no record"),
        (
            {"embedding": [1.0] * (DIM + 1)},
            r"wrong shape; got \[17\]; expected one vector of dimension 16",
        ),
        ({"embedding": [0.0] * DIM}, "embedding is a zero vector"),
        ({"embedding": [[1.0] * DIM]}, "embedding of the wrong shape"),
        ({"embedding": ["x"] * DIM}, "no numbers in embedding"),
        ({"embedding": [1e39] * DIM}, "NaN or infinite"),
        ({"embedder": "embedder-2"}, "made by another model; got model embedder-2; expected"),
        ({"sha256": "0" * 64}, "the image does not match its hash"),
        ({"emotion": "joyy"}, "unknown emotion 'joyy'"),
        ({"valence": 9}, "valence is outside its scale"),
        ({"seed": "x"}, "an invalid field; got seed of an image is 'x'"),
        ({"file_name": "a\0b"}, "a line that is no record; got no name in file_name"),
        ({"scores": {"a": "1"}}, "an invalid field; got the score a is '1'"),
        ({"scores": {"a": True}}, "an invalid field; got the score a is True"),
        ({"step": True}, "an invalid field; got step of an image is True"),
        ({"step": 10**30}, "step is out of range; got 10+;"),
        ({"fingerprint": 2**63}, "fingerprint is out of range; got 9223372036854775808"),
        ({"reason": None}, "an invalid field; got the reason is None"),
        ({"scores": None}, "an invalid field; got scores of an image is None"),
        ({"source": "stolen"}, "unknown source 'stolen'"),
        ({"confidence": 7}, r"invalid field; got the confidence is 7.0, outside \[0, 1\]"),
        ({"contrast": -0.1}, r"invalid field; got the contrast is -0.1, outside \[0, 0.5\]"),
        ({"removed": 1}, "unknown field 'removed'"),
        ({"prompt": ...}, "the field prompt is missing"),
        (None, "a line that is no record"),
    ],
)
def test_a_broken_folder(bank, target, tmp_path: Path, change: dict | None, message: str):
    out = tmp_path / "out"
    export_bank(bank, out, quiet)
    (out / "link.png").symlink_to(bank.image_path(bank.entry(1)))
    (out / "linked").symlink_to(bank.path)
    lines = lines_of(out)
    text = "{"
    if change is not None:
        changed = {key: value for key, value in (lines[2] | change).items() if value is not ...}
        text = json.dumps(changed)
    good = [json.dumps(line) for line in lines[:2]]
    (out / "metadata.jsonl").write_text("\n".join([*good, text]) + "\n")
    with pytest.raises(UserError, match=f"^cannot import {out}: record 3: .*{message}"):
        import_bank(target, out, quiet)


def repacked(out: Path, change) -> None:
    """Write a tar again, each member as `change` makes it; what it makes None is left out."""
    copy = out.with_suffix(".copy")
    with tarfile.open(out) as old, tarfile.open(copy, "w") as new:
        for place, member in enumerate(old):
            data = old.extractfile(member).read()
            if (changed := change(place, member, data)) is not None:
                member, data = changed
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
    copy.rename(out)


def renamed(name: str, kind: bytes = tarfile.REGTYPE):
    def change(place, member, data):
        if place == 3:
            member.name, member.type, member.linkname = name, kind, "/etc/passwd"
            data = data if kind == tarfile.REGTYPE else b""
        return member, data

    return change


def vectors(values: list):
    """Put other values in the place of the second vector."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(values))
    return lambda place, member, data: (member, buffer.getvalue() if place == 5 else data)


LENGTH, HUGE = b"(16,), }" + b" " * 11, b"(9999999999999,), }"
"""In the header of a vector."""


def archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(DIM))
    return buffer.getvalue()


def claiming(size: str):
    """Let the last member say that it has another size."""

    def change(place, member, data):
        if place == 5:
            member.pax_headers = {"size": size}
        return member, data

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed("../evil.png"), r"a member outside the archive; got '\.\./evil.png'"),
        (renamed("/evil.png"), "a member outside the archive; got '/evil.png'"),
        (renamed("a/../../evil.png"), "a member outside the archive"),
        (renamed("evil.png", tarfile.SYMTYPE), "no plain file; got 'evil.png'; pack the files"),
        (renamed("evil.png", tarfile.LNKTYPE), "no plain file"),
        (renamed("evil.sh"), "a file that belongs to no sample; got 'evil.sh'"),
        (renamed("evil.png"), "the sample evil is incomplete; got .'png'"),
        (lambda p, m, d: None if p == 4 else (m, d), r"is incomplete; got \['jpg', 'npy'\]"),
        (lambda p, m, d: (m, b"[]" if p == 4 else d), "cannot be read; got no JSON object"),
        (lambda p, m, d: (m, d[:-40] if p == 3 else d), "cannot read an image"),
        (lambda p, m, d: (m, d[:20] if p == 5 else d), "cannot be read"),
        (vectors(["x"] * DIM), "cannot be read; got no numbers"),
        (vectors([1j] * DIM), "cannot be read; got no numbers"),
        (lambda p, m, d: (m, archive() if p == 2 else d), "cannot be read; got no numbers"),
        (lambda p, m, d: (m, d.replace(LENGTH, HUGE)), "cannot be read; got Unable to allocate"),
        (lambda p, m, d: (m, b"\x93NUMPY\1\0\5\0{{{{{" if p == 5 else d), "cannot be read"),
        (claiming("9999999999999"), "not a readable tar; got unexpected end of data"),
    ],
)
def test_a_broken_tar(bank, target, tmp_path: Path, change, message: str):
    out = tmp_path / "out.tar"
    export_bank(bank, out, quiet)
    repacked(out, change)
    with pytest.raises(UserError, match=f"^cannot import {out}: record [12]: .*{message}"):
        import_bank(target, out, quiet)


@pytest.mark.parametrize("name", NAMES)
def test_no_export_at_all(bank, target, tmp_path: Path, name: str):
    out = tmp_path / name
    with pytest.raises(UserError, match=f"no such export: {out}"):
        import_bank(target, out, quiet)
    with pytest.raises(UserError, match="no such export"):
        embedder_of(out)
    (out.mkdir if name == "out" else out.touch)()
    with pytest.raises(UserError, match=r"^(cannot|nothing to) import"):
        embedder_of(out)
    if name != "out":
        out.write_bytes(b"rubbish" * 1000)
        with pytest.raises(UserError, match=r"^cannot import .*; got "):
            import_bank(target, out, quiet)
    export_bank(bank, tmp_path / "good" / name, quiet)
    if name == "out":
        return
    data = (tmp_path / "good" / name).read_bytes()
    cuts = [len(data) // 3]
    if name == "out.tar":
        with tarfile.open(tmp_path / "good" / name) as tar:
            cuts.append(tar.getmembers()[6].offset)  # two whole samples
    for cut in cuts:
        out.write_bytes(data[:cut])
        with pytest.raises(UserError, match=r"^cannot import"):
            import_bank(target, out, quiet)


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_is_no_export(target, tmp_path: Path, name: str):
    """Nobody writes into it, so reading it would not end."""
    out = tmp_path / name
    os.mkfifo(out)
    with pytest.raises(UserError, match=f"no export: {out}; expected a file or a folder"):
        import_bank(target, out, quiet)
    out.unlink()
    out.mkdir()
    os.mkfifo(out / "metadata.jsonl")
    with pytest.raises(UserError, match=f"^cannot import {out}: record 1: "):
        import_bank(target, out, quiet)


def test_a_number_is_no_image(bank, target, tmp_path: Path):
    """Of its own accord Python makes so many zero bytes of it."""
    out = tmp_path / "out.parquet"
    export_bank(bank, out, quiet)
    table = pq.read_table(out)
    images = pa.array([{"bytes": 10**12, "path": "x"}] * len(table))
    pq.write_table(table.set_column(table.column_names.index("image"), "image", images), out)
    with pytest.raises(UserError, match="a row that is no record; got no bytes in image"):
        import_bank(target, out, quiet)


def test_a_file_of_a_sample_that_is_there_twice(bank, target, tmp_path: Path):
    out = tmp_path / "out.tar"
    export_bank(bank, out, quiet)
    with tarfile.open(out, "a") as tar:
        last = tar.getmembers()[-1]
        tar.addfile(last, io.BytesIO(bytes(last.size)))
    with pytest.raises(UserError, match=f"a file that occurs twice; got '{last.name}'"):
        import_bank(target, out, quiet)


def test_a_column_that_is_there_twice(bank, target, tmp_path: Path):
    out = tmp_path / "out.parquet"
    export_bank(bank, out, quiet)
    table = pq.read_table(out)
    pq.write_table(table.append_column("prompt", table["prompt"]), out)
    with pytest.raises(UserError, match="a column that occurs twice; got prompt"):
        import_bank(target, out, quiet)


def test_parquet_of_something_else(target, tmp_path: Path):
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="record 1: a row that is no record; got 'image'"):
        import_bank(target, tmp_path / "x.parquet", quiet)


def test_a_late_flaw_leaves_no_image_of_earlier_batches(target, tmp_path: Path):
    """Record 150 is broken; the first two batches were on the disk already."""
    out = tmp_path / "out"
    with MemoryBank.create(tmp_path / "other", DIM, MODEL) as other:
        other.add([candidate(number) for number in range(150)])
        export_bank(other, out, quiet)
    lines = lines_of(out)
    (out / lines[149]["file_name"]).write_bytes(b"broken")
    with pytest.raises(UserError, match="record 150: cannot read an image"):
        import_bank(target, out, quiet)
    assert len(list((target.path / "images").rglob("*.png"))) == 1
    shutil.rmtree(out)
