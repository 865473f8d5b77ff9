"""The files that DeepSpeed writes into a checkpoint and reads back; reading one runs no code."""

from __future__ import annotations

import contextlib
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from safetensors import SafetensorError

from emosym.errors import UserError

SAFE = [LossScaler, ZeroStageEnum, fragment_address]
"""Classes in the shards of ZeRO 1 and 2 beside tensors and containers. They only hold values."""

DEEPEST = 20
"""Maximum nesting of the values in a file; DeepSpeed writes 6 levels."""
MOST = 10_000_000
"""Maximum number of values in a file plus the characters of its texts. A value in several
containers counts once for each, because code that prints containers visits it as often."""
_CONTAINERS = (list, tuple, set, frozenset)
_LEAVES = (bytes, bool, int, float, complex, torch.Tensor, torch.dtype, torch.device, type(None))


class Shards(TorchCheckpointEngine):
    """DeepSpeed's reader and writer of files, for one engine."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._written: list[Path] = []
        self._failure: OSError | None = None

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Create a folder; `take_written` raises the error."""
        with self._noted():
            super().makedirs(path, exist_ok)

    def save(self, state_dict: Any, path: str) -> None:
        """Write a file; `take_written` raises the error: the other ranks wait in a barrier here."""
        with self._noted():
            super().save(state_dict, path)
            self._written.append(Path(path))

    def take_written(self) -> list[Path]:
        """Return what this rank wrote since the last call.

        Raises:
            OSError: a file that could not be written.
        """
        written, failure = self._written, self._failure
        self._written, self._failure = [], None
        if failure is not None:
            raise failure
        return written

    def load(self, path: str, map_location: Any = None) -> Any:
        """Read a file that holds only tensors, containers, numbers, texts and objects of `SAFE`.

        Raises:
            UserError: the file holds something else, values that are nested deeper than `DEEPEST`
                or more than `MOST`, or cannot be read.
        """
        _check_archive(Path(path))
        try:
            with torch.serialization.safe_globals(SAFE):
                state = torch.load(path, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError as error:  # torch's own text advises weights_only=False
            found = re.search(r"GLOBAL (\S+)", str(error))
            raise UserError(
                f"{path} holds more than the state of an optimizer or a model",
                got=found[1] if found else "another pickle",
                fix="it was not written by EmoSym and was not read; do not use this run",
            ) from error
        reason = _excess(state)
        if reason is not None:
            raise UserError(
                f"{path} is no state of an optimizer or a model",
                got=reason,
                fix="it was not written by EmoSym and was not used; do not use this run",
            )
        return state

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            with writing():
                yield
        except OSError as error:
            self._failure = self._failure or error


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Raise what torch and safetensors raise on a full disk as the OSError that it is."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise OSError(f"the disk took a part of a file ({line})") from error


def _check_archive(path: Path) -> None:
    """Raise UserError for what torch.save does not write: no archive, or one that inflates."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path} is not a file of torch.save", got=error) from error
    if size > path.stat().st_size:
        raise UserError(f"{path} is not a file of torch.save", got=f"{size} bytes of members")


def _excess(state: Any) -> str | None:
    """Return why a value that was read from a file must not be visited by other code, or None."""
    waiting, seen = [(state, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict):
            inner = [*value.keys(), *value.values(), *_attributes(value)]
        elif isinstance(value, _CONTAINERS):
            inner = list(value)
        elif isinstance(value, str):
            inner = []
            seen += len(value)
        elif isinstance(value, (*_LEAVES, ZeroStageEnum)):
            inner = []
        elif isinstance(value, tuple(SAFE)):
            inner = _attributes(value)
        else:
            return f"a value of type {type(value).__name__}"
        if inner and depth == DEEPEST:
            return f"values nested deeper than {DEEPEST} levels"
        seen += 1
        if seen + len(waiting) + len(inner) > MOST:
            return f"more than {MOST:,} values"
        waiting += [(item, depth + 1) for item in inner]
    return None


def _attributes(value: Any) -> list[Any]:
    """Return the attributes of an object, none for a plain container."""
    return list(getattr(value, "__dict__", {}).values())
