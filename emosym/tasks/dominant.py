"""Task `dominant`: the one emotion that an image evokes most.

Ref: EEmo-Logic (arXiv 2602.01173), dominant emotion task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import numpy as np

from emosym.affect.similarity import similarities
from emosym.affect.taxonomies import MIKELS8
from emosym.records import Question, Sample
from emosym.tasks import metrics
from emosym.tasks.base import (
    ANSWER_FORM,
    Answer,
    Answered,
    Measure,
    Reader,
    Reward,
    Task,
    each_sample,
    label_value,
)

KEY = "dominant emotion"
KEYS = ("emotion", KEY)
"""Keys whose value is one emotion label: task `affect`'s, and this task's."""

SYNONYMS = {"neutrality": "neutral", "joyful": "joy", "shock": "surprise", "pleasure": "joy"}
"""Word -> label, used where the word is no label itself. Ref: EEmo-Logic's clean-up of answers
before scoring."""


def dominant_prompt(labels: Sequence[str]) -> str:
    """Return the question for the one strongest emotion."""
    return f"Which emotion does this image evoke most? Choose from {', '.join(labels)}. " + (
        ANSWER_FORM.format("Dominant emotion: word")
    )


def read_label(text: str, question: Question) -> str | None:
    """Parse one of the question's labels, or a synonym of one, in any case."""
    name = text.lower()
    if name in question.labels:
        return name
    name = SYNONYMS.get(name, name)
    return name if name in question.labels else None


def labels_in_text(text: str, question: Question) -> list[str]:
    """Return the question's labels that free text names, in the order of the text."""
    words = re.findall(r"[a-z]+(?:/[a-z]+)?", text.lower())
    return [label for word in words if (label := read_label(word, question)) is not None]


def find_label(text: str, question: Question) -> str | None:
    """Return the first label that free text names."""
    return next(iter(labels_in_text(text, question)), None)


LABEL = Reader(read_label, find_label)


def emotion_reward(answer: Answer, question: Question) -> float:
    """Return 1 when the label is right, else 0."""
    prediction, target = _labels(answer, question)
    return float(prediction == target)


def similarity_reward(answer: Answer, question: Question) -> float:
    """Return R[target][prediction] in [0, 1]; 0 without a label. A near miss earns a little.

    Ref: EEmo-Logic (arXiv 2602.01173), stage 2 similarity reward, from the words' norms alone.
    """
    return _similarity(answer, question, definitions=False)


def similarity_sentence(answer: Answer, question: Question) -> float:
    """Return R[target][prediction] as `similarity_reward`, from the words' norms and definitions.

    Ref: EEmo-Logic (arXiv 2602.01173), stage 2 similarity reward: its formula, with our definitions
    and a small sentence encoder.
    """
    return _similarity(answer, question, definitions=True)


EMOTION = Reward(emotion_reward, KEYS)
SIMILARITY = Reward(similarity_reward, KEYS)
LABEL_REWARDS = {
    "emotion": EMOTION,
    "similarity": SIMILARITY,
    "similarity_sentence": Reward(similarity_sentence, KEYS),
}


def dominant_question(sample: Sample) -> Question | None:
    """Ask for the strongest emotion; None where there is no label."""
    if sample.emotion is None:
        return None
    return DOMINANT.question(sample, {KEY: sample.emotion}, reason=sample.knowledge)


def _labels(answer: Answer, question: Question) -> tuple[str | None, str | None]:
    """Return the predicted and the true label."""
    key = next(key for key in KEYS if key in question.truth)
    return label_value(answer.values.get(key)), label_value(question.truth[key])


def _similarity(answer: Answer, question: Question, *, definitions: bool) -> float:
    prediction, target = _labels(answer, question)
    if prediction is None or target is None:
        return 0.0
    index = question.labels.index
    matrix = similarities(question.labels, definitions=definitions)
    return float(matrix[index(target), index(prediction)])


def _measure(answered: Answered) -> dict[str, Measure]:
    """Return the metrics. An answer without a label is wrong, but adds no class to the F1."""
    pairs = [_labels(a, q) for q, a in answered if KEY in q.truth]
    names = sorted({name for q, _ in answered if KEY in q.truth for name in q.labels})
    classes: dict[str | None, int] = {name: place for place, name in enumerate(names)}
    predictions = np.array([classes.get(one, len(names)) for one, _ in pairs], dtype=np.int64)
    targets = np.array([classes[target] for _, target in pairs], dtype=np.int64)
    return {
        "accuracy": metrics.mean_reward(EMOTION, answered),
        "similarity": metrics.mean_reward(SIMILARITY, answered),
        "macro_f1": (partial(metrics.macro_f1, classes=len(names)), predictions, targets),
    }


DOMINANT = Task(
    name="dominant",
    title="dominant emotion",
    prompt=dominant_prompt(MIKELS8),
    readers={KEY: LABEL},
    build=each_sample(dominant_question),
    rewards=LABEL_REWARDS,
    measure=_measure,
    metrics={
        "accuracy": ("accuracy", "higher"),
        "macro_f1": ("macro-F1", "higher"),
        "similarity": ("nearness to the right emotion", "higher"),
    },
)
