"""The bank under several ranks: rank 0 writes, the others follow by version."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from emosym.errors import UserError
from memory_bank.bank import MemoryBank

T = TypeVar("T")


def gather(items: list[T]) -> list[T]:
    """Return the items of all ranks in rank order on rank 0, and an empty list elsewhere."""
    if not dist.is_initialized():
        return items
    leads = dist.get_rank() == 0
    everyone = [None] * dist.get_world_size() if leads else None
    dist.gather_object(items, everyone, dst=0)
    return [item for part in everyone for item in part] if leads else []


def write_on_rank_zero(bank: MemoryBank, write: Callable[[MemoryBank], T]) -> T:
    """Run `write(bank)` on rank 0 only; bring every rank to the version it left; return its result.

    Rank 0 has the bank open to write, the others to read, all on one host. The result is sent to
    all ranks, so it must pickle. Without a process group it just writes.

    Raises the writer's `UserError` on every rank, so that none waits for the others for ever.
    """
    if not dist.is_initialized():
        return write(bank)
    # No rank still reads, or searches, what this write may roll back.
    dist.barrier()
    message: list[tuple[int, T | UserError] | None] = [None]
    if dist.get_rank() == 0:
        try:
            result: T | UserError = write(bank)
        except UserError as error:
            result = error
        message = [(bank.version, result)]
    dist.broadcast_object_list(message, src=0)
    version, result = message[0]
    bank.reload(version)
    if isinstance(result, UserError):
        raise result
    return result
