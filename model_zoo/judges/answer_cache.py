"""A disk cache of a remote model's answers, one file per answer, shared by ranks and runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from emosym.files import reported, write_text
from emosym.strict_json import BadJson, read_json


class AnswerCache:
    """A folder of answers, named by the hash of their request.

    A damaged file counts as absent.
    """

    def __init__(self, folder: str | Path) -> None:
        """Create the folder; raise UserError if that fails."""
        self.folder = Path(folder)
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, request: Mapping[str, object]) -> str | None:
        """Return the answer to a request (JSON data), or None."""
        try:
            stored = read_json(self._path(request).read_bytes())
        except (OSError, BadJson):
            return None
        answer = stored.get("answer") if isinstance(stored, dict) else None
        if isinstance(answer, str) and stored == {**request, "answer": answer}:
            return answer
        return None

    def put(self, request: Mapping[str, object], answer: str) -> None:
        """Write an answer under a temporary name, then rename it; raise UserError if that fails."""
        path = self._path(request)
        with _writing(self.folder):
            path.parent.mkdir(exist_ok=True)
            write_text(path, json.dumps({**request, "answer": answer}, ensure_ascii=False))

    def _path(self, request: Mapping[str, object]) -> Path:
        name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"


def _writing(folder: Path) -> AbstractContextManager[None]:
    return reported(
        f"the answer cache {folder} cannot be written",
        fix="choose a writable folder on a disk with free space",
    )
