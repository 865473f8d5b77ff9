"""A lock file that admits one writer at a time and names it to others."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

from emosym.errors import UserError
from memory_bank.confined import open_file

_INTERVAL = 0.05
"""Seconds between two attempts to take the lock."""
_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


class WriterLock:
    """The right to write to a folder, held until `release` or the end of the process.

    The kernel releases the lock when the process ends, so a crashed writer blocks no other.

    Args:
        path: the lock file in the folder.
        what: the folder, for error messages.
        otherwise: what the user can do instead, for error messages.
        wait: seconds to wait for another writer.

    Raises:
        UserError: another writer still holds the lock after `wait` seconds, `wait` is below 0 or
            NaN, the folder or its disk cannot be written, or `path` is a link or no regular file.
    """

    def __init__(self, path: Path, what: str, otherwise: str, *, wait: float = 0) -> None:
        if not wait >= 0:  # refuses NaN too
            raise UserError("the wait for another writer", got=wait, expected="seconds, at least 0")
        _release_in_forks()
        try:
            self._descriptor = open_file(path.parent, path.name, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise UserError(
                f"cannot write to {what}",
                got=error,
                fix=f"{otherwise}, or make the folder writable",
            ) from error
        try:
            _lock(self._descriptor, wait)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 1000, 0).decode(errors="replace")
            os.close(self._descriptor)
            raise UserError(
                f"{what} has another writer",
                got=_describe(holder),
                fix=f"wait until it ends, or {otherwise}",
            ) from error
        except BaseException:
            os.close(self._descriptor)
            raise
        _held.add(self._descriptor)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        note = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now})
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, note.encode(), 0)
        except OSError as error:
            self.release()
            raise UserError(
                f"cannot write to {what}", got=error, fix=f"free some space, or {otherwise}"
            ) from error

    def release(self) -> None:
        """Release the lock; a second call has no effect."""
        if self._descriptor in _held:
            _held.remove(self._descriptor)
            os.close(self._descriptor)


def _lock(descriptor: int, wait: float) -> None:
    """Take the lock within `wait` seconds; raise BlockingIOError when it stays held."""
    end = time.monotonic() + wait
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(_INTERVAL)


def _describe(note: str) -> str:
    try:
        holder = json.loads(note)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "an unknown process"


@functools.cache
def _release_in_forks() -> None:
    """Close locks in forked children (data loader workers), or they would outlive their parent."""
    os.register_at_fork(after_in_child=_close_held)


def _close_held() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()
