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
from train.distributed.pickled import Excess, check_pickle

SAFE = [LossScaler, ZeroStageEnum, fragment_address]
"""Classes in the shards of ZeRO 1 and 2 beside tensors and containers. They only hold values."""

_NAMED = [
    r"collections OrderedDict",
    r"torch (?:Size|device)",
    r"torch [A-Z]\w+Storage",
    r"torch (?:bfloat|float|u?int)[0-9]+|torch bool",
    r"torch\._utils _rebuild_tensor_v2",
    *(re.escape(f"{each.__module__} {each.__qualname__}") for each in SAFE),
]
"""What a shard names beside plain values: the parts of tensors, containers, `SAFE`."""


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
            UserError: the file holds something else or too much (`check_pickle`), or is no file of
                `torch.save`.
        """
        data = _pickle_in(Path(path))
        try:
            check_pickle(data, _NAMED)
            with torch.serialization.safe_globals(SAFE):
                return torch.load(path, map_location=map_location, weights_only=True)
        except (Excess, pickle.UnpicklingError) as error:
            raise UserError(
                f"{path} holds more than the state of an optimizer or a model",
                # The text of torch advises weights_only=False.
                got=error if isinstance(error, Excess) else "another pickle",
                fix="it was not written by EmoSym and was not read; do not use this run",
            ) from error

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


def _pickle_in(path: Path) -> bytes:
    """Return the pickle in a file of torch.save, as torch itself finds it.

    Raises:
        UserError: for what torch.save does not write: no archive, or one that inflates.
    """
    try:
        with path.open("rb") as file:  # torch reads what starts otherwise in older formats
            if file.read(4) != b"PK\x03\x04":
                raise zipfile.BadZipFile("no archive")
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > path.stat().st_size:
            raise zipfile.BadZipFile(f"{size} bytes of members")
        return torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        first = str(error).splitlines()[:1] or [type(error).__name__]
        raise UserError(f"{path} is not a file of torch.save", got=first[0]) from error
