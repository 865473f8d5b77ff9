"""Sync many files to disk with one call."""

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
"""Number of files up to which each is synced by itself. `syncfs` would also wait for data of other
processes."""
_AT_ONCE = 32
"""Concurrent fsync calls: a disk can serve several with one flush of its cache."""


class Flush:
    """Sync files that are written below `folder` inside the `with` block.

    Linux syncs the whole file system (`syncfs`): one disk flush for a batch of files and their
    folders, instead of hundreds. It also waits for data that other processes wrote to that file
    system. On other systems, and for a few files, each file and folder is synced by itself.

    `sync` raises `OSError` when the disk could not store the data.
    """

    def __init__(self, folder: Path) -> None:
        # Opened before the first write: syncfs reports errors since its descriptor was opened.
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
        """Sync the files and the folders that hold them; return when they are on the disk."""
        flush = _syncfs()
        if flush is not None and len(files) > _FEW:
            flush(self._descriptor)
        else:
            sync_files(self._folder, files)


def sync_files(root: Path, files: Sequence[Path]) -> None:
    """Sync files and all folders between them and `root`, each by itself."""
    paths = set(files)
    for file in files:
        paths.update(file.parents[: len(file.relative_to(root).parts)])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(sync_entry, paths))


@functools.cache
def _syncfs() -> Callable[[int], None] | None:
    """Return the kernel's `syncfs`; None if it is missing or does not report disk errors."""
    if sys.platform != "linux" or not _reports_errors(platform.release()):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        return None

    def syncfs(descriptor: int) -> None:
        if function(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return syncfs


def _reports_errors(release: str) -> bool:
    """Return whether `syncfs` of a Linux release reports write errors (5.8 and later)."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (5, 8)
