"""Emotion label sets. Labels are mapped by name, never by position."""

from __future__ import annotations

from emosym.affect import SAM9, Affect
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
"""Mikels' eight emotions in EmoSet's order. Ref: EmoSet-118K info.json."""

SPELLINGS = {"content": "contentment", "sad": "sadness"}
"""Spellings of Mikels labels found in public datasets (Abstract, ArtPhoto)."""

NORMS = {
    "amusement": Affect(7.00, 4.82, SAM9),
    "awe": Affect(6.85, 3.83, SAM9),
    "contentment": Affect(6.62, 4.60, SAM9),
    "excitement": Affect(7.62, 6.21, SAM9),
    "anger": Affect(2.50, 5.93, SAM9),
    "disgust": Affect(3.32, 5.00, SAM9),
    "fear": Affect(2.93, 6.14, SAM9),
    "sadness": Affect(2.40, 2.81, SAM9),
}
"""Mean valence and arousal of the label words on a 1-9 scale. Ref: Warriner et al. 2013."""


def mikels(name: str) -> str:
    """Return the canonical Mikels label for a name (any case); raise UserError with the nearest."""
    label = name.strip().lower()
    label = SPELLINGS.get(label, label)
    if label not in MIKELS8:
        raise unknown("emotion", name, MIKELS8)
    return label
