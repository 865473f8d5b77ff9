"""Task `criticise`: which words would bring generated images nearer to the wanted emotion.

The model sees the best and the worst image of a round. Its questions are built in
`data_tools.affectworld.critique`, because their true answers are known only where images are drawn
with a known vocabulary of light. Ref: EmoFeedback² (arXiv 2511.19982), textual feedback.
"""

from __future__ import annotations

import numpy as np

from emosym.affect.scales import Affect
from emosym.records import Question
from emosym.tasks import metrics
from emosym.tasks.base import ANSWER_FORM, Answered, Measure, Reader, Task, list_value

KEY = "suggestions"
MOST_SUGGESTIONS = 3
"""Suggestions in an answer; further ones are ignored. Ref: EmoFeedback² asks for few and concrete
edits; the number is ours."""


def criticise_prompt(*, content: str, wanted: Affect, reached: Affect) -> str:
    """Return the question about a round of generated images.

    `wanted` and `reached` are on [-3, 3]; `reached` is the mean over the images of the round as the
    judge sees them. The prompt contains `target_beyond`, so that the model need
    not calculate. Ref: EmoFeedback² (arXiv 2511.19982), textual feedback; the wording is ours.
    """
    return (
        f"Wanted: {content}, {_point(wanted)}, from -3 to 3. Drawn in the mean: {_point(reached)}."
        " The first image came nearest, the second farthest. The next prompt should aim as far"
        f" beyond: {_point(target_beyond(wanted, reached))}. Which words of colour, light, weather"
        f" or setting, at most {MOST_SUGGESTIONS}, should it say? "
        + ANSWER_FORM.format("Suggestions: a, b")
    )


def target_beyond(wanted: Affect, reached: Affect) -> Affect:
    """Return 2 · wanted - reached, which compensates the miss of `reached`, in tenths.

    Both points are first rounded to the tenths that the prompt shows, so that its numbers agree.
    The result may lie outside the scale.
    """
    valence, arousal = (
        round(2 * round(target, 1) - round(mean, 1), 1)
        for target, mean in zip(wanted.coordinates, reached.coordinates, strict=True)
    )
    return Affect.unchecked(valence, arousal)


def read_suggestions(text: str, question: Question) -> tuple[str, ...] | None:
    """Parse up to three different phrases, separated by commas."""
    phrases = [" ".join(phrase.split()) for phrase in text.split(",")]
    return tuple(dict.fromkeys(phrases))[:MOST_SUGGESTIONS] if all(phrases) else None


def _point(affect: Affect) -> str:
    valence, arousal = (round(number, 1) + 0.0 for number in affect.coordinates)  # no minus zero
    return f"valence {valence:.1f}, arousal {arousal:.1f}"


def _measure(answered: Answered) -> dict[str, Measure]:
    """Phrases in both the answer and the truth, as a share of the phrases in either (Jaccard)."""
    pairs = [
        ({*list_value(a.values.get(KEY))}, {*list_value(q.truth[KEY])})
        for q, a in answered
        if KEY in q.truth
    ]
    shares = [len(answer & target) / len(answer | target) for answer, target in pairs]
    return {KEY: (metrics.mean, np.array(shares))}


CRITICISE = Task(
    name="criticise",
    title="suggestions for the next prompt",
    readers={KEY: Reader(read_suggestions)},
    measure=_measure,
    metrics={KEY: ("suggestions shared with the reference", "higher")},
)
