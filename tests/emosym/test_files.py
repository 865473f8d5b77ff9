"""The durable writer: old or new, never half; synced before and after the rename."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from emosym import files
from emosym.errors import UserError
from emosym.files import (
    check_own,
    move,
    owner_of_temporary,
    regular_files,
    remove_all_leftovers,
    remove_leftovers,
    replace_folder,
    replacing,
    reported,
    temporary_for,
    write_bytes,
    write_file,
    write_text,
)


class Crash(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Names of what `files` syncs and renames, in order; both still happen."""
    done: list[str] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def spy_fsync(descriptor: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def spy_replace(source: Path, target: Path) -> None:
        done.append(f"rename {Path(source).name} {Path(target).name}")
        replace(source, target)

    def spy_rename(source: Path, target: Path) -> None:
        done.append(f"rename {Path(source).name} {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(files.os, "fsync", spy_fsync)
    monkeypatch.setattr(files.os, "replace", spy_replace)
    monkeypatch.setattr(files.os, "rename", spy_rename)
    monkeypatch.setattr(files, "temporary_for", lambda path: path.with_name("new"))
    return done


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def crash(*_: object) -> None:
    raise Crash


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def folder_with(path: Path, text: str) -> Path:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "a.txt").write_text(text)
    return path


def test_a_file_is_written_whole_and_replaced(tmp_path):
    path = tmp_path / "a.txt"
    write_bytes(path, b"one\r\n")
    assert path.read_bytes() == b"one\r\n"
    write_text(path, "zwei ä\n")
    assert path.read_bytes() == "zwei ä\n".encode()
    assert names(tmp_path) == ["a.txt"]


def test_a_written_file_has_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_bytes(tmp_path / "durable", b"")
    assert (tmp_path / "durable").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_file_is_synced_before_the_rename_and_its_folder_after(tmp_path, calls):
    (tmp_path / "home").mkdir()
    write_bytes(tmp_path / "home" / "a", b"1")
    assert calls == ["sync new", "rename new a", "sync home"]


def test_every_file_and_folder_of_a_new_folder_is_synced(tmp_path, calls):
    (tmp_path / "home").mkdir()
    with replacing(tmp_path / "home" / "a") as temporary:
        folder_with(temporary, "1")
    assert sorted(calls[:3]) == ["sync a.txt", "sync inner", "sync new"]
    assert calls[3:] == ["rename new a", "sync home"]


def test_many_files_are_synced_at_once(tmp_path, calls, monkeypatch):
    monkeypatch.setattr(files.os, "sync", lambda: calls.append("sync everything"))
    (tmp_path / "home").mkdir()
    with replacing(tmp_path / "home" / "a", many_files=True) as temporary:
        folder_with(temporary, "1")
    assert calls == ["sync everything", "rename new a", "sync home"]


@pytest.mark.parametrize(
    ("at", "fault"),
    [("fsync", crash), ("fsync", full), ("replace", crash), ("replace", full)],
)
def test_a_fault_before_the_new_file_is_in_place_leaves_the_old_one(
    tmp_path, monkeypatch, at, fault
):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.os, at, fault)
    with pytest.raises((Crash, OSError)):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_crash_between_two_writes_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replacing(path) as temporary, temporary.open("wb") as stream:
            stream.write(b"half")
            stream.flush()
            assert path.read_bytes() == b"old"
            raise Crash

    with pytest.raises(Crash):
        write_half()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_nothing_made_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_folder_takes_an_empty_place_only(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        move(folder_with(tmp_path / "new", name), tmp_path / name)
        assert (tmp_path / name / "inner" / "a.txt").read_text() == name
    held = folder_with(tmp_path / "held", "old")
    with pytest.raises(OSError, match="not empty"), replacing(held) as temporary:
        folder_with(temporary, "new")
    assert (held / "inner" / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["empty", "held", "missing"]


def test_a_folder_is_replaced_whole(tmp_path):
    target = folder_with(tmp_path / "target", "old")
    (target / "more").write_bytes(b"")
    new = folder_with(tmp_path / "new", "new")
    replace_folder(new, target)
    assert (target / "inner" / "a.txt").read_text() == "new"
    assert names(target) == ["inner"]
    assert names(tmp_path) == ["target"]
    replace_folder(folder_with(tmp_path / "new", "new"), tmp_path / "first")
    assert names(tmp_path) == ["first", "target"]


@pytest.mark.parametrize("fault", [crash, full])
def test_an_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path, monkeypatch, fault
):
    target, new = folder_with(tmp_path / "target", "old"), folder_with(tmp_path / "new", "new")
    rename, count = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        count.append(target)
        if len(count) == 2:
            fault()
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", second_fails)
    with pytest.raises((Crash, OSError)):
        replace_folder(new, target)
    assert (target / "inner" / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["new", "target"]


def test_a_replaced_folder_is_synced_before_the_old_one_moves(tmp_path, calls):
    home = tmp_path / "home"
    target, fresh = folder_with(home / "target", "old"), folder_with(home / "fresh", "new")
    replace_folder(fresh, target)
    assert sorted(calls[:3]) == ["sync a.txt", "sync fresh", "sync inner"]
    assert calls[3:] == ["rename target new", "rename fresh target", "sync home"]


def test_the_name_that_a_temporary_file_was_to_have():
    for name in ("a[1].txt", ".hidden", "a.b"):
        assert owner_of_temporary(temporary_for(Path("x") / name)) == name
    for other in ("a.txt", ".a.txt.tmp", ".a.txt.mine0000.tmp", ".a.txt.0123abcd.tmp2"):
        assert owner_of_temporary(Path(other)) is None


def test_leftovers_of_one_name_are_deleted(tmp_path):
    path = tmp_path / "a[1].txt"
    temporary_for(path).write_bytes(b"")
    folder_with(temporary_for(path), "")
    kept = [temporary_for(tmp_path / "b"), tmp_path / ".a[1].txt.mine.tmp", path]
    for other in kept:
        other.write_bytes(b"")
    remove_leftovers(path)
    assert names(tmp_path) == sorted(other.name for other in kept)


def test_leftovers_of_all_names_are_deleted(tmp_path):
    (tmp_path / "outside").write_text("stays")
    temporary_for(tmp_path / "a").symlink_to(tmp_path / "outside")
    folder_with(temporary_for(tmp_path / "b"), "")
    (tmp_path / ".hidden.tmp").write_text("not one")
    remove_all_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden.tmp", "outside"]


def test_all_files_of_a_folder(tmp_path):
    for name in ("b", "a/c", "a/d/e"):
        write_file(tmp_path / "folder" / name, b"")
    found = regular_files(tmp_path / "folder")
    assert [path.relative_to(tmp_path / "folder").as_posix() for path in found] == [
        *("a/c", "a/d/e", "b")
    ]


@pytest.mark.parametrize("place", ["folder", "folder/inner", "folder/inner/a"])
def test_a_folder_does_not_lead_out(tmp_path, place):
    """Not by a link to a file or a folder, nor to nothing; and a pipe does not hang."""
    write_file(tmp_path / "folder" / "inner" / "a", b"")
    (tmp_path / place).rename(tmp_path / "outside")
    (tmp_path / place).symlink_to(tmp_path / "outside")
    link = f"^{tmp_path / place} is a symbolic link; expected a file or a folder"
    with pytest.raises(UserError, match=link):
        regular_files(tmp_path / "folder")
    (tmp_path / place).unlink()
    (tmp_path / place).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=link):
        regular_files(tmp_path / "folder")
    (tmp_path / place).unlink()
    os.mkfifo(tmp_path / place)
    with pytest.raises(UserError, match=f"^{tmp_path / place} is a FIFO, socket or device"):
        regular_files(tmp_path / "folder")
    (tmp_path / place).unlink()
    with pytest.raises(FileNotFoundError):
        check_own(tmp_path / place)


def test_write_file_makes_folders_and_reports_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "x" / "y" / "a"
    write_file(path, b"1")
    assert path.read_bytes() == b"1"
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError) as raised:
        write_file(path, b"2")
    assert str(raised.value) == (
        f"cannot write {path}; got No space left on device;"
        " check free space and permissions, or choose another place"
    )
    assert path.read_bytes() == b"1"


def test_a_file_in_place_of_a_folder_is_reported(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot write .*x/a; got (File exists|Not a directory)"):
        write_file(tmp_path / "x" / "a", b"")


def test_reported_leaves_other_errors_alone():
    with pytest.raises(ValueError, match="mine"), reported("cannot write"):
        raise ValueError("mine")
    with (
        pytest.raises(UserError, match=r"^cannot write it; got disk; try again$"),
        reported("cannot write it", fix="try again"),
    ):
        raise OSError("disk")


@pytest.mark.parametrize("whole", [True, False])
def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path, whole):
    real, link, new = tmp_path / "real", tmp_path / "link", tmp_path / "new"
    if whole:
        real.mkdir()
        (real / "file").write_text("old")
    link.symlink_to(real)
    new.mkdir()
    (new / "file").write_text("new")
    files.replace_folder(new, link)
    assert not link.is_symlink()
    assert (link / "file").read_text() == "new"
    assert not whole or (real / "file").read_text() == "old"
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == (["link", "real"] if whole else ["link"])
