"""Signals that stop a run before its first step, or after its last one."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):  # no `except Exception` of a library may catch it
    """A signal asked to stop; nothing is going on that a checkpoint would keep."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the block on Ctrl-C and SIGTERM; a second one ends the process at once."""

    def stop(number: int, *_: object) -> NoReturn:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
