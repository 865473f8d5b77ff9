"""Nothing that a bank opens, writes, deletes or sweeps leaves its folder, or waits for a pipe."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from emosym.errors import UserError
from memory_bank import MemoryBank
from memory_bank.exchange import export_bank
from tests.memory_bank.make import DIM, MODEL, candidate, vector

SECRET = b"what is outside stays as it is"
HELD = candidate(0)


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """A wait for a pipe ends the test."""

    def stop(number: int, frame: object) -> None:
        raise AssertionError("it waits for something")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody else, with a file and a copy of the bank's images."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_bytes(SECRET)
    return folder


@pytest.fixture
def bank(tmp_path: Path, outside: Path) -> Path:
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add([HELD, candidate(1), candidate(2)])
        bank.remove([3])
    shutil.copytree(tmp_path / "bank" / "images", outside / "images")
    (outside / "images" / "ab").mkdir(exist_ok=True)
    (outside / "images" / "ab" / f"{'ab' * 32}.png").write_bytes(SECRET)  # would be swept
    return tmp_path / "bank"


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def link_to_folder(place: Path, outside: Path) -> None:
    place.symlink_to(outside / "images")


def link_to_twin(place: Path, outside: Path) -> None:
    """A link to the same file or folder outside."""
    inside = place.parts[place.parts.index("bank") + 1 :]
    twin = outside.joinpath(*inside)
    place.symlink_to(twin if twin.exists() else outside / "file")


def link_to_file(place: Path, outside: Path) -> None:
    place.symlink_to(outside / "file")


def dangling_link(place: Path, outside: Path) -> None:
    place.symlink_to(outside / "new")


def hard_link(place: Path, outside: Path) -> None:
    os.link(outside / "file", place)


def pipe(place: Path, outside: Path) -> None:
    os.mkfifo(place)


def device(place: Path, outside: Path) -> None:
    if os.getuid() == 0:
        os.mknod(place, 0o666 | 0o020000, os.makedev(1, 5))  # /dev/zero: it has no end
    else:
        place.symlink_to("/dev/zero")


def unix_socket(place: Path, outside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(place.parent)  # the name of a socket is short
        try:
            server.bind(place.name)
        finally:
            os.chdir(here)


def folder(place: Path, outside: Path) -> None:
    place.mkdir()


KINDS = [
    *(link_to_folder, link_to_twin, link_to_file, dangling_link, hard_link),
    *(pipe, device, unix_socket, folder),
]
IMAGE = "image"
"""Stands for the path of the first image."""
PLACES = [
    *("images", "images/ab", "image folder", IMAGE, "unknown image", "writer.lock", "index.faiss"),
    *("bank.sqlite", "bank.sqlite-wal", "bank.sqlite-shm", "bank.sqlite-journal"),
    *(".index.faiss.01234567.tmp", ".bank.sqlite.01234567.tmp", "images/ab/.x.tmp"),
]


def placed(bank: Path, name: str) -> Path:
    """Return the path of a place, emptied."""
    image = next(iter(sorted((bank / "images").rglob("*.png"))))
    path = {
        IMAGE: image,
        "image folder": image.parent,
        "unknown image": bank / "images" / "ab" / f"{'ab' * 32}.png",
    }.get(name, bank / name)
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def quiet(done: int, total: int) -> None:
    """Show nothing."""


def everything(bank: Path) -> dict[str, Callable[[], object]]:
    """Every use of a bank that touches its files, by name."""

    def reading(act: Callable[[MemoryBank], object]) -> Callable[[], object]:
        def run() -> object:
            with MemoryBank.open(bank) as reader:
                return act(reader)

        return run

    def writing(act: Callable[[MemoryBank], object]) -> Callable[[], object]:
        def run() -> object:
            with MemoryBank.open(bank, "a") as writer:
                return act(writer)

        return run

    out = bank.parent / "out"
    return {
        "open": reading(len),
        "search": reading(lambda one: one.search(vector(0))),
        "verify": reading(MemoryBank.verify),
        "image paths": reading(lambda one: [one.image_path(e).read_bytes() for e in one.entries()]),
        "export": reading(lambda one: export_bank(one, out / "x", quiet)),
        "export tar": reading(lambda one: export_bank(one, out / "x.tar", quiet)),
        "open to write": writing(len),
        "verify as writer": writing(MemoryBank.verify),
        "add": writing(lambda one: one.add([candidate(5), candidate(6)])),
        "restore": writing(lambda one: one.add([HELD, candidate(1)])),
        "rebuild": writing(
            lambda one: one.rebuild(
                lambda paths: [vector(len(p.read_bytes())) for p in paths], DIM, "other"
            )
        ),
        "rollback": writing(lambda one: one.rollback(1)),
        "compact": writing(lambda one: one.compact()),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_nothing_leaves_the_folder(bank: Path, outside: Path, place: str, kind: Callable):
    kind(placed(bank, place), outside)
    before = contents(outside)
    for name, use in everything(bank).items():
        # A missing file is an error of the code that opens it by the path.
        with suppress(UserError, *([FileNotFoundError] if name == "image paths" else [])):
            use()
        assert contents(outside) == before, name
        assert not any(SECRET in data for data in exported(bank)), name


def exported(bank: Path) -> list[bytes]:
    files = (bank.parent / "out").rglob("*") if (bank.parent / "out").exists() else ()
    return [path.read_bytes() for path in files if path.is_file()]


def test_an_image_that_is_a_link_is_not_read(bank: Path, outside: Path):
    """Its copy outside has the same bytes."""
    with MemoryBank.open(bank) as reader:
        image = reader.image_path(reader.entry(1))
    image.unlink()
    link_to_twin(image, outside)
    with MemoryBank.open(bank) as reader:
        (problem,) = reader.verify()
        assert f"{image} is a symbolic link; expected a file in that place" in problem
        with pytest.raises(UserError, match="is a symbolic link"):
            [reader.image_path(entry) for entry in reader.entries()]
        with pytest.raises(UserError, match="is a symbolic link"):
            export_bank(reader, bank.parent / "x", quiet)
    with MemoryBank.open(bank, "a") as writer:
        restored = writer.add([candidate(number) for number in range(2)]).refused
        assert sorted(one.reason for one in restored) == [
            "duplicate image",
            "duplicate image, whose lost file is restored",
        ]
        assert writer.verify() == []
    assert not image.is_symlink()


def test_the_folder_itself_may_be_a_link(bank: Path):
    link = bank.parent / "link"
    link.symlink_to(bank)
    with MemoryBank.open(link, "a") as writer:
        assert writer.add([candidate(7)]).version == 3
        assert writer.verify() == []
    with MemoryBank.open(link / ".." / "link") as reader:
        assert len(reader) == 3


def test_a_hard_linked_copy_can_be_read_but_not_written(bank: Path):
    """As `cp -al` makes one; the original stays as it is."""
    copy = bank.parent / "copy"
    shutil.copytree(bank, copy, copy_function=os.link)
    before = contents(bank)
    with MemoryBank.open(copy) as reader:
        assert reader.verify() == []
    with pytest.raises(UserError, match=r"has 2 names \(hard links\); expected one"):
        MemoryBank.open(copy, "a")
    assert contents(bank) == before


@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_schema_that_only_the_journal_holds_is_refused(bank: Path, mode: str):
    """`bank.sqlite` by itself is as EmoSym makes it; the change comes when its journal is read."""
    received = bank.parent / "received"
    with closing(sqlite3.connect(bank / "bank.sqlite", isolation_level=None)) as db:
        db.execute("CREATE TRIGGER evil AFTER INSERT ON entries BEGIN DELETE FROM tags; END")
        shutil.copytree(bank, received)  # before the journal is emptied into the database
    alone = shutil.copytree(received, bank.parent / "alone")
    (alone / "bank.sqlite-wal").unlink()
    with MemoryBank.open(alone) as reader:
        assert reader.verify() == []
    with pytest.raises(
        UserError, match=r"another program; got an unknown trigger 'evil'; expected"
    ):
        MemoryBank.open(received, mode)
