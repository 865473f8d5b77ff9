"""What is written survives a power cut: many files with one flush of their file system."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from emosym.files import sync_entry

_FEW = 8
"""Files up to which each is synced, so that a small batch does not wait for what others wrote."""
_AT_ONCE = 32
"""Syncs in flight together: a disk answers several with one flush of its cache."""


class Flush:
    """Make files that are written below `folder` inside the `with` survive a power cut.

    Linux flushes the whole file system at once (`syncfs`): a single flush of the disk for a batch
    of files and their folders, where `fsync` of each waits for hundreds. It waits also for what
    others wrote to that file system. Elsewhere, and for a few files, each file and each folder
    that names it is synced.

    Raises `OSError` in `sync` when the disk did not take what was written.
    """

    def __init__(self, folder: Path) -> None:
        # Before the first write: syncfs tells of the errors since its descriptor was opened.
        self._folder, self._descriptor = folder, os.open(folder, os.O_RDONLY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def sync(self, files: Sequence[Path]) -> None:
        """Return when the files, their names and those of their folders are on the disk."""
        flush = _syncfs()
        if flush is not None and len(files) > _FEW:
            flush(self._descriptor)
        else:
            sync_files(self._folder, files)


def sync_files(root: Path, files: Sequence[Path]) -> None:
    """Make files, their names and those of the folders between them and `root` survive."""
    paths = set(files)
    for file in files:
        paths.update(file.parents[: len(file.relative_to(root).parts)])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(sync_entry, paths))


@functools.cache
def _syncfs() -> Callable[[int], None] | None:
    """Return the kernel's `syncfs`, or None where it is missing or hides errors of the disk."""
    if sys.platform != "linux" or not _tells_errors(platform.release()):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        return None

    def syncfs(descriptor: int) -> None:
        if function(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return syncfs


def _tells_errors(release: str) -> bool:
    """Return whether syncfs of this Linux reports what could not be written: since 5.8."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (5, 8)
