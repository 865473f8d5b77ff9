"""`make subject-classifier`: draw pictures, train the subject classifier, write its weights."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from safetensors.torch import save
from torch import Tensor

from data_tools.affectworld.render import render
from data_tools.affectworld.scene import SUBJECTS, draw_scene
from data_tools.affectworld.world import BRIGHTNESS, SATURATION
from emosym.console import guard
from emosym.files import write_file
from emosym.inference.continuity import SIDE
from eval.generation.subject import WEIGHTS, SubjectClassifier, SubjectNet, to_pixels

PICTURES, HELD_OUT = 4000, 1000
EPOCHS, BATCH = 8, 64
RATE, DECAY, SMOOTHING = 4e-3, 0.02, 0.1
NOISE = 0.05
"""Most standard deviation of the noise laid over a picture."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    seed: Annotated[int, typer.Option(min=0)] = 0,
    pictures: Annotated[int, typer.Option(min=BATCH, help="Pictures to learn from.")] = PICTURES,
    out: Annotated[Path, typer.Option(help="File of the weights.")] = WEIGHTS,
) -> None:
    """Train on drawn pictures, print the accuracy on others, and write the weights."""
    begun = time.monotonic()
    classifier = SubjectClassifier(train(pictures, seed))
    accuracy = held_out_accuracy(classifier, f"held out {seed}")
    write_file(out, save(classifier.net.state_dict()))
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    print(f"{accuracy:.3f} of {HELD_OUT} drawn pictures it never saw, light of the world")
    print(f"{time.monotonic() - begun:.0f} s, seed {seed}; {out} {digest}")


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
            logits = net(spoiled(pixels[rows]))
            loss = F.cross_entropy(logits, subjects[rows], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net


def draw(count: int, seed: str) -> tuple[Tensor, Tensor]:
    """Return pictures [N, 3, 64, 64] and their subjects [N], all subjects in all light alike."""
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


def spoiled(pixels: Tensor) -> Tensor:
    """Return a batch as generated images are worse than drawn ones: soft at times, and noisy."""
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


if __name__ == "__main__":
    guard.run(app, "python -m eval.generation.subject_training")
