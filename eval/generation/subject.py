"""Which of AffectWorld's subjects an image shows: a small classifier trained on drawings alone.

Its weights are shipped, so that all measurements use the same classifier: `subject.safetensors`,
trained by `make subject-classifier` with seed 0, SHA-256
`018c6d38460864a8552a8c8168f3da73cf816912abb8c88e46d6b498868d26bb`. It is trained on no generated
image and is never a reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from data_tools.affectworld.scene import SUBJECTS
from eval.generation.pixel_networks import (
    BATCH,
    WIDTHS,
    convolutions,
    load_weights,
    standardised,
    to_pixels,
)

WEIGHTS = Path(__file__).with_name("subject.safetensors")


class SubjectNet(nn.Module):
    """Four convolutions of stride 2, the maximum over positions, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = convolutions(3)
        self.head = nn.Linear(WIDTHS[-1], len(SUBJECTS))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [B, 10] of pixels [B, 3, 64, 64] in [0, 1]."""
        # The light and the contrast of a picture do not depend on its subject.
        return self.head(self.features(standardised(pixels)).amax((2, 3)))


class SubjectClassifier:
    """The trained classifier."""

    def __init__(self, net: SubjectNet) -> None:
        self.net = net.eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> SubjectClassifier:
        """Load weights; raise UserError for a file that does not hold them."""
        net = SubjectNet()
        load_weights(net, path, owner="subject classifier", fix="make subject-classifier")
        return cls(net)

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        """Return the likeliest of `SUBJECTS` for each image."""
        return self.read(to_pixels(images)) if images else []

    @torch.no_grad()
    def read(self, pixels: Tensor) -> list[str]:
        """Return the likeliest of `SUBJECTS` for each picture of pixels [N, 3, 64, 64]."""
        return [
            SUBJECTS[index]
            for rows in pixels.split(BATCH)
            for index in self.net(rows).argmax(1).tolist()
        ]
