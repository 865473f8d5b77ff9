"""What is said to the model, and how it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emosym.affect.scales import PUBLIC, UNIT, Scale
from emosym.affect.taxonomies import MIKELS8
from emosym.records import ImageRequest, Sample

UNDERSTAND = "Which emotion does this image evoke? Give valence and arousal from -3 to 3."
"""The question that goes with an image."""

TASKS = (
    "affect",
    "valence",
    "arousal",
    "dominance",
    "ranking",
    "dominant",
    "perception",
    "description",
    "criticise",
    "rewrite",
)
"""What can be asked. `affect` is EmoSym's own question, the last two are EmoFeedback²'s (arXiv
2511.19982); the others are EEmo-Logic's, each dimension of the assessment by itself. Ref: arXiv
2602.01173."""

WHOLE = {"description": "description", "rewrite": "prompt"}
"""Task whose answer is one free text -> key of that text; it stands there without its key."""
MOST_SUGGESTIONS = 3
"""Ref: EmoFeedback² asks for few and concrete edits; the number is ours."""

_FORM = "Reason in <think></think>, then answer in <answer>{}</answer>."


def assess(axis: str) -> str:
    """Return the question for a rating of valence, arousal or dominance in [0, 1]."""
    return f"Rate the {axis} that this image evokes, from 0 to 1. " + _FORM.format(
        f"{axis.capitalize()}: x.xxxx"
    )


def judge(labels: Sequence[str]) -> str:
    """Return `UNDERSTAND` for a model that was never taught how we answer."""
    return f"{UNDERSTAND} Choose the emotion from {', '.join(labels)}. " + _FORM.format(
        "Emotion: word; Valence: x.x; Arousal: x.x"
    )


def rank(labels: Sequence[str]) -> str:
    """Return the question for the three strongest emotions."""
    return (
        f"Which three emotions does this image evoke most, strongest first? Choose from"
        f" {', '.join(labels)}. " + _FORM.format("Emotion ranking: a, b, c")
    )


def dominant(labels: Sequence[str]) -> str:
    """Return the question for the one strongest emotion."""
    return f"Which emotion does this image evoke most? Choose from {', '.join(labels)}. " + (
        _FORM.format("Dominant emotion: word")
    )


def choose(question: str, options: Mapping[str, str]) -> str:
    """Return a multiple choice."""
    listed = " ".join(f"{letter}: {text}" for letter, text in options.items())
    return f"{question} {listed} " + _FORM.format("Answer: letter")


def describe(question: str = "Which emotions does this image evoke, and why?") -> str:
    """Return the question for a description in sentences."""
    return f"{question} " + _FORM.format("sentences")


def criticise(*, content: str, wanted: tuple[float, float], reached: tuple[float, float]) -> str:
    """Return the question about a round of drawings, of which the best and the worst are shown.

    `wanted` and `reached` are valence and arousal; the latter is the mean of what the judge saw.
    The question says where to aim (`beyond`), so that nobody has to calculate in words. Ref:
    EmoFeedback² (arXiv 2511.19982), textual feedback; the wording is ours.
    """
    return (
        f"Wanted: {content}, {_point(wanted)}, from -3 to 3. Drawn in the mean: {_point(reached)}."
        " The first image came nearest, the second farthest. The next prompt should aim as far"
        f" beyond: {_point(beyond(wanted, reached))}. Which words of colour, light, weather or"
        f" setting, at most {MOST_SUGGESTIONS}, should it say? " + _FORM.format("Suggestions: a, b")
    )


def beyond(wanted: tuple[float, float], reached: tuple[float, float]) -> tuple[float, float]:
    """Return the point as far beyond `wanted` as `reached` falls short of it, in tenths.

    Whoever missed once would miss again. It is that of the numbers as they are said, so that a
    reader finds them to agree; it may lie outside the scale.
    """
    return tuple(
        round(2 * round(want, 1) - round(have, 1), 1)
        for want, have in zip(wanted, reached, strict=True)
    )


def rewrite(content: str, prompt: str, suggestions: Sequence[str]) -> str:
    """Return the task to say a prompt anew: with the suggestions, and with all of its content."""
    return (
        f"Write the prompt anew. It still shows {content}. It says {', '.join(suggestions)} in"
        f" place of other light. It was: {prompt}. " + _FORM.format("prompt")
    )


ASKABLE = {
    **{axis: (axis, assess(axis)) for axis in ("valence", "arousal", "dominance")},
    "ranking": ("emotion ranking", rank(MIKELS8)),
    "dominant": ("dominant emotion", dominant(MIKELS8)),
    "description": ("description", describe()),
}
"""Task that any single image can be asked -> (key of its answer, question)."""


def imagine(request: ImageRequest) -> str:
    """Return the instruction that asks for an image of some content and emotion."""
    parts = ["Imagine an image."]
    if request.prompt:
        parts.append(f"It shows {request.prompt}.")
    if request.emotion is not None:
        parts.append(f"Emotion: {request.emotion}.")
    if request.valence is not None and request.arousal is not None:
        parts.append(f"Valence: {request.valence:.1f}; Arousal: {request.arousal:.1f}.")
    return " ".join(parts)


def reply(
    truth: Mapping[str, str | float | tuple[str, ...]], scale: Scale, reason: str | None
) -> str:
    """Return the reference answer `<think>…</think><answer>Key: value; …</answer>`.

    Numbers have four decimals on [0, 1] and one elsewhere. A description and a prompt have no key,
    they are the whole answer. Ref: EEmo-Logic's answer contract.
    """
    whole = next((truth[key] for key in WHOLE.values() if key in truth), None)
    facts = whole or "; ".join(
        f"{key.capitalize()}: {_said(value, scale)}" for key, value in truth.items()
    )
    return f"<think>{reason or ''}</think><answer>{facts}</answer>"


def answer(sample: Sample) -> str:
    """Return the reference answer to `UNDERSTAND`: knowledge, then what of the affect is known."""
    return reply(affect_truth(sample), PUBLIC, sample.knowledge)


def affect_truth(sample: Sample) -> dict[str, str | float | tuple[str, ...]]:
    """Return what `UNDERSTAND` asks for, as far as it is known."""
    known = {"emotion": sample.emotion, "valence": sample.valence, "arousal": sample.arousal}
    return {key: value for key, value in known.items() if value is not None}


def _point(affect: tuple[float, float]) -> str:
    valence, arousal = (round(number, 1) + 0.0 for number in affect)  # no minus zero
    return f"valence {valence:.1f}, arousal {arousal:.1f}"


def _said(value: str | float | tuple[str, ...], scale: Scale) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:.{4 if scale == UNIT else 1}f}"
