"""`python -m eval attribute-reader`: train the reader of AffectWorld's visual attributes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

PICTURES = 8000


def attribute_reader(
    seed: Annotated[int, typer.Option(min=0)] = 0,
    pictures: Annotated[int, typer.Option(min=64, help="Training pictures.")] = PICTURES,
    out: Annotated[
        Path | None, typer.Option(help="File of the weights; default: the shipped one.")
    ] = None,
) -> None:
    """Train on drawn pictures, print the accuracies on held-out ones, and write the weights."""
    from eval.generation.attribute_training import accuracy, train
    from eval.generation.attributes import WEIGHTS, AttributeReader
    from eval.generation.drawn_training import HELD_OUT, degraded, draw
    from eval.generation.pixel_networks import save_weights
    from eval.generation.subject import SubjectClassifier

    path = out or WEIGHTS
    started = time.monotonic()
    reader = AttributeReader(train(pictures, seed), SubjectClassifier.load())
    pixels, scenes = draw(HELD_OUT, f"held out {seed}")
    clean = accuracy(reader, pixels, scenes)
    worse = accuracy(reader, degraded(pixels), scenes)
    digest = save_weights(reader.net, path)
    print(f"accuracy on {HELD_OUT} held-out pictures, and on the same with blur and noise")
    for name in clean:
        print(f"{name:11} {clean[name]:.3f} {worse[name]:.3f}")
    print(f"{time.monotonic() - started:.0f} s, seed {seed}; {path} {digest}")
