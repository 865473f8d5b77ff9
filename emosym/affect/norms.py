"""Norms of emotion words: mean valence, arousal and dominance on the scale 1-9 (`scales.SAM9`).

Ref: Warriner, Kuperman & Brysbaert 2013 (doi 10.3758/s13428-012-0314-x), table of norms; the 52
words are those of EEmo-Logic (arXiv 2602.01173).
"""

from __future__ import annotations

DEVIATIONS: dict[str, tuple[float, float, float]] = {
    "amusement": (1.56, 2.70, 2.17),
    "awe": (1.79, 2.85, 1.79),
    "contentment": (2.27, 2.87, 2.02),
    "excitement": (1.38, 2.50, 2.28),
    "anger": (1.36, 2.77, 2.80),
    "disgust": (2.40, 2.35, 2.34),
    "fear": (1.79, 2.76, 2.44),
    "sadness": (1.10, 2.25, 2.79),
}
"""Word -> standard deviations over raters, for Mikels' eight labels, on the same scale."""

WORDS: dict[str, tuple[float, float, float]] = {
    "acceptance": (6.84, 4.30, 6.49),
    "admiration": (7.58, 5.52, 6.11),
    "affection": (7.89, 5.64, 6.60),
    "amazement": (7.29, 6.30, 6.43),
    "amusement": (7.00, 4.82, 6.59),
    "anger": (2.50, 5.93, 5.14),
    "annoyance": (2.95, 4.10, 3.45),
    "anticipation": (5.26, 5.39, 5.53),
    "apprehension": (4.15, 4.23, 5.07),
    "aversion": (4.00, 5.14, 4.81),
    "awe": (6.85, 3.83, 5.85),
    "boredom": (2.77, 2.58, 5.04),
    "confidence": (6.71, 4.04, 6.50),
    "content": (6.70, 3.17, 5.92),
    "contentment": (6.62, 4.60, 6.58),
    "disapproval": (3.40, 4.23, 5.26),
    "disconnection": (3.81, 3.12, 4.60),
    "disgust": (3.32, 5.00, 4.84),
    "disquietment": (3.80, 6.20, 4.15),
    "distraction": (4.05, 3.94, 4.00),
    "doubt/confusion": (3.30, 4.48, 3.07),
    "ecstasy": (7.19, 6.11, 5.52),
    "embarrassment": (2.72, 5.45, 2.92),
    "engagement": (6.65, 5.19, 6.29),
    "esteem": (6.38, 3.91, 6.45),
    "excitement": (7.62, 6.21, 6.33),
    "fatigue": (3.64, 3.26, 4.05),
    "fear": (2.93, 6.14, 3.32),
    "grief": (2.33, 4.95, 3.26),
    "happiness": (8.48, 6.50, 7.05),
    "interest": (6.66, 4.36, 6.31),
    "joy": (8.21, 5.55, 7.00),
    "loathing": (2.42, 4.50, 3.95),
    "neutral": (5.50, 3.45, 5.81),
    "pain": (2.00, 6.27, 3.47),
    "panic": (2.56, 6.40, 2.65),
    "peace": (7.75, 4.65, 7.17),
    "pensiveness": (3.29, 4.00, 4.18),
    "pleasure": (7.80, 6.80, 7.18),
    "rage": (2.50, 6.62, 4.17),
    "relief": (6.63, 4.42, 5.64),
    "sad": (2.10, 3.49, 3.84),
    "sadness": (2.40, 2.81, 3.84),
    "sensitivity": (5.50, 5.30, 5.42),
    "serenity": (7.75, 2.95, 5.97),
    "suffering": (2.05, 4.50, 3.32),
    "surprise": (7.44, 6.57, 5.17),
    "sympathy": (6.57, 3.08, 5.90),
    "terror": (2.75, 6.35, 2.95),
    "trust": (7.24, 4.30, 6.95),
    "vigilance": (5.67, 3.64, 6.68),
    "yearning": (5.95, 3.73, 5.18),
}
"""Word -> mean (valence, arousal, dominance)."""
