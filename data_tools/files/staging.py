"""Writing a folder that appears completely or not at all."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emosym.errors import UserError
from emosym.files import move
from emosym.strict_json import to_json


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; on success rename it to `out`, else remove it.

    Temporary folders that killed processes left for the same `out` are removed first.

    Raises:
        UserError: `out` exists and is not an empty folder, or cannot be written.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(
            f"{out} already exists and is not an empty folder",
            fix="choose a new folder, or remove this one first",
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
        lock = os.open(stage, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it when this process ends
    except OSError as error:
        raise UserError(
            f"cannot write {out}", got=error.strerror, fix="choose a writable folder"
        ) from error
    try:
        stage.chmod(0o755)  # mkdtemp makes it private
        yield stage
        move(stage, out, many_files=True)
    except OSError as error:
        raise UserError(
            f"cannot write {out}", got=error, fix="check free space and permissions"
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        os.close(lock)


def _sweep(out: Path) -> None:
    """Remove the temporary folders of `out` that no running process has locked."""
    for leftover in out.parent.glob(f".{glob.escape(out.name)}.????????.partial"):
        lock = os.open(leftover, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover)
        except BlockingIOError:
            continue  # another process is filling it
        finally:
            os.close(lock)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, indented, with keys in the given order."""
    path.write_text(to_json(value, indent=2) + "\n", encoding="utf-8")
