"""What images evoke, without words, as any reader of prompts sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from PIL import Image

from emosym.errors import UserError
from emosym.interfaces import Prompts
from emosym.models.model import EmoSym
from emosym.models.understander import UnderstanderOutput
from emosym.records import Understanding
from emosym.tasks import prompts


@torch.no_grad()
def recognise(
    model: EmoSym,
    read: Callable[[Prompts], UnderstanderOutput],
    images: Iterable[Image.Image],
    *,
    batch_size: int = 32,
) -> tuple[list[Understanding], np.ndarray]:
    """Return what each image evokes and its embedding `h_emo`, float32 [N, D], in one reading.

    Args:
        model: whose processor and labels are used.
        read: its understander, or what that was at another time.
        images: RGB, read as they are needed.
        batch_size: images read together.

    Raises:
        UserError: what is read is not finite.
    """
    found: list[Understanding] = []
    vectors = [np.empty((0, model.understander.backbone.width), np.float32)]
    stream = iter(images)
    while batch := list(islice(stream, batch_size)):
        reading = read(questions(model, batch))
        found += understandings(model, reading, [""] * len(batch))
        vectors.append(reading.h_emo.float().cpu().numpy())
    return found, np.concatenate(vectors)


def questions(model: EmoSym, images: Sequence[Image.Image]) -> Prompts:
    """Ask what each image evokes, on the model's device."""
    asked = model.processor.prompts([prompts.UNDERSTAND] * len(images), [[im] for im in images])
    return asked.to(model.device)


def understandings(
    model: EmoSym, reading: UnderstanderOutput, texts: Sequence[str]
) -> list[Understanding]:
    """Put a reading of B images, and the model's words on them, into records.

    Raises:
        UserError: what was read is not finite.
    """
    names = model.config.emotions
    shares = reading.emotion_logits.float().softmax(-1)
    affects = reading.affect.float()
    if not (shares.isfinite().all() and affects.isfinite().all()):
        raise UserError(
            "the model sees numbers that are not finite",
            fix="its weights are damaged: load another checkpoint",
        )
    return [
        Understanding(
            emotion=names[int(share.argmax())],
            probabilities=dict(zip(names, share.tolist(), strict=True)),
            valence=float(affect[0]),
            arousal=float(affect[1]),
            answer=text,
        )
        for text, share, affect in zip(texts, shares, affects, strict=True)
    ]
