"""Files below a folder: no symbolic link is followed, and no pipe or device is waited for.

Each name below the folder is opened relative to the one above it and without following links. The
path of the folder itself may contain links. SQLite and FAISS open their files by name, so
`check_file` looks at these before; a process that exchanges one in between is not noticed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emosym.errors import UserError

MAX_BYTES = 2**30
"""Size of the largest file that is read into memory."""

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}


class Misplaced(UserError):  # noqa: N818 (named as its subject)
    """Something else than a file or a folder is where one belongs."""


def check_file(path: Path, *, writable: bool = False) -> bool:
    """Return whether there is a file. Raises `Misplaced` as `open_file`, and `OSError`."""
    try:
        _check(path, os.lstat(path), stat.S_IFREG, writable=writable)
    except FileNotFoundError:
        return False
    return True


def open_file(root: Path, name: str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file below a folder; `name` is its path there, with `/`. Return a descriptor.

    Raises:
        Misplaced: a part of `name` is a symbolic link, a pipe, a device or the like, or to write, a
            file that has other names (hard links), possibly in other folders.
        OSError: the file cannot be opened.
    """
    folder, _, last = name.rpartition("/")
    with open_folder(root, folder) as parent:
        return _open(parent, root / name, last, flags)


@contextmanager
def open_folder(root: Path, name: str = "", *, make: bool = False) -> Iterator[int]:
    """Give the descriptor of a folder below another. Raises as `open_file`.

    `make` creates what is missing of it.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = root
        for part in filter(None, name.split("/")):
            path = path / part
            inner = _step(descriptor, path, part, make=make)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(root: Path, name: str) -> bytes:
    """Return the bytes of a file below a folder.

    Raises `Misplaced` as `open_file`, and for more than `MAX_BYTES`; `OSError`.
    """
    with os.fdopen(open_file(root, name), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > MAX_BYTES:
            raise Misplaced(
                f"{root / name} is too large", got=f"{size} bytes", expected=f"at most {MAX_BYTES}"
            )
        return stream.read()


def create_file(root: Path, name: str) -> int:
    """Create an empty file below a folder, and the folders to it; return its descriptor.

    Raises as `open_file`, and `FileExistsError`.
    """
    folder, _, last = name.rpartition("/")
    with open_folder(root, folder, make=True) as parent:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(last, flags, 0o666, dir_fd=parent)


def delete_file(root: Path, name: str) -> None:
    """Delete a name below a folder, if there is one: a link, not what it leads to."""
    folder, _, last = name.rpartition("/")
    try:
        with open_folder(root, folder) as parent:
            os.unlink(last, dir_fd=parent)
    except FileNotFoundError:
        pass


def _open(parent: int, path: Path, name: str, flags: int) -> int:
    writable = flags & os.O_ACCMODE != os.O_RDONLY
    try:  # before it is opened: some devices act when they are
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        _check(path, found, stat.S_IFREG, writable=writable)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    # Without O_NONBLOCK, a pipe put there meanwhile would block.
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666, dir_fd=parent)
    try:
        _check(path, os.fstat(descriptor), stat.S_IFREG, writable=writable)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _step(parent: int, path: Path, name: str, *, make: bool) -> int:
    """Open a folder in a folder."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        if not make:
            raise
        os.mkdir(name, dir_fd=parent)
    else:
        _check(path, found, stat.S_IFDIR)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=parent)


def _check(path: Path, found: os.stat_result, kind: int, *, writable: bool = False) -> None:
    actual = stat.S_IFMT(found.st_mode)
    if actual != kind:
        raise Misplaced(
            f"{path} is {_KINDS.get(actual, 'of an unknown kind')}",
            expected=f"{_KINDS[kind]} in that place",
            fix=f"put {_KINDS[kind]} there, or delete it",
        )
    if writable and found.st_nlink > 1:
        raise Misplaced(
            f"{path} has {found.st_nlink} names (hard links)",
            expected="one, as writing would change the others too",
            fix="copy the folder without hard links and use the copy",
        )
