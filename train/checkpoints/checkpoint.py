"""Checkpoints: all ranks write under a temporary name, then rank 0 renames the folder.

Every file has its SHA-256 in `SHA256SUMS`, and nothing is read from a checkpoint before all of them
are verified. Each rank verifies a share, so that each file is read once for it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emosym.config import load_config
from emosym.errors import UserError
from emosym.files import move, remove, replace_folder
from train.checkpoints import files
from train.checkpoints.files import list_checkpoints
from train.data.candidate_queue import CandidateQueue
from train.distributed import ranks
from train.distributed.ema import WeightAverage
from train.distributed.launcher import resume_command
from train.distributed.shards import writing

STATE = "state.json"
AVERAGES = "averages"
"""Folder of the averages in a checkpoint, a file for each part that has one."""
WAITING = "waiting.safetensors"
"""File of the candidates that wait for their admission to the bank; absent if there are none."""


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
        )

    @property
    def name(self) -> str:
        """The name of its checkpoint."""
        return files.name_of(self.step)


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
    target = folder / state.name
    if ranks.any_rank(target.exists()):
        return target
    temporary = folder / f".{state.name}.tmp"
    try:
        with ranks.raise_together():
            if ranks.is_first():
                _sweep(folder)
                temporary.mkdir(parents=True)
        shards = ranks.collect(lambda: _write_shards(temporary, state, engines))
        sums = {name: value for own in shards for name, value in own.items()}
        with ranks.raise_together():
            if ranks.is_first():
                _finish(temporary, state, averages, waiting, sums)
                move(temporary, target)
                for old in list_checkpoints(folder)[:-keep]:
                    # Renamed first, so that a kill leaves no checkpoint with files missing.
                    remove(old.rename(folder / f".{old.name}.tmp"))
    except OSError as error:
        raise UserError(
            f"checkpoint {target} cannot be written",
            got=_last_line(error),
            fix="free some space; older checkpoints are untouched, resume continues from them",
        ) from error
    finally:
        if ranks.is_first():
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _write_shards(folder: Path, state: State, engines: dict[str, Any]) -> dict[str, str]:
    """Write what DeepSpeed writes; return the hashes of this rank's files. Raises OSError."""
    for part, engine in engines.items():
        engine.save_checkpoint(
            str(folder / part), tag="state", save_latest=False, exclude_frozen_parameters=True
        )
        state.digests[part] = digest(engine.module)
    written = [path for e in engines.values() for path in e.checkpoint_engine.take_written()]
    return {_name(path, folder): files.sha256(path) for path in written}


def _finish(
    folder: Path,
    state: State,
    averages: dict[str, WeightAverage],
    waiting: CandidateQueue,
    sums: dict[str, str],
) -> None:
    """Write what rank 0 alone writes, and the hashes of all files. Raises OSError."""
    own = [folder / STATE]
    own[0].write_text(json.dumps(asdict(state), indent=2) + "\n")
    with writing():
        for part, average in averages.items():
            own.append(_average(folder, part))
            average.save(own[-1])
        if waiting.candidates:
            own.append(folder / WAITING)
            waiting.save(own[-1])
    files.write_sums(folder, sums | {_name(path, folder): files.sha256(path) for path in own})


def _sweep(folder: Path) -> None:
    """Delete what killed saves left."""
    for stale in folder.glob(".step-*.tmp"):
        remove(stale)


def find(folder: Path, name: str | None) -> Path | None:
    """Return the checkpoint of a name, or the last one, or None where there is none.

    Raises:
        UserError: no checkpoint has the name.
    """
    saved = list_checkpoints(folder)
    if name is None:
        return saved[-1] if saved else None
    for path in saved:
        if path.name == name:
            return path
    known = ", ".join(path.name for path in saved) or "no checkpoint"
    raise UserError(f"{folder} has no checkpoint {name!r}", expected=f"one of {known}")


def set_aside(folder: Path, last: str) -> list[Path]:
    """Rename the checkpoints after `last`, which a run is about to leave, and return the new names.

    Their steps will be trained and saved again. Raises OSError.
    """
    moved = []
    for path in list_checkpoints(folder):
        if path.name > last:
            moved.append(path.with_name(f"{path.name}.superseded"))
            replace_folder(path, moved[-1])
    return moved


def load(
    path: Path,
    engines: dict[str, Any],
    averages: dict[str, WeightAverage],
    waiting: CandidateQueue,
    model_hash: str,
) -> State:
    """Load a checkpoint into engines, averages and queue, and check that it is what was saved.

    No file can run code, whoever wrote it.

    Raises:
        UserError: a file that is damaged, missing or not ours; another number of ranks, another
            starting model, parts or shapes that differ; weights that differ.
    """
    fix = _advice(path)
    with ranks.raise_together():
        sums = files.listed(path, fix)
    with ranks.raise_together():
        for name in sorted(sums)[ranks.rank() :: ranks.size()]:
            files.check_file(path, name, sums[name], fix)
    with ranks.raise_together():
        state = read_state(path)
        _check_state(state, path, set(engines), model_hash)
    for part, engine in engines.items():
        try:
            # Frozen weights are not in the checkpoint; `digest` checks the trained ones.
            engine.load_checkpoint(str(path / part), tag="state", load_module_strict=False)
        except UserError:
            raise
        except Exception as error:  # DeepSpeed checks little: other shapes and types raise anything
            if ranks.lost_peer(error):
                raise
            raise UserError(
                f"checkpoint {path.name} does not fit part {part}",
                got=_last_line(error),
                fix="resume with the configuration the run was started with",
            ) from error
        if digest(engine.module) != state.digests[part]:
            raise UserError(
                f"checkpoint {path.name}: the loaded weights of {part} are not those saved", fix=fix
            )
    with ranks.raise_together():
        for part, average in averages.items():
            average.load(_average(path, part))
        if ranks.is_first():
            waiting.load(path / WAITING)
    return state


def read_state(path: Path) -> State:
    """Return the state in a checkpoint; raise UserError for one that cannot be its own."""
    try:
        state = load_config(State, path / STATE)  # JSON is YAML
    except UserError as error:
        raise UserError(
            f"checkpoint {path} cannot be read", got=error, fix=_advice(path)
        ) from error
    if state.name != path.name:
        raise UserError(
            f"checkpoint {path.name} holds another step: {path / STATE}: step",
            got=state.step,
            fix=_advice(path),
        )
    return state


def _check_state(state: State, path: Path, parts: set[str], model_hash: str) -> None:
    """Raise UserError for the checkpoint of another run, or of another number of ranks."""
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


def _advice(path: Path) -> str:
    """Return what to do about a checkpoint that cannot be used."""
    before = [other for other in list_checkpoints(path.parent) if other.name < path.name]
    if not before:
        return "there is no earlier checkpoint; start a new run"
    command = resume_command(path.parent.parent, before[-1].name)
    return f"continue from the one before with {command}"


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


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
