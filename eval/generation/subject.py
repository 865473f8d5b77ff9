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
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from data_tools.affectworld.scene import SUBJECTS
from emosym.errors import UserError
from emosym.inference.continuity import small_pixels

WEIGHTS = Path(__file__).with_name("subject.safetensors")
WIDTHS = (24, 48, 72, 96)
BATCH = 256


class SubjectNet(nn.Module):
    """Four convolutions of stride 2, the maximum over positions, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(WIDTHS[-1], len(SUBJECTS))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [B, 10] of pixels [B, 3, 64, 64] in [0, 1]."""
        # The light and the contrast of a picture do not depend on its subject.
        mean = pixels.mean((1, 2, 3), keepdim=True)
        spread = pixels.std((1, 2, 3), keepdim=True)
        return self.head(self.features((pixels - mean) / (spread + 0.05)).amax((2, 3)))


class SubjectClassifier:
    """The trained classifier."""

    def __init__(self, net: SubjectNet) -> None:
        self.net = net.eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> SubjectClassifier:
        """Load weights; raise UserError for a file that does not hold them."""
        net = SubjectNet()
        try:
            net.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise UserError(
                f"cannot read {path}",
                got=str(error).partition("\n")[0],
                expected="weights of the subject classifier",
                fix="make subject-classifier",
            ) from error
        return cls(net)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        """Return the likeliest of `SUBJECTS` for each image."""
        found: list[str] = []
        for start in range(0, len(images), BATCH):
            logits = self.net(to_pixels(images[start : start + BATCH]))
            found += [SUBJECTS[place] for place in logits.argmax(1).tolist()]
        return found


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """Return images as float32 [N, 3, 64, 64] in [0, 1], larger ones averaged down."""
    return torch.from_numpy(small_pixels(images)).permute(0, 3, 1, 2).contiguous()
