"""Task `ranking`: the three emotions that an image evokes most, strongest first.

Ref: EEmo-Logic (arXiv 2602.01173), ranking task; EEmo-Bench (arXiv 2504.16405).
"""

from __future__ import annotations

from collections.abc import Sequence

from emosym.affect.ranking import ranking_score
from emosym.affect.taxonomies import MIKELS8
from emosym.records import Question, Sample
from emosym.tasks.base import (
    ANSWER_FORM,
    Answer,
    Answered,
    Measure,
    Reader,
    Reward,
    Task,
    each_sample,
    list_value,
)
from emosym.tasks.dominant import labels_in_text, read_label
from emosym.tasks.metrics import mean_reward
from emosym.tasks.votes import top_emotions

KEY = "emotion ranking"
PLACES = 3
"""Emotions in a ranking; further ones in an answer are ignored."""


def ranking_prompt(labels: Sequence[str]) -> str:
    """Return the question for the three strongest emotions."""
    return (
        f"Which three emotions does this image evoke most, strongest first? Choose from"
        f" {', '.join(labels)}. " + ANSWER_FORM.format("Emotion ranking: a, b, c")
    )


def read_ranking(text: str, question: Question) -> tuple[str, ...] | None:
    """Parse up to three different labels, separated by commas."""
    labels: list[str] = []
    for name in text.split(","):
        label = read_label(name.strip(), question)
        if label is None:
            return None
        labels.append(label)
    return tuple(dict.fromkeys(labels))[:PLACES]


def find_ranking(text: str, question: Question) -> tuple[str, ...] | None:
    """Return the first three different labels that free text names; None where it names none."""
    return tuple(dict.fromkeys(labels_in_text(text, question)))[:PLACES] or None


def ranking_reward(answer: Answer, question: Question) -> float:
    """Return `ranking_score` of the three strongest emotions, in [0, 1]."""
    return ranking_score(list_value(question.truth[KEY]), list_value(answer.values.get(KEY)))


def ranking_question(sample: Sample) -> Question | None:
    """Ask for the three strongest emotions; None where they are unknown."""
    top = top_emotions(sample)
    return None if top is None else RANKING.question(sample, {KEY: top}, reason=sample.knowledge)


def _measure(answered: Answered) -> dict[str, Measure]:
    return {"score": mean_reward(REWARD, answered)}


REWARD = Reward(ranking_reward, (KEY,))
RANKING = Task(
    name="ranking",
    title="ranking of the three strongest emotions",
    prompt=ranking_prompt(MIKELS8),
    readers={KEY: Reader(read_ranking, find_ranking)},
    build=each_sample(ranking_question),
    rewards={"ranking": REWARD},
    measure=_measure,
    metrics={"score": ("ranking score", "higher")},
)
