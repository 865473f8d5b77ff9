"""Training of the attribute reader on pictures of AffectWorld."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from data_tools.affectworld.scene import Scene
from eval.generation.attributes import (
    CLASSES,
    HUES,
    AttributeNet,
    AttributeReader,
    agreement,
    true_attributes,
)
from eval.generation.drawn_training import draw, fit

EPOCHS = 6
SMOOTHING = 0.05


def train(pictures: int, seed: int, epochs: int = EPOCHS) -> AttributeNet:
    """Train on `pictures` drawings; the same seed gives the same weights on one machine."""
    torch.manual_seed(seed)
    net = AttributeNet().train()
    pixels, scenes = draw(pictures, f"learned {seed}")
    wanted = targets(scenes)

    def loss_of(outputs: dict[str, Tensor], rows: Tensor) -> Tensor:
        losses = [(outputs[name] - wanted[name][rows]).square().sum(1).mean() for name in HUES]
        losses += [
            F.cross_entropy(outputs[name], wanted[name][rows], label_smoothing=SMOOTHING)
            for name in CLASSES
        ]
        return torch.stack(losses).sum()

    fit(net, pixels, loss_of, epochs)
    return net


def targets(scenes: list[Scene]) -> dict[str, Tensor]:
    """Return (cos, sin) of hues [N, 2] and indices of classes [N]."""
    true = true_attributes(scenes)
    wanted = {}
    for name in HUES:
        angles = 2 * math.pi * torch.from_numpy(getattr(true, name)).float()
        wanted[name] = torch.stack([angles.cos(), angles.sin()], 1)
    for name, words in CLASSES.items():
        wanted[name] = torch.tensor([words.index(word) for word in getattr(true, name)])
    return wanted


def accuracy(reader: AttributeReader, pixels: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """Return the share of pictures of which each attribute is read as it was drawn."""
    right = agreement(reader.read(pixels), true_attributes(scenes))
    return {name: float(rows.mean()) for name, rows in right.items()}
