"""A candidate from an image, its origin and a judge's prediction."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from emosym.affect.scales import Affect
from emosym.errors import UserError
from emosym.records import Understanding
from memory_bank import Candidate, Provenance, candidate_from, contrast, fingerprint

JUDGEMENT = Understanding(
    emotion="awe", probabilities={"awe": 0.7, "fear": 0.3}, affect=Affect(1.5, -0.5), text=""
)
PIXELS = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


def test_a_candidate_has_its_origin_and_its_judgement():
    origin = Provenance(
        source="synthetic",
        emotion="Fear",
        valence=-1.0,
        arousal=2.0,
        scores={"clip": 0.25},
        prompt="a cat",
        seed=3,
        model_hash="m",
        step=4,
        predicted="anger",
        confidence=0.1,
    )
    made = candidate_from(origin, b"file", PIXELS, JUDGEMENT, np.ones(2))
    assert (made.image, made.embedding.tolist()) == (b"file", [1.0, 1.0])
    assert (made.source, made.emotion, made.valence, made.arousal) == ("synthetic", "fear", -1, 2)
    assert (made.scores, made.prompt, made.seed) == ({"clip": 0.25}, "a cat", 3)
    assert (made.model_hash, made.step) == ("m", 4)
    assert (made.predicted, made.predicted_valence, made.predicted_arousal) == ("awe", 1.5, -0.5)
    assert (made.affect, made.predicted_affect) == (Affect(-1, 2), Affect(1.5, -0.5))
    assert made.confidence == 0.3  # of the requested emotion
    assert (made.contrast, made.fingerprint) == (contrast(PIXELS), fingerprint(PIXELS))


def test_without_a_request_the_confidence_is_that_of_the_prediction():
    made = candidate_from(Provenance(source="real"), PIXELS, PIXELS, JUDGEMENT, np.ones(2))
    assert (made.emotion, made.confidence) == (None, 0.7)


def test_a_candidate_can_be_the_origin_of_its_judged_self():
    draft = Candidate(source="real", emotion="awe", image=PIXELS, embedding=np.empty(0))
    made = candidate_from(draft, draft.image, PIXELS, JUDGEMENT, np.ones(2))
    assert made.image is PIXELS
    assert (made.emotion, made.confidence, made.embedding.size) == ("awe", 0.7, 2)


def test_what_cannot_be_kept_is_refused():
    half = Provenance(source="real", valence=1.0)
    with pytest.raises(UserError, match="valence and arousal belong together"):
        candidate_from(half, PIXELS, PIXELS, JUDGEMENT, np.ones(2))
