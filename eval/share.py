"""Evaluation by several processes: each takes its share, and all get all results in one order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Protocol, TypeVar

from emosym.console.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")

UNIT = 32
"""Images or questions in a batch of an evaluation. It does not depend on the number of processes:
in a batch of another size, sums are rounded in another order."""


class Processes(Protocol):
    """The processes that evaluate together; `train.distributed.ranks` is one."""

    def rank(self) -> int:
        """Return the place of this process in [0, size)."""

    def size(self) -> int:
        """Return the number of processes."""

    def collect(self, work: Callable[[], Result]) -> list[Result]:
        """Call `work` in each process; return the results of all in rank order.

        An error in one process stops all of them.
        """


class Alone:
    """One process that evaluates everything."""

    def rank(self) -> int:
        """Return 0."""
        return 0

    def size(self) -> int:
        """Return 1."""
        return 1

    def collect(self, work: Callable[[], Result]) -> list[Result]:
        """Call `work`."""
        return [work()]


ALONE = Alone()


def in_batches(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    *,
    what: str,
    processes: Processes = ALONE,
    batch: int = UNIT,
) -> list[Result]:
    """Return one result for each item, in the order of the items.

    Batch i is the work of process i mod size, so the results do not depend on the number of
    processes.

    Args:
        items: images, questions, requests.
        work: returns one result for each item of a batch. Results are pickled if there are several
            processes.
        what: the items, for the progress on stderr.
        processes: those that share the work.
        batch: items in a batch.
    """
    batches = [items[start : start + batch] for start in range(0, len(items), batch)]
    own = range(processes.rank(), len(batches), processes.size())

    def share() -> list[Sequence[Result]]:
        results = []
        with progress(what, len(items)) if processes.rank() == 0 else nullcontext() as show:
            for at in own:
                results.append(work(batches[at]))
                if show is not None:  # the other processes are as far as this one
                    show(min((at + processes.size()) * batch, len(items)), len(items))
        return results

    shares = processes.collect(share)
    return [
        result
        for at in range(len(batches))
        for result in shares[at % processes.size()][at // processes.size()]
    ]
