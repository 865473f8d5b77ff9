"""Emotion recognition by any understander, and answers in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from PIL import Image

from emosym.affect.scales import Affect
from emosym.errors import UserError
from emosym.interfaces import Prompts
from emosym.models.model import EmoSym
from emosym.models.understander import UnderstanderOutput
from emosym.records import Understanding
from emosym.rl.rollout import Rollout, sample_answers
from emosym.tasks.affect import AFFECT_PROMPT


@torch.no_grad()
def recognise(
    model: EmoSym,
    read: Callable[[Prompts], UnderstanderOutput],
    images: Iterable[Image.Image],
    *,
    batch_size: int = 32,
) -> tuple[list[Understanding], np.ndarray]:
    """Return the emotion of each image and its embedding `h_emo`, float32 [N, D].

    Args:
        model: its processor and labels are used.
        read: its understander, or a frozen copy of it.
        images: RGB, consumed batch by batch.
        batch_size: images in a batch.

    Raises:
        UserError: an output is NaN or infinite.
    """
    results: list[Understanding] = []
    embeddings = [np.empty((0, model.understander.backbone.width), np.float32)]
    stream = iter(images)
    while batch := list(islice(stream, batch_size)):
        output = read(questions(model, batch))
        results += understandings(model, output, [""] * len(batch))
        embeddings.append(output.h_emo.float().cpu().numpy())
    return results, np.concatenate(embeddings)


def generate_text(
    model: EmoSym, prompts: Prompts, max_tokens: int
) -> tuple[list[str], UnderstanderOutput]:
    """Answer prompts by greedy decoding; return the texts and the output on the prompts."""
    processor = model.processor
    rollout = Rollout(
        end_of_turn=processor.end_of_turn,
        forbidden_ids=processor.forbidden_ids,
        max_completion_length=max_tokens,
    )
    output = sample_answers(model.understander, prompts, rollout)
    return processor.decode(rollout.answers.ids, rollout.answers.mask), output


def questions(model: EmoSym, images: Sequence[Image.Image]) -> Prompts:
    """Return the tokenised question `AFFECT_PROMPT` for each image, on the model's device."""
    texts = [AFFECT_PROMPT] * len(images)
    return model.processor.prompts(texts, [[image] for image in images]).to(model.device)


def understandings(
    model: EmoSym,
    output: UnderstanderOutput,
    texts: Sequence[str],
    images: Sequence[Image.Image] = (),
) -> list[Understanding]:
    """Return the records of an output on B images and of the texts generated for them.

    With the images they also say whether each looks unlike the training images.

    Raises:
        UserError: an output is NaN or infinite.
    """
    labels = model.config.emotions
    known = model.training_images
    unlike = [known.unlike(image) for image in images] if known and images else [None] * len(texts)
    probabilities = output.emotion_logits.softmax(-1)
    affects = output.affect
    if not (probabilities.isfinite().all() and affects.isfinite().all()):
        raise UserError(
            "the model's predictions are not finite",
            fix="its weights are damaged: load another checkpoint",
        )
    return [
        Understanding(
            emotion=labels[int(row.argmax())],
            probabilities=dict(zip(labels, row.tolist(), strict=True)),
            affect=Affect(*affect),
            text=text,
            unlike_training=strange,
        )
        for text, row, affect, strange in zip(
            texts, probabilities, affects.tolist(), unlike, strict=True
        )
    ]
