"""Training of a small network on pictures of AffectWorld: drawing, degrading, fitting."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_tools.affectworld.render import render
from data_tools.affectworld.scene import SUBJECTS, Scene, draw_scene
from data_tools.affectworld.world import BRIGHTNESS, SATURATION
from emosym.inference.continuity import SIDE
from eval.generation.pixel_networks import to_pixels

HELD_OUT = 1000
BATCH = 64
RATE, DECAY = 4e-3, 0.02
NOISE = 0.05
"""Largest standard deviation of the noise that is added to a picture."""


def draw(count: int, seed: str) -> tuple[Tensor, list[Scene]]:
    """Return pictures [N, 3, 64, 64] and their scenes: subjects in turn, in light independent
    of the content."""
    rng = random.Random(f"subjects {seed}")
    scenes = [
        draw_scene(
            rng,
            SUBJECTS[place % len(SUBJECTS)],
            rng.uniform(*BRIGHTNESS),
            rng.uniform(*SATURATION),
        )
        for place in range(count)
    ]
    return to_pixels([render(scene, SIDE) for scene in scenes]), scenes


def degraded(pixels: Tensor) -> Tensor:
    """Return a batch blurred at random and with noise, as generated images are."""
    soft = F.interpolate(F.avg_pool2d(pixels, 2), scale_factor=2, mode="bilinear")
    blend = torch.rand(len(pixels), 1, 1, 1) * (torch.rand(len(pixels), 1, 1, 1) < 0.5)
    noise = torch.randn_like(pixels) * NOISE * torch.rand(len(pixels), 1, 1, 1)
    return (torch.lerp(pixels, soft, blend) + noise).clamp(0, 1)


def fit(
    net: nn.Module, pixels: Tensor, loss_of: Callable[[Any, Tensor], Tensor], epochs: int
) -> None:
    """Train a network on degraded pictures; `loss_of` takes its output and the pictures' rows."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    steps = len(pixels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(pixels))[: steps * BATCH].view(-1, BATCH):
            loss = loss_of(net(degraded(pixels[rows])), rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
