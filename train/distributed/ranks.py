"""The ranks of a run: this process's rank, and collective operations."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor

from emosym.errors import UserError
from train.distributed.launcher import free_port

Result = TypeVar("Result")

LONGEST_WAIT = timedelta(days=30)
"""Of a rank for the work of another one, such as a part of an evaluation or writing a model. A rank
that ends closes its connections, so the others notice that at once."""

_waiting: dist.ProcessGroup | None = None
"""All ranks, through gloo on the CPU and with `LONGEST_WAIT`. Groups of the backend of training
give up after minutes."""


class OtherRankError(Exception):
    """Another rank raised an error and reports it; this rank stops too."""


def join() -> None:
    """Join the process group; a process without a launcher is the only member.

    Raises:
        UserError: environment variables that a launcher would set differently.
    """
    if dist.is_initialized():
        return
    if "RANK" in os.environ:
        _check_launcher()
    else:
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT=str(free_port()))
    # Skip an operator of DeepSpeed's inference that training never calls. It would be compiled on
    # first use, and a process that is killed meanwhile leaves a lock that blocks all later ones.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # Caused by DeepSpeed's own calls, in every step of every rank.
    warnings.filterwarnings("ignore", r".*all_gather_into_tensor", FutureWarning)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, verbose=False)
    global _waiting
    _waiting = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)


def leave() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's rank."""
    return dist.get_rank()


def size() -> int:
    """Return the number of ranks."""
    return dist.get_world_size()


def is_first() -> bool:
    """Return whether this is rank 0, which writes files and prints."""
    return rank() == 0


def say(text: str) -> None:
    """Print a line for the user on stderr, once."""
    if is_first():
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def raise_once() -> Iterator[None]:
    """Let one rank of a machine report an error that all its ranks raise.

    Raises:
        OtherRankError: in place of UserError, on all but the first rank of the machine.
    """
    try:
        yield
    except UserError:
        if "RANK" in os.environ and os.environ.get("LOCAL_RANK", "0") != "0":
            raise OtherRankError from None
        raise


@contextlib.contextmanager
def raise_together() -> Iterator[None]:
    """Let all ranks stop when one of them raises an error; the first that did reports it.

    Raises:
        UserError, OSError: on the lowest of the ranks that raised it.
        OtherRankError: on the others.
    """
    problem: UserError | OSError | OtherRankError | None = None
    try:
        yield
    except (UserError, OSError, OtherRankError) as error:
        problem = error
    fine = 2 * size()
    own = size() if isinstance(problem, OtherRankError) else rank()
    first = least(fine if problem is None else own)
    if problem is not None and first == rank():
        raise problem
    if first < fine:
        raise OtherRankError


def lost_peer(error: Exception) -> bool:
    """Return whether an error of a collective operation says that another rank has ended."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def patient_group() -> dist.ProcessGroup | None:
    """Return the group of all ranks whose collectives wait for `LONGEST_WAIT`, on the CPU."""
    return _waiting


def barrier() -> None:
    """Wait for all ranks, however long their work takes."""
    if size() > 1:
        dist.barrier(_waiting)


def any_rank(flag: bool) -> bool:
    """Return True on all ranks when it is True on any."""
    if size() == 1:
        return flag
    votes = torch.tensor([float(flag)])
    dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=_waiting)
    return bool(votes.item())


def least(number: int) -> int:
    """Return the least of the ranks' numbers, on all ranks."""
    if size() == 1:
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, op=dist.ReduceOp.MIN, group=_waiting)
    return int(found.item())


def collect(work: Callable[[], Result]) -> list[Result]:
    """Call `work` on every rank; return the results of all in rank order, pickled between ranks.

    It has time: a rank waits for the slowest. Errors are raised as by `raise_together`.
    """
    with raise_together():
        result = work()
    if size() == 1:
        return [result]
    results: list[Any] = [None] * size()
    dist.all_gather_object(results, result, group=_waiting)
    return results


def mean(value: Tensor) -> Tensor:
    """Return the mean over ranks, without gradient."""
    value = value.detach().clone().float()
    if size() > 1:
        dist.all_reduce(value)
        value /= size()
    return value


def total(value: Tensor) -> Tensor:
    """Return the sum over ranks, in the type of the value and without gradient."""
    value = value.detach()
    if size() > 1:
        value = value.contiguous().clone()
        dist.all_reduce(value)
    return value


def largest(value: Tensor) -> Tensor:
    """Return the maximum over ranks, without gradient."""
    value = value.detach()
    if size() > 1:
        value = value.contiguous().clone()
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


def gather_texts(texts: list[str]) -> list[str]:
    """Return the texts of all ranks, in rank order."""
    if size() == 1:
        return texts
    parts: list[list[str]] = [[]] * size()
    dist.all_gather_object(parts, texts)
    return [text for part in parts for text in part]


def device() -> torch.device:
    """Return the device of this rank."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def _check_launcher() -> None:
    """Check a launcher's environment variables: torch and DeepSpeed would guess, or hang."""
    size = _integer("WORLD_SIZE", 1, 2**31)
    _integer("RANK", 0, size - 1)
    _integer("LOCAL_RANK", 0, size - 1)
    _integer("MASTER_PORT", 1, 2**16 - 1)
    if not os.environ.get("MASTER_ADDR"):
        raise _bad_variable("MASTER_ADDR", "a host name")


def _integer(name: str, least: int, most: int) -> int:
    text = os.environ.get(name, "")
    if not (text.isdecimal() and least <= int(text) <= most):
        raise _bad_variable(name, f"an integer in [{least}, {most}]")
    return int(text)


def _bad_variable(name: str, expected: str) -> UserError:
    return UserError(
        f"the environment variable {name} is not what a launcher sets beside RANK",
        got=repr(os.environ.get(name, "")),
        expected=expected,
        fix="start with `make ... NPROC=<ranks>`, or unset RANK to train on one rank",
    )
