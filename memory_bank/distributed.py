"""The bank in a distributed run: rank 0 writes, the other ranks follow its versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch.distributed as dist

from emosym.errors import UserError
from memory_bank.bank import MemoryBank

T = TypeVar("T")


def gather(items: list[T], group: dist.ProcessGroup | None = None) -> list[T]:
    """Return the items of all ranks in rank order on rank 0, and an empty list elsewhere.

    `group` has all ranks; None is the default group.
    """
    if not dist.is_initialized():
        return items
    if dist.get_rank() != 0:
        dist.gather_object(items, None, dst=0, group=group)
        return []
    gathered: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.gather_object(items, gathered, dst=0, group=group)
    return [item for of_rank in gathered for item in of_rank]


def write_on_rank_zero(
    bank: MemoryBank,
    write: Callable[[MemoryBank], T],
    group: dist.ProcessGroup | None = None,
) -> T:
    """Run `write(bank)` on rank 0 only; move every rank to the new version; return the result.

    Rank 0 has the bank open for writing, the others for reading, all on one host. The result is
    sent to all ranks, so it must pickle. Without a process group it just writes. `group` has all
    ranks, and its timeout must be longer than the write; None is the default group.

    Raises the writer's `UserError` on every rank, so that no rank waits for the others forever.
    """
    if not dist.is_initialized():
        return write(bank)
    # All ranks have finished reading before this write may roll the bank back.
    dist.barrier(group)
    message: list[tuple[int, T | UserError] | None] = [None]
    if dist.get_rank() == 0:
        try:
            result: T | UserError = write(bank)
        except UserError as error:
            result = error
        message = [(bank.version, result)]
    dist.broadcast_object_list(message, src=0, group=group)
    version, result = cast("tuple[int, T | UserError]", message[0])  # filled by the broadcast
    bank.reload(version)
    if isinstance(result, UserError):
        raise result
    return result
