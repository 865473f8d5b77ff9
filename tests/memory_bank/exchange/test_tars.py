"""Tars that other programs packed, and advice that fits what is wrong with an export."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from emosym.errors import UserError
from memory_bank import MemoryBank
from memory_bank.exchange import embedder_of, export_bank, import_bank
from tests.memory_bank.make import DIM, MODEL, candidate, picture


def quiet(done: int, total: int) -> None:
    """Show nothing."""


@pytest.fixture
def bank(tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add([candidate(number, prompt=f"picture {number}") for number in range(5)])
        bank.add([candidate(5, image=picture(5, "JPEG"))])
        yield bank


@pytest.fixture
def target(tmp_path: Path):
    with MemoryBank.create(tmp_path / "target", DIM, MODEL) as target:
        yield target


@pytest.fixture
def unpacked(bank: MemoryBank, tmp_path: Path) -> Path:
    """A WebDataset export, unpacked."""
    export_bank(bank, tmp_path / "x.tar", quiet)
    folder = tmp_path / "unpacked"
    with tarfile.open(tmp_path / "x.tar") as tar:
        tar.extractall(folder, filter="data")
    return folder


def known(bank: MemoryBank) -> set[tuple]:
    return {(entry.sha256, entry.prompt, entry.suffix) for entry in bank.entries()}


def pack(folder: Path, *arguments: str) -> Path:
    """Return what `tar cf packed.tar ARGUMENTS`, run in a folder, makes."""
    out = folder.parent / "packed.tar"
    subprocess.run(["tar", "-cf", str(out), *arguments], cwd=folder, check=True)
    return out


@pytest.mark.parametrize("form", ["gnu", "posix", "ustar", "v7"])
@pytest.mark.parametrize("kind", ["samples", "folder"])
def test_a_tar_of_a_folder(bank, target, unpacked: Path, tmp_path: Path, kind: str, form: str):
    """Members are `./NAME` in the order of the disk, with folders, and with files of the system."""
    folder = unpacked
    if kind == "folder":
        folder = tmp_path / "folder"
        export_bank(bank, folder, quiet)
    for name in (".DS_Store", "._a.png", ".hidden"):
        (folder / name).write_bytes(b"of the system")
    (folder / "empty").mkdir()
    out = pack(folder, f"--format={form}", ".")
    assert embedder_of(out) == (DIM, MODEL)
    taken = import_bank(target, out, quiet)
    assert (taken.admitted, taken.refused) == (6, 0)
    assert known(target) == known(bank)
    assert target.verify() == []


def test_samples_in_a_folder_of_the_tar_and_in_any_order(bank, target, unpacked, tmp_path: Path):
    out = tmp_path / "packed.tar"
    names = sorted(path.name for path in unpacked.iterdir())
    random.Random(0).shuffle(names)
    with tarfile.open(out, "w") as tar:
        for name in names:
            tar.add(unpacked / name, f"deep/{'x' * 120}/{name}")  # longer than a plain header holds
    assert import_bank(target, out, quiet).admitted == 6
    assert known(target) == known(bank)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_a_member_that_is_no_plain_file(target, unpacked: Path, tmp_path: Path, kind: bytes):
    out = pack(unpacked, ".")
    with tarfile.open(out, "a") as tar:
        member = tarfile.TarInfo("./evil.png")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(
        UserError, match=r"no plain file; got 'evil.png'|got './evil.png'; pack the"
    ):
        import_bank(target, out, quiet)
    assert len(target) == 0


@pytest.mark.parametrize("name", ["../evil.png", "./../evil.png", "a/../../evil.png", "/evil.png"])
def test_a_member_outside(target, unpacked: Path, name: str):
    out = pack(unpacked, ".")
    with tarfile.open(out, "a") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(UserError, match="a member outside the archive; got"):
        import_bank(target, out, quiet)


def compressed(name: str, program: str):
    def make(tar: Path) -> Path:
        subprocess.run([program, "--keep", str(tar)], check=True)
        return tar.with_name(f"{tar.name}.{name}")

    return make


def gzipped(name: str):
    def make(tar: Path) -> Path:
        out = tar.with_name(name)
        out.write_bytes(gzip.compress(tar.read_bytes()))
        return out

    return make


def zipped(tar: Path) -> Path:
    with zipfile.ZipFile(tar.with_name("x.zip"), "w") as out:
        out.writestr("a", "b")
    return tar.with_name("x.zip")


def truncated(tar: Path) -> Path:
    tar.write_bytes(tar.read_bytes()[:-5000])
    return tar


def a_bank(tar: Path) -> Path:
    return tar.parent / "bank"


def a_picture(tar: Path) -> Path:
    out = tar.with_name("photo.jpg")
    out.write_bytes(picture(1, "JPEG"))
    return out


def an_empty_folder(tar: Path) -> Path:
    tar.with_name("empty").mkdir()
    return tar.with_name("empty")


def a_stray(tar: Path) -> Path:
    with tarfile.open(tar, "a") as out:
        out.addfile(tarfile.TarInfo("README.md"), io.BytesIO())
    return tar


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (gzipped("x.tar.gz"), "is compressed with gzip; first run gunzip"),
        (gzipped("x.tgz"), "is compressed with gzip; first run gunzip"),
        (gzipped("y.tar"), "is compressed with gzip; first run gunzip"),
        (compressed("bz2", "bzip2"), "is compressed with bzip2; first run bunzip2"),
        (compressed("xz", "xz"), "is compressed with xz; first run unxz"),
        (zipped, "is compressed with zip; first run unzip"),
        (truncated, "no tar, or a truncated one; got no end of archive; copy or export it again"),
        (a_bank, "is a memory bank, not an export; run `emosym bank export` first"),
        (a_picture, "got a file .jpg; expected a folder, or a file .parquet or .tar"),
        (an_empty_folder, "no metadata.jsonl in .*; give what `emosym bank export` wrote"),
        (a_stray, "belongs to no sample; got 'README.md'; expected KEY.png .*; leave it out, or"),
    ],
)
def test_the_advice_fits(bank, target, unpacked: Path, tmp_path: Path, make, message: str):
    if make.__qualname__.startswith("compressed") and not shutil.which("bzip2"):
        pytest.skip("no bzip2 here")
    source = make(tmp_path / "x.tar")
    for act in (lambda: import_bank(target, source, quiet), lambda: embedder_of(source)):
        with pytest.raises(UserError, match=message) as error:
            act()
        for wrong in ("free some space", "permissions"):
            assert wrong not in str(error.value)


def test_an_import_follows_no_links(bank, target, tmp_path: Path):
    """Of an image, of a folder of images, of the metadata; a pipe is not waited for."""
    good = tmp_path / "good"
    export_bank(bank, good, quiet)
    image = next(good.rglob("*.jpg"))
    for place in (image, image.parent, good / "images", good / "metadata.jsonl"):
        for replace in (os.symlink, lambda source, place: os.mkfifo(place)):
            copy = tmp_path / "copy"
            shutil.copytree(good, copy)
            there = copy / place.relative_to(good)
            shutil.rmtree(there) if there.is_dir() else there.unlink()
            replace(place, there)
            with pytest.raises(UserError, match=r"is a (symbolic link|pipe); expected a f"):
                import_bank(target, copy, quiet)
            shutil.rmtree(copy)
    assert (len(target), target.version) == (0, 0)
    assert import_bank(target, good, quiet).admitted == 6
