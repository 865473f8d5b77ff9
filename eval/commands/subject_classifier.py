"""`python -m eval subject-classifier`: train the classifier that `eval plane` uses."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

PICTURES = 4000


def subject_classifier(
    seed: Annotated[int, typer.Option(min=0)] = 0,
    pictures: Annotated[int, typer.Option(min=64, help="Training pictures.")] = PICTURES,
    out: Annotated[
        Path | None, typer.Option(help="File of the weights; default: the shipped one.")
    ] = None,
) -> None:
    """Train on drawn pictures, print the accuracy on held-out ones, and write the weights."""
    from eval.generation.drawn_training import HELD_OUT
    from eval.generation.pixel_networks import save_weights
    from eval.generation.subject import WEIGHTS, SubjectClassifier
    from eval.generation.subject_training import held_out_accuracy, train

    path = out or WEIGHTS
    started = time.monotonic()
    classifier = SubjectClassifier(train(pictures, seed))
    accuracy = held_out_accuracy(classifier, f"held out {seed}")
    digest = save_weights(classifier.net, path)
    print(f"accuracy {accuracy:.3f} on {HELD_OUT} held-out pictures")
    print(f"{time.monotonic() - started:.0f} s, seed {seed}; {path} {digest}")
