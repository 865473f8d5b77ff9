"""Answers of a served model on disk: one file each, so that ranks and runs can share them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from emosym.errors import UserError
from emosym.strict_json import BadJson, read_json


class AnswerCache:
    """A folder of answers by the hash of what was asked.

    A file that is damaged counts as absent: the question is asked again.
    """

    def __init__(self, folder: str | Path) -> None:
        """Make the folder; raise UserError where that is not possible."""
        self.folder = Path(folder)
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, asked: Mapping[str, object]) -> str | None:
        """Return the answer to what was asked (plain data), or None."""
        try:
            held = read_json(self._path(asked).read_bytes())
        except (OSError, BadJson):
            return None
        answer = held.get("answer") if isinstance(held, dict) else None
        return answer if isinstance(answer, str) and held == {**asked, "answer": answer} else None

    def put(self, asked: Mapping[str, object], answer: str) -> None:
        """Write an answer under a temporary name, then rename; raise UserError where it cannot."""
        path = self._path(asked)
        with _writing(self.folder):
            path.parent.mkdir(exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    json.dump({**asked, "answer": answer}, stream, ensure_ascii=False)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

    def _path(self, asked: Mapping[str, object]) -> Path:
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the cache {folder} of a judge's answers cannot be written",
            got=error.strerror,
            fix="name a folder that you may write to, with free space",
        ) from error
