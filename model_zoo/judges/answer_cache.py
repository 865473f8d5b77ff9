"""Answers of a served model on disk: one file each, so that ranks and runs can share them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from emosym.files import reported, write_text
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
            write_text(path, json.dumps({**asked, "answer": answer}, ensure_ascii=False))

    def _path(self, asked: Mapping[str, object]) -> Path:
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"


def _writing(folder: Path) -> AbstractContextManager[None]:
    return reported(
        f"the cache {folder} of a judge's answers cannot be written",
        fix="name a folder that you may write to, with free space",
    )
