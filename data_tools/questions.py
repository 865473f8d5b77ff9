"""Questions made from samples, so that any dataset carries the tasks its facts allow.

Ref: EEmo-Logic (arXiv 2602.01173) names the tasks; its generator is not published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emosym import prompts
from emosym.affect import PUBLIC, UNIT
from emosym.errors import unknown
from emosym.records import Question, Sample
from emosym.taxonomy import MIKELS8

Builder = Callable[[Sample], Question | None]


def build_questions(
    samples: Sequence[Sample], tasks: Sequence[str], seed: int = 0
) -> list[Question]:
    """Return the questions of the named tasks, all of one task before the next, in sample order.

    A sample whose facts do not answer a question is not asked it.

    Raises:
        UserError: an unknown task.
    """
    questions: list[Question] = []
    for task in tasks:
        if task not in BUILDERS:
            raise unknown("task", task, BUILDERS)
        made = (BUILDERS[task](sample) for sample in samples)
        questions += [question for question in made if question is not None]
    return questions


def affect_question(sample: Sample) -> Question | None:
    """Ask for emotion, valence and arousal at once, as far as they are known."""
    truth = prompts.affect_truth(sample)
    return _question(sample, "affect", prompts.UNDERSTAND, truth, PUBLIC) if truth else None


def assessment(axis: str) -> Builder:
    """Return the builder of the rating of one axis, on [0, 1] with four decimals."""

    def build(sample: Sample) -> Question | None:
        value = getattr(sample, axis)
        if value is None:
            return None
        truth = {axis: round(PUBLIC.convert(value, UNIT), 4)}
        return _question(sample, axis, prompts.assess(axis), truth, UNIT)

    return build


def ranking_question(sample: Sample) -> Question | None:
    """Ask for the three strongest emotions, strongest first."""
    top = top_emotions(sample)
    if top is None:
        return None
    return _question(sample, "ranking", prompts.rank(MIKELS8), {"emotion ranking": top})


def dominant_question(sample: Sample) -> Question | None:
    """Ask for the strongest emotion."""
    if sample.emotion is None:
        return None
    truth = {"dominant emotion": sample.emotion}
    return _question(sample, "dominant", prompts.dominant(MIKELS8), truth)


def top_emotions(sample: Sample) -> tuple[str, str, str] | None:
    """Return the three emotions with most votes (ties in the taxonomy's order), or None."""
    votes = {name: weight for name, weight in (sample.votes or {}).items() if weight > 0}
    order = sorted(votes, key=lambda name: (-votes[name], MIKELS8.index(name)))
    return tuple(order[:3]) if len(order) >= 3 else None


BUILDERS: dict[str, Builder] = {
    "affect": affect_question,
    "valence": assessment("valence"),
    "arousal": assessment("arousal"),
    "dominance": assessment("dominance"),
    "ranking": ranking_question,
    "dominant": dominant_question,
}
"""Task -> what makes its question of a sample, or None where the sample cannot answer it."""


def _question(sample: Sample, task: str, text: str, truth: dict, scale=UNIT) -> Question:
    return Question(
        id=f"{sample.id}/{task}",
        task=task,
        images=sample.images,
        split=sample.split,
        text=text,
        truth=truth,
        scale=scale,
        answer=prompts.reply(truth, scale, sample.knowledge),
    )
