"""Training of the subject classifier on pictures of AffectWorld."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import Tensor

from data_tools.affectworld.render import render
from data_tools.affectworld.scene import SUBJECTS, draw_scene
from data_tools.affectworld.world import BRIGHTNESS, SATURATION
from emosym.inference.continuity import SIDE
from eval.generation.subject import SubjectClassifier, SubjectNet, to_pixels

HELD_OUT = 1000
EPOCHS, BATCH = 8, 64
RATE, DECAY, SMOOTHING = 4e-3, 0.02, 0.1
NOISE = 0.05
"""Largest standard deviation of the noise that is added to a picture."""


def train(pictures: int, seed: int, epochs: int = EPOCHS) -> SubjectNet:
    """Train on `pictures` drawings; the same seed gives the same weights on one machine."""
    torch.manual_seed(seed)
    net = SubjectNet().train()
    pixels, subjects = draw(pictures, f"learned {seed}")
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    total = epochs * (pictures // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=total)
    for _ in range(epochs):
        for rows in torch.randperm(pictures)[: pictures // BATCH * BATCH].view(-1, BATCH):
            logits = net(degraded(pixels[rows]))
            loss = F.cross_entropy(logits, subjects[rows], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net


def draw(count: int, seed: str) -> tuple[Tensor, Tensor]:
    """Return pictures [N, 3, 64, 64] and their subjects [N], in light independent of them."""
    rng = random.Random(f"subjects {seed}")
    subjects = [place % len(SUBJECTS) for place in range(count)]
    images = [
        render(
            draw_scene(rng, SUBJECTS[subject], rng.uniform(*BRIGHTNESS), rng.uniform(*SATURATION)),
            SIDE,
        )
        for subject in subjects
    ]
    return to_pixels(images), torch.tensor(subjects)


def degraded(pixels: Tensor) -> Tensor:
    """Return a batch blurred at random and with noise, as generated images are."""
    soft = F.interpolate(F.avg_pool2d(pixels, 2), scale_factor=2, mode="bilinear")
    blend = torch.rand(len(pixels), 1, 1, 1) * (torch.rand(len(pixels), 1, 1, 1) < 0.5)
    noise = torch.randn_like(pixels) * NOISE * torch.rand(len(pixels), 1, 1, 1)
    return (torch.lerp(pixels, soft, blend) + noise).clamp(0, 1)


def held_out_accuracy(classifier: SubjectClassifier, seed: str, count: int = HELD_OUT) -> float:
    """Return the share of freshly drawn pictures whose subject is named."""
    pixels, subjects = draw(count, seed)
    with torch.no_grad():
        named = torch.cat([classifier.net(rows).argmax(1) for rows in pixels.split(256)])
    return float((named == subjects).float().mean())
