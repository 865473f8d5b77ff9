"""Images and candidates for the tests of the bank."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from emosym.affect.taxonomies import MIKELS8
from memory_bank import Candidate, Decision, Entry, MemoryBank

DIM = 16
MODEL = "embedder-1"


def picture(number: int, kind: str = "PNG", side: int = 8) -> bytes:
    pixels = np.random.default_rng([1, number]).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def vector(number: int, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng([2, number]).normal(size=dim).astype(np.float32)


def candidate(number: int, **changes: object) -> Candidate:
    """The same number gives the same image, vector and label."""
    values: dict[str, object] = {
        "source": "synthetic" if number % 2 else "real",
        "image": picture(number),
        "embedding": vector(number),
        "emotion": MIKELS8[number % 8],
    }
    return Candidate(**(values | changes))


def refused(number: int, reason: str = "too dull") -> Decision:
    return Decision(candidate=candidate(number), admitted=False, reason=reason)


def ids(entries: Iterable[Entry]) -> list[int]:
    return [entry.id for entry in entries]


def image_names(bank: MemoryBank) -> list[str]:
    """Return the names, without suffix, of all PNG files of a bank."""
    return sorted(path.stem for path in (bank.path / "images").rglob("*.png"))


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The slow twin: [Q, D], [N, D] -> [Q, N] in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
