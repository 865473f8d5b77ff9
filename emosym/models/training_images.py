"""How the images look that a model was trained on, to tell others from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from emosym.errors import UserError
from emosym.pictures.appearance import SIZE, appearance

FEWEST = 100
"""Images below which nothing can be said about others."""
SHRINKAGE = 0.1
"""Share of the identity in the correlation matrix. Ref: Ledoit & Wolf 2004, shrinkage."""
QUANTILE, MARGIN = 0.99, 1.25
"""An image is unlike if it is farther away than this quantile of the training images, times this
margin, which other images of the same kind need."""


class TrainingImages:
    """Moments of the `appearance` of training images, and the largest usual distance from them."""

    def __init__(
        self, mean: NDArray, scale: NDArray, precision: NDArray, largest: float | None = None
    ) -> None:
        self.mean, self.scale, self.precision = mean, scale, precision
        self.largest = largest

    @classmethod
    def fit(cls, images: Iterable[Image.Image]) -> TrainingImages | None:
        """Return the moments of RGB images; None for fewer than `FEWEST`."""
        rows = np.array([appearance(image) for image in images])
        if len(rows) < FEWEST:
            return None
        mean, scale = rows.mean(0), rows.std(0) + 1e-6
        correlation = np.cov(((rows - mean) / scale).T)
        shrunk = (1 - SHRINKAGE) * correlation + SHRINKAGE * np.eye(SIZE)
        fitted = cls(mean, scale, np.linalg.inv(shrunk))
        usual = np.quantile([fitted._distance(row) for row in rows], QUANTILE)
        fitted.largest = MARGIN * float(usual)
        return fitted

    def unlike(self, image: Image.Image) -> bool:
        """Return whether an RGB image looks unlike the images that the model was trained on."""
        return self.largest is not None and self._distance(appearance(image)) > self.largest

    def _distance(self, row: NDArray) -> float:
        """Return the squared Mahalanobis distance of an appearance, divided by its size."""
        shift = (row - self.mean) / self.scale
        return float(shift @ self.precision @ shift) / SIZE

    def state_dict(self) -> dict[str, Tensor]:
        """Return the moments as tensors."""
        arrays = {
            "mean": self.mean,
            "scale": self.scale,
            "precision": self.precision,
            "largest": np.array([self.largest]),
        }
        return {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> TrainingImages:
        """Return the moments of tensors; raise UserError for others than `state_dict` returns."""
        shapes = {"mean": [SIZE], "scale": [SIZE], "precision": [SIZE, SIZE], "largest": [1]}
        found = {name: list(tensor.shape) for name, tensor in state.items()}
        if found != shapes or not all(tensor.isfinite().all() for tensor in state.values()):
            raise UserError(
                "the statistics of the training images do not fit",
                got=found,
                expected=f"finite tensors {shapes}",
                fix="delete the file, or train the model again",
            )
        arrays = {name: tensor.double().numpy() for name, tensor in state.items()}
        largest = float(arrays.pop("largest")[0])
        return cls(**arrays, largest=largest)
