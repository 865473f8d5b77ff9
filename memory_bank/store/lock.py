"""One writer at a time, and a second one is told who the first is."""

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

_PATIENCE = 0.05
"""Seconds between two tries of one that waits."""
_held: set[int] = set()
"""Descriptors of the locks this process holds."""


class WriterLock:
    """The right to write to a folder, held until `release` or the end of the process.

    `path` is a file in it, `what` the folder in words, and `otherwise` what one may do meanwhile.
    The kernel drops the lock when its process dies, so a dead writer never blocks the next one.

    Raises `UserError` when another writer still holds it after `wait` seconds, for a `wait` below 0
    or NaN, and when the folder cannot be written.
    """

    def __init__(self, path: Path, what: str, otherwise: str, *, wait: float = 0) -> None:
        if not wait >= 0:  # to NaN no time is late enough
            raise UserError("the wait for another writer", got=wait, expected="seconds, at least 0")
        _forget_in_forks()
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
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
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, note.encode(), 0)

    def release(self) -> None:
        """Let the next writer in; a second call does nothing."""
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
            time.sleep(_PATIENCE)


def _describe(note: str) -> str:
    try:
        holder = json.loads(note)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has not signed yet"


@functools.cache
def _forget_in_forks() -> None:
    """Keep forked children (data loader workers) from holding a dead parent's lock alive."""
    os.register_at_fork(after_in_child=_close_held)


def _close_held() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()
