"""Sets of emotion labels. Labels are mapped by name, never by position."""

from __future__ import annotations

from emosym.affect.norms import WORDS
from emosym.affect.scales import SAM9, Affect
from emosym.errors import unknown

MIKELS8 = (
    "amusement",
    "awe",
    "contentment",
    "excitement",
    "anger",
    "disgust",
    "fear",
    "sadness",
)
"""Mikels' eight emotions in the order of EmoSet-118K's info.json."""

SPELLINGS = {"content": "contentment", "sad": "sadness"}
"""Other spellings of Mikels' labels in public datasets (Abstract, ArtPhoto)."""

NORMS = {name: Affect(*WORDS[name][:2], SAM9) for name in MIKELS8}
"""Mikels label -> mean valence and arousal of the word."""

EKMAN7 = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
"""Ekman's six emotions and neutral, in the order of EEmo-Logic's prompts."""


def mikels(name: str) -> str:
    """Return the canonical Mikels label of a name in any case or known spelling.

    Raises:
        UserError: it is none; the message names the nearest label.
    """
    label = name.strip().lower()
    label = SPELLINGS.get(label, label)
    if label not in MIKELS8:
        raise unknown("emotion", name, MIKELS8)
    return label
