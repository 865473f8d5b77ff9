"""Definitions of emotion words, and the cosine similarities of their text embeddings.

Ref: EEmo-Logic, stage 2 (docs/papers.md), whose own definitions are not published.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emosym.affect.taxonomies import SPELLINGS
from emosym.errors import unknown

STORED = Path(__file__).with_suffix(".json")
"""Cosine similarities of the definitions, written by `python -m model_zoo definitions`."""


class Definition(NamedTuple):
    """Properties, cause and effect of an emotion."""

    polarity: str
    """E.g. "mildly positive"."""
    energy: str
    """E.g. "low"."""
    trigger: str
    """Completes "It arises when ..."."""
    behaviour: str
    """Completes "and makes people ..."."""


DEFINITIONS = {
    word: Definition(*parts)
    for word, parts in {
        "acceptance": ("mildly positive", "low", "things may be as they are", "agree and let be"),
        "admiration": ("positive", "medium", "someone excels", "look up to them and praise them"),
        "affection": ("positive", "low", "someone dear is near", "hug, touch and care"),
        "amazement": ("positive", "high", "something hard to believe happens", "gasp and stare"),
        "amusement": ("positive", "medium", "something is funny or playful", "smile and laugh"),
        "anger": ("negative", "high", "someone does wrong or is unfair", "shout and attack"),
        "annoyance": ("negative", "medium", "something small disturbs", "frown and complain"),
        "anticipation": ("slightly positive", "medium", "something is near", "get ready for it"),
        "apprehension": ("negative", "medium", "something bad may come", "hesitate and watch out"),
        "aversion": ("negative", "medium", "something is disliked", "turn away and keep off"),
        "awe": ("mostly positive", "low", "something vast is seen", "stand silent and wonder"),
        "boredom": ("negative", "very low", "nothing of interest happens", "yawn and drift off"),
        "confidence": ("positive", "medium", "one trusts one's own strength", "act firmly"),
        "contentment": ("positive", "low", "wishes are met", "smile and want nothing more"),
        "disapproval": ("negative", "medium", "someone misbehaves", "shake their head and reject"),
        "disconnection": ("negative", "low", "nothing around matters", "withdraw and stay apart"),
        "disgust": ("negative", "medium", "something is foul or offensive", "recoil from it"),
        "disquietment": ("negative", "high", "the outcome is uncertain", "worry and be restless"),
        "distraction": ("slightly negative", "low", "other things call", "lose the thread"),
        "doubt/confusion": ("negative", "medium", "things are unclear", "frown and ask"),
        "ecstasy": ("very positive", "very high", "joy overwhelms", "cry out and dance"),
        "embarrassment": ("negative", "medium", "others see one fail", "blush and hide"),
        "engagement": ("positive", "medium", "a task absorbs all attention", "take part in it"),
        "esteem": ("positive", "low", "someone is worth a lot", "honour and respect them"),
        "excitement": ("positive", "very high", "something thrilling happens", "jump and cheer"),
        "fatigue": ("negative", "very low", "strength is used up", "slump and want to sleep"),
        "fear": ("negative", "high", "danger threatens", "freeze, hide or run away"),
        "grief": ("very negative", "low", "someone loved is lost for ever", "weep and mourn"),
        "happiness": ("very positive", "high", "life goes well", "smile and share it"),
        "interest": ("positive", "medium", "something new is worth knowing", "look and explore"),
        "joy": ("very positive", "high", "something longed for happens", "laugh and celebrate"),
        "loathing": ("very negative", "medium", "someone is unbearably hateful", "spurn them"),
        "neutral": ("neither positive nor negative", "low", "nothing stirs", "go on as before"),
        "pain": ("very negative", "high", "the body or the heart is hurt", "wince and cry"),
        "panic": ("very negative", "extreme", "danger is suddenly everywhere", "scream and flee"),
        "peace": ("positive", "very low", "all is quiet and safe", "relax and breathe slowly"),
        "pensiveness": ("slightly negative", "low", "a sad thought lingers", "ponder in silence"),
        "pleasure": ("positive", "medium", "something feels good", "enjoy it and want more"),
        "rage": ("very negative", "extreme", "an offence is past bearing", "destroy and lash out"),
        "relief": ("positive", "falling", "a threat or burden is gone", "sigh and relax"),
        "sadness": ("negative", "low", "something is lost or fails", "cry and withdraw"),
        "sensitivity": ("neutral", "low", "small things touch deeply", "be easily moved"),
        "serenity": ("positive", "very low", "nothing troubles the mind", "sit still at ease"),
        "suffering": ("very negative", "low", "pain or hardship lasts", "endure and moan"),
        "surprise": ("mostly positive", "high", "the unexpected happens", "start and stare"),
        "sympathy": ("warm", "low", "someone else is in trouble", "comfort and help them"),
        "terror": ("very negative", "extreme", "deadly danger is here", "tremble or scream"),
        "trust": ("positive", "low", "someone is reliable", "open up and rely on them"),
        "vigilance": ("neutral", "high", "something may happen at any time", "watch closely"),
        "yearning": ("bittersweet", "medium", "what is dear is far away", "reach out for it"),
    }.items()
}
"""Word -> definition, for every word with norms; `taxonomies.SPELLINGS` map to one of these."""


def sentence(word: str) -> str:
    """Return the text of a word and its definition that is embedded."""
    definition = DEFINITIONS[word]
    return (
        f"{word}: a {definition.polarity} emotion of {definition.energy} energy. It arises when"
        f" {definition.trigger}, and makes people {definition.behaviour}."
    )


def definition_cosines(labels: Sequence[str]) -> np.ndarray:
    """Return the cosines of the definitions' embeddings, [Y, Y] in [-1, 1], 1 on the diagonal.

    Raises:
        UserError: a word without a definition.
    """
    words = [SPELLINGS.get(label, label) for label in labels]
    for label, word in zip(labels, words, strict=True):
        if word not in DEFINITIONS:
            raise unknown("emotion word", label, DEFINITIONS)
    names, cosines = _stored()
    places = [names.index(word) for word in words]
    return cosines[np.ix_(places, places)]


@cache
def _stored() -> tuple[list[str], np.ndarray]:
    stored = json.loads(STORED.read_text("utf-8"))
    return stored["words"], np.array(stored["cosines"])
