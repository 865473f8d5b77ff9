"""The ranks of a run: who we are, and what we tell each other."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor

from emosym.errors import UserError


class Elsewhere(Exception):  # noqa: N818  the error is another rank's
    """Another rank met bad input and tells of it; this one leaves with it."""


def join() -> None:
    """Join the other ranks; a process that no launcher started is a world of one."""
    if dist.is_initialized():
        return
    if "RANK" not in os.environ:
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT=str(_free_port()))
    # An operator of DeepSpeed's inference that training never calls. It would be compiled on first
    # use, and a process that is killed meanwhile leaves a lock for which all later ones wait.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # DeepSpeed's own calls, told at every step of every rank.
    warnings.filterwarnings("ignore", r".*all_gather_into_tensor", FutureWarning)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


def leave() -> None:
    """Part from the other ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's rank."""
    return dist.get_rank()


def size() -> int:
    """Return the number of ranks."""
    return dist.get_world_size()


def is_first() -> bool:
    """Tell whether this rank writes files and talks."""
    return rank() == 0


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Let one rank of a machine tell of bad input that all its ranks meet.

    Raises:
        Elsewhere: in place of UserError, on all but the first rank of the machine.
    """
    try:
        yield
    except UserError:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            raise Elsewhere from None
        raise


def again(run: Path) -> str:
    """Return the command that continues a run as it ran."""
    ranks = f" NPROC={size()}" if size() > 1 else ""
    return f"`make resume RUN={run}{ranks}`"


def barrier() -> None:
    """Wait for all ranks."""
    if size() > 1:
        dist.barrier()


def any_rank(flag: bool) -> bool:
    """Return True on all ranks when it is True on any."""
    if size() == 1:
        return flag
    votes = torch.tensor([float(flag)], device=device())
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes.item())


def mean(value: Tensor) -> Tensor:
    """Return the mean over ranks, without gradient."""
    value = value.detach().clone().float()
    if size() > 1:
        dist.all_reduce(value)
        value /= size()
    return value


def gather(rows: Tensor) -> Tensor:
    """Concatenate [B, ...] of all ranks in rank order; gradients flow back to each rank.

    The engines average gradients over ranks, and each rank's loss is a mean over its own images:
    the gradient that other ranks send for our rows is part of their loss, so the sum is right.
    """
    if size() == 1:
        return rows
    return _Gather.apply(rows)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(size())[rank()]


def device() -> torch.device:
    """Return the device of this rank."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
