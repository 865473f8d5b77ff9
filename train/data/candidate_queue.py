"""Candidates that wait for their admission to the memory bank, in memory and in checkpoints."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emosym.errors import UserError
from emosym.strict_json import read_json
from memory_bank import Candidate
from memory_bank.store.entry import Provenance

FACTS = tuple(field.name for field in fields(Provenance))


class CandidateQueue:
    """Generated and judged candidates that wait for `admission.delay` steps; on rank 0 only."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []

    def due(self, step: int, delay: int) -> list[Candidate]:
        """Remove and return the candidates whose delay has passed at a step."""
        due = [one for one in self.candidates if _drawn_at(one) + delay <= step]
        self.candidates = [one for one in self.candidates if _drawn_at(one) + delay > step]
        return due

    def save(self, path: Path) -> None:
        """Write the queue: images and embeddings as tensors, all other fields as JSON."""
        tensors = {}
        for place, one in enumerate(self.candidates):
            tensors[f"{place}.image"] = np.asarray(one.image)
            tensors[f"{place}.embedding"] = np.asarray(one.embedding)
        known = [{name: getattr(one, name) for name in FACTS} for one in self.candidates]
        save_file(tensors, path, {"known": json.dumps(known)})

    def load(self, path: Path) -> None:
        """Read what `save` wrote, bit for bit; the queue is empty if there is no file.

        Raises:
            UserError: a file that `save` did not write.
        """
        self.candidates = []
        if not path.is_file():
            return
        try:
            with safe_open(path, "np") as file:
                self.candidates = [
                    Candidate(
                        image=Image.fromarray(file.get_tensor(f"{place}.image")),
                        embedding=file.get_tensor(f"{place}.embedding"),
                        **known,
                    )
                    for place, known in enumerate(_known(file.metadata()))
                ]
            for one in self.candidates:
                _drawn_at(one)
        except (SafetensorError, KeyError, TypeError, ValueError, UserError) as error:
            self.candidates = []
            raise UserError(
                f"{path} does not hold candidates", got=error, fix="resume from another checkpoint"
            ) from error


def _known(metadata: Any) -> list[dict[str, Any]]:
    found = read_json(metadata["known"])
    if not isinstance(found, list):
        raise TypeError("the facts are no list")
    return found


def _drawn_at(candidate: Candidate) -> int:
    if not isinstance(candidate.step, int):
        raise ValueError("a candidate in the queue needs the step that generated it")
    return candidate.step
