"""Validation of embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emosym.errors import UserError


def check_vectors(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Return one vector [D] or several [N, D] as float32 of the same shape.

    Raises `UserError` for another dimension, for NaN or infinity, and for a zero vector.
    """
    array = np.asarray(vectors)
    if array.ndim not in (1, 2) or array.shape[-1] != dim:
        raise UserError(
            "embedding of the wrong shape", got=list(array.shape), expected=f"dimension {dim}"
        )
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError("embedding with NaN or infinite values", expected="finite values")
    if not array.any(axis=-1).all():
        raise UserError("embedding is a zero vector", expected="a vector with a direction")
    return array


def check_vector(vector: np.ndarray, dim: int) -> np.ndarray:
    """Return exactly one vector as float32 [D]. Raises as `check_vectors`."""
    return check_each([vector], dim)[0]


def check_each(vectors: Sequence[np.ndarray], dim: int) -> np.ndarray:
    """Return a sequence of vectors [D] as float32 [N, D]. Raises as `check_vectors`."""
    for vector in vectors:
        if np.shape(vector) != (dim,):
            raise UserError(
                "embedding of the wrong shape",
                got=list(np.shape(vector)),
                expected=f"one vector of dimension {dim}",
            )
    return check_vectors(np.array(vectors).reshape(-1, dim), dim)
