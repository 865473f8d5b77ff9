"""Training of the subject classifier on pictures of AffectWorld."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_tools.affectworld.scene import SUBJECTS
from eval.generation.drawn_training import HELD_OUT, draw, fit
from eval.generation.subject import SubjectClassifier, SubjectNet

EPOCHS = 8
SMOOTHING = 0.1


def train(pictures: int, seed: int, epochs: int = EPOCHS) -> SubjectNet:
    """Train on `pictures` drawings; the same seed gives the same weights on one machine."""
    torch.manual_seed(seed)
    net = SubjectNet().train()
    pixels, scenes = draw(pictures, f"learned {seed}")
    subjects = torch.tensor([SUBJECTS.index(scene.subject) for scene in scenes])

    def loss_of(logits: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(logits, subjects[rows], label_smoothing=SMOOTHING)

    fit(net, pixels, loss_of, epochs)
    return net


def held_out_accuracy(classifier: SubjectClassifier, seed: str, count: int = HELD_OUT) -> float:
    """Return the share of freshly drawn pictures whose subject is named."""
    pixels, scenes = draw(count, seed)
    named = classifier.read(pixels)
    return float(
        np.mean([name == scene.subject for name, scene in zip(named, scenes, strict=True)])
    )
