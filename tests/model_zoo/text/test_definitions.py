from __future__ import annotations

import json

import numpy as np
import pytest

from emosym.affect.definitions import DEFINITIONS, STORED, definition_cosines, sentence
from model_zoo.text.definitions import COMMAND, encode_definitions
from model_zoo.text.text_encoders import SENTENCE, load_text_encoder


@pytest.fixture(scope="module")
def written() -> dict:
    return json.loads(encode_definitions())


def test_what_is_stored_is_what_the_command_computes(written):
    """A definition that was changed without the command shows here."""
    stored = json.loads(STORED.read_text("utf-8"))
    assert stored.keys() == written.keys()
    assert stored["words"] == written["words"] == list(DEFINITIONS)
    assert np.abs(np.array(stored["cosines"]) - written["cosines"]).max() <= 2e-4
    assert stored["command"] == COMMAND


def test_a_cosine_is_that_of_two_sentences(written):
    encoder = load_text_encoder(SENTENCE)
    fear, anger = (encoder([sentence(word)])[0].double().numpy() for word in ("fear", "anger"))
    cosine = fear @ anger / np.sqrt((fear @ fear) * (anger @ anger))
    assert definition_cosines(("fear", "anger"))[0, 1] == pytest.approx(cosine, abs=2e-4)
