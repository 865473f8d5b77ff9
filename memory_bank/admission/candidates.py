"""Candidates made from what a judge predicts for an image."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from PIL import Image

from emosym.affect.taxonomies import mikels
from emosym.records import Understanding
from memory_bank.store.entry import Candidate, Provenance
from memory_bank.store.images import GivenImage, contrast, fingerprint


def candidate_from(
    origin: Provenance,
    image: GivenImage,
    pixels: Image.Image,
    judgement: Understanding,
    embedding: np.ndarray,
) -> Candidate:
    """Return the candidate of an image: its origin, its judge's predictions and its statistics.

    Args:
        origin: source, requested emotion and affect, prompt, seed, model and step. Values of its
            judge, and its contrast and fingerprint, are replaced.
        image: what the bank stores.
        pixels: the decoded image, whose contrast and fingerprint are measured.
        judgement: the judge's prediction. `confidence` becomes its probability of the requested
            emotion, or of the predicted one if none was requested.
        embedding: [D], the judge's embedding of the image.

    Raises:
        UserError: as `Candidate`.
    """
    values: dict[str, Any] = {
        field.name: getattr(origin, field.name) for field in fields(Provenance)
    }
    label = judgement.emotion if origin.emotion is None else mikels(origin.emotion)
    values |= {
        "predicted": judgement.emotion,
        "predicted_valence": judgement.affect.valence,
        "predicted_arousal": judgement.affect.arousal,
        "confidence": judgement.probabilities[label],
        "contrast": contrast(pixels),
        "fingerprint": fingerprint(pixels),
    }
    return Candidate(image=image, embedding=embedding, **values)
