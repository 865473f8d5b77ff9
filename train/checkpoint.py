"""Checkpoints: all ranks write under a temporary name, then rank 0 renames the folder."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emosym.config import load_config
from emosym.errors import UserError
from emosym.files import move
from train.data.candidate_queue import CandidateQueue
from train.distributed import ranks
from train.distributed.ema import WeightAverage

STATE = "state.json"
AVERAGES = "averages"
"""Folder of the averages in a checkpoint, a file for each part that has one."""
WAITING = "waiting.safetensors"
"""File of the candidates that wait for their admission to the bank; absent if there are none."""
_NAME = re.compile(r"step-(\d{7})")
_BEFORE = "delete this checkpoint to use the one before"
_LOAD_ERRORS = (RuntimeError, OSError, ValueError, AssertionError, EOFError, KeyError, IndexError)
"""What DeepSpeed and torch raise for a state of another shape."""


@dataclass(slots=True, kw_only=True)
class State:
    """The state of a run apart from its weights."""

    step: int
    """Steps done."""
    bank_version: int
    bank_digest: str
    """Hash of the run's memory bank at that version."""
    monitors: dict[str, list[list[float]]]
    """Phase -> the rows that its monitor keeps, see `Phase.monitor`."""
    seconds: float
    """Wall time spent so far."""
    world_size: int
    model_hash: str
    """Hash of the starting model, whose weights serve as frozen weights and as reference."""
    digests: dict[str, str]
    """Part -> SHA-256 of its trainable parameters, checked after loading."""
    files: dict[str, int]
    """File of the checkpoint -> bytes, checked before loading: DeepSpeed starts a fresh optimizer
    where the file of its states is missing."""

    @classmethod
    def of_start(cls, world_size: int, model_hash: str) -> State:
        """Return the state of a run before its first step."""
        return cls(
            step=0,
            bank_version=0,
            bank_digest="",
            monitors={},
            seconds=0.0,
            world_size=world_size,
            model_hash=model_hash,
            digests={},
            files={},
        )

    @property
    def name(self) -> str:
        """The name of its checkpoint."""
        return f"step-{self.step:07d}"


def save(
    folder: Path,
    state: State,
    engines: dict[str, Any],
    averages: dict[str, WeightAverage],
    waiting: CandidateQueue,
    keep: int,
) -> Path:
    """Write a checkpoint and return its folder once every rank is done.

    A checkpoint that exists is not written again: steps are exact, so it would be the same.

    Raises:
        UserError: no space left, or the folder cannot be written; older checkpoints are untouched.
    """
    temporary, target = folder / f".{state.name}.tmp", folder / state.name
    done = target.exists()
    ranks.barrier()
    if done:
        return target
    try:
        if ranks.is_first():
            for stale in folder.glob(".step-*.tmp"):
                shutil.rmtree(stale)
            temporary.mkdir(parents=True)
        ranks.barrier()
        for part, engine in engines.items():
            engine.save_checkpoint(
                str(temporary / part), tag="state", exclude_frozen_parameters=True
            )
            state.digests[part] = digest(engine.module)
        ranks.barrier()
        if ranks.is_first():
            for part, average in averages.items():
                average.save(_average(temporary, part))
            if waiting.candidates:
                waiting.save(temporary / WAITING)
            state.files = _sizes(temporary)
            (temporary / STATE).write_text(json.dumps(asdict(state), indent=2) + "\n")
            move(temporary, target)
            for old in list_checkpoints(folder)[:-keep]:
                # Renamed first, so that a kill meanwhile leaves no checkpoint with files missing.
                shutil.rmtree(old.rename(folder / f".{old.name}.tmp"))
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError on a full disk
        if ranks.is_first():
            shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"checkpoint {target} cannot be written",
            got=_last_line(error),
            fix="free some space; older checkpoints are untouched, resume continues from them",
        ) from error
    ranks.barrier()
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints of a run, oldest first.

    Raises:
        UserError: something else is in the folder's place.
    """
    if not os.path.lexists(folder):
        return []
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", fix="put the run's checkpoints back")
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def load(
    path: Path,
    engines: dict[str, Any],
    averages: dict[str, WeightAverage],
    waiting: CandidateQueue,
    model_hash: str,
) -> State:
    """Load a checkpoint into engines, averages and queue, and check that it is what was saved.

    Raises:
        UserError: another number of ranks, another starting model, parts or shapes that differ,
            a file that is missing or cut short, weights that differ.
    """
    with ranks.raise_once():  # all ranks read these files; each has its own shards below
        state = _checked_state(path, set(engines), model_hash)
    for part, engine in engines.items():
        try:
            # Frozen weights are not in the checkpoint; `digest` checks the trained ones.
            engine.load_checkpoint(str(path / part), tag="state", load_module_strict=False)
        except (*_LOAD_ERRORS, pickle.UnpicklingError) as error:
            raise UserError(
                f"checkpoint {path.name} does not fit part {part}",
                got=_last_line(error),
                fix="resume with the configuration the run was started with",
            ) from error
        if digest(engine.module) != state.digests[part]:
            raise UserError(
                f"checkpoint {path.name}: the loaded weights of {part} are not those saved",
                fix=_BEFORE,
            )
    with ranks.raise_once():
        for part, average in averages.items():
            average.load(_average(path, part))
        if ranks.is_first():
            waiting.load(path / WAITING)
    return state


def _checked_state(path: Path, parts: set[str], model_hash: str) -> State:
    try:
        state = load_config(State, path / STATE)  # JSON is YAML
    except UserError as error:
        raise UserError(f"checkpoint {path} cannot be read", got=error, fix=_BEFORE) from error
    if state.name != path.name:
        raise UserError(
            f"checkpoint {path.name} holds another step: {path / STATE}: step",
            got=state.step,
            fix=_BEFORE,
        )
    if state.world_size != ranks.size():
        raise UserError(
            f"checkpoint {path.name} was written by another number of ranks",
            got=f"NPROC={ranks.size()}",
            fix=f"resume with NPROC={state.world_size}",
        )
    if state.model_hash != model_hash:
        raise UserError(
            f"checkpoint {path.name} was trained from another starting model",
            got=f"weights {model_hash[:12]}",
            expected=f"weights {state.model_hash[:12]}",
            fix="restore the model that the run started from",
        )
    if set(state.digests) != parts:
        raise UserError(
            f"checkpoint {path.name} holds other parts",
            got=", ".join(sorted(state.digests)),
            expected=", ".join(sorted(parts)),
            fix="resume with the stages the run was started with",
        )
    sizes = _sizes(path)
    for name, size in state.files.items():
        if sizes.get(name) != size:
            raise UserError(
                f"checkpoint {path} is damaged",
                got=f"{name} with {sizes[name]} bytes" if name in sizes else f"no {name}",
                expected=f"{size} bytes",
                fix=_BEFORE,
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


def _average(folder: Path, part: str) -> Path:
    return folder / AVERAGES / f"{part}.safetensors"


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of all files of a checkpoint but its state, by relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != STATE)
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
