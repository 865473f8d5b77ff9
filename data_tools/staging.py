"""A folder that appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emosym.errors import UserError


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Give a temporary sibling of `out` to fill; rename it on success, else remove it.

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
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise UserError(
            f"cannot write {out}", got=error.strerror, fix="choose a folder you may write to"
        ) from error
    try:
        stage.chmod(0o755)  # mkdtemp makes it private; a dataset is not
        yield stage
        os.rename(stage, out)
    except OSError as error:
        raise UserError(
            f"cannot write {out}", got=error.strerror, fix="check free space and permissions"
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file and make sure that it is on disk before the folder is renamed."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, indented, in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
