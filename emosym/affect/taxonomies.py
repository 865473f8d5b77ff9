"""Emotion label sets. Labels are mapped by name, never by position."""

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
"""Mikels' eight emotions in EmoSet's order. Ref: EmoSet-118K info.json."""

SPELLINGS = {"content": "contentment", "sad": "sadness"}
"""Spellings of Mikels labels found in public datasets (Abstract, ArtPhoto)."""

NORMS = {name: Affect(*WORDS[name][:2], SAM9) for name in MIKELS8}
"""Mean valence and arousal of the label words."""

EKMAN7 = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
"""Ekman's six and neutral, in the order of EEmo-Logic's prompts."""

PLUTCHIK24 = (
    "acceptance",
    "admiration",
    "amazement",
    "anger",
    "annoyance",
    "anticipation",
    "apprehension",
    "boredom",
    "disgust",
    "distraction",
    "ecstasy",
    "fear",
    "grief",
    "interest",
    "joy",
    "loathing",
    "pensiveness",
    "rage",
    "sadness",
    "serenity",
    "surprise",
    "terror",
    "trust",
    "vigilance",
)
"""Plutchik's eight in three strengths. Ref: FindingEmo."""

EMOTIC26 = (
    "affection",
    "anger",
    "annoyance",
    "anticipation",
    "aversion",
    "confidence",
    "disapproval",
    "disconnection",
    "disquietment",
    "doubt/confusion",
    "embarrassment",
    "engagement",
    "esteem",
    "excitement",
    "fatigue",
    "fear",
    "happiness",
    "pain",
    "peace",
    "pleasure",
    "sadness",
    "sensitivity",
    "suffering",
    "surprise",
    "sympathy",
    "yearning",
)
"""Ref: EMOTIC."""


def mikels(name: str) -> str:
    """Return the canonical Mikels label for a name (any case); raise UserError with the nearest."""
    label = name.strip().lower()
    label = SPELLINGS.get(label, label)
    if label not in MIKELS8:
        raise unknown("emotion", name, MIKELS8)
    return label
