"""A folder that appears whole or not at all."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emosym.errors import UserError
from emosym.files import move


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Give a temporary sibling of `out` to fill; rename it on success, else remove it.

    What a killed process left of the same `out` is removed first.

    Raises `UserError` when `out` exists and is not an empty folder, or cannot be written.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(
            f"{out} already exists and is not an empty folder",
            fix="name a new folder, or remove this one first",
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
        lock = os.open(stage, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel drops it when this process dies
    except OSError as error:
        raise UserError(
            f"cannot write {out}", got=error.strerror, fix="choose a folder you may write to"
        ) from error
    try:
        stage.chmod(0o755)  # mkdtemp makes it private; a dataset is not
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
    """Remove the temporary siblings of `out` whose process is gone: nobody holds their lock."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.????????.partial"):
        lock = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
        except BlockingIOError:
            continue  # another process is filling it
        finally:
            os.close(lock)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, indented, in the order given."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
