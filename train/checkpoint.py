"""Checkpoints: written under a temporary name by all ranks, then renamed by one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emosym.errors import UserError
from train import ranks

STATE = "state.json"
_NAME = re.compile(r"step-(\d{7})")


@dataclass(slots=True, kw_only=True)
class State:
    """What a run knows beside its weights."""

    step: int = 0
    """Steps done."""
    bank_version: int = 0
    seconds: float = 0.0
    """Wall time spent so far."""
    world_size: int = 1
    digests: dict[str, str] = field(default_factory=dict)
    """Part -> SHA-256 of its trainable parameters, checked after loading."""


def save(folder: Path, state: State, engines: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint of all engines; return its folder once every rank is done."""
    name = f"step-{state.step:07d}"
    temporary = folder / f".{name}.tmp"
    if ranks.is_first():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    ranks.barrier()
    for part, engine in engines.items():
        engine.save_checkpoint(str(temporary / part), tag="state", exclude_frozen_parameters=True)
        state.digests[part] = digest(engine.module)
    ranks.barrier()
    target = folder / name
    if ranks.is_first():
        (temporary / STATE).write_text(json.dumps(asdict(state), indent=2) + "\n")
        _sync(temporary)
        if target.exists():
            shutil.rmtree(target)
        os.rename(temporary, target)
        for old in found(folder)[:-keep]:
            shutil.rmtree(old)
    ranks.barrier()
    return target


def found(folder: Path) -> list[Path]:
    """Return the finished checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def load(path: Path, engines: dict[str, Any]) -> State:
    """Load a checkpoint into the engines and check that it is what was saved.

    Raises:
        UserError: another number of ranks, parts that differ, weights that differ.
    """
    try:
        state = State(**json.loads((path / STATE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"checkpoint {path} cannot be read", got=error, fix="delete it to use the one before"
        ) from error
    if state.world_size != ranks.size():
        raise UserError(
            f"checkpoint {path.name} was written by another number of ranks",
            got=f"NPROC={ranks.size()}",
            expected=f"NPROC={state.world_size}",
        )
    if set(state.digests) != set(engines):
        raise UserError(
            f"checkpoint {path.name} holds other parts",
            got=", ".join(sorted(state.digests)),
            expected=", ".join(sorted(engines)),
        )
    for part, engine in engines.items():
        shapes = {name: tuple(p.shape) for name, p in engine.module.named_parameters()}
        try:
            # Frozen weights are not in the checkpoint; `digest` checks all that are.
            engine.load_checkpoint(str(path / part), tag="state", load_module_strict=False)
        except (RuntimeError, OSError, ValueError, AssertionError, EOFError) as error:
            raise UserError(
                f"checkpoint {path.name} does not fit part {part} ({len(shapes)} tensors)",
                got=str(error).splitlines()[-1][:200],
                fix="resume with the configuration the run was started with",
            ) from error
        if digest(engine.module) != state.digests[part]:
            raise UserError(
                f"checkpoint {path.name}: the loaded weights of {part} are not those saved",
                fix="delete this checkpoint to use the one before",
            )
    return state


@torch.no_grad()
def digest(module: nn.Module) -> str:
    """Return the SHA-256 over names and bytes of a module's trainable parameters."""
    total = hashlib.sha256()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            total.update(name.encode())
            total.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _sync(folder: Path) -> None:
    """Force a finished folder to disk, so that the rename never outruns its contents."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
