"""Cosines between the definitions of emotion words, encoded by the sentence encoder."""

from __future__ import annotations

import json

from torch import Tensor

from emosym.affect.definitions import DEFINITIONS, sentence
from model_zoo.text.text_encoders import SENTENCE, load_text_encoder

COMMAND = "python -m model_zoo definitions"


def definition_vectors() -> Tensor:
    """Return the unit vectors [Y, P] of all definitions, in the order of `DEFINITIONS`.

    Raises:
        UserError: the extra `text` is not installed.
    """
    return load_text_encoder(SENTENCE)(list(map(sentence, DEFINITIONS)))


def encode_definitions() -> str:
    """Return the JSON that `emosym.affect.definitions` reads: words, and cosines (4 decimals)."""
    vectors = definition_vectors()
    rows = [[round(value, 4) for value in row] for row in (vectors @ vectors.T).tolist()]
    listed = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    return (
        "{\n"
        f' "command": {json.dumps(COMMAND)},\n'
        ' "encoder": "all-MiniLM-L6-v2",\n'
        f' "words": {json.dumps(list(DEFINITIONS))},\n'
        f' "cosines": [\n{listed}\n ]\n'
        "}\n"
    )
