"""Questions made from samples, so that any dataset carries the tasks its facts allow.

Ref: EEmo-Logic (arXiv 2602.01173) names the tasks; its generator is not published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from data_tools.labels.votes import top_emotions
from data_tools.questions.critique import criticise_questions, rewrite_questions
from data_tools.questions.perception import perception_questions
from emosym.affect.scales import PUBLIC, UNIT, Scale
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import unknown
from emosym.records import Question, Sample
from emosym.tasks import prompts

Asker = Callable[[Sample], Question | None]
Builder = Callable[[Sequence[Sample], int], Iterator[Question]]


def build_questions(
    samples: Sequence[Sample], tasks: Sequence[str], seed: int, *, reasons: bool = True
) -> list[Question]:
    """Return the questions of the named tasks, all of one task before the next.

    A sample whose facts do not answer a question is not asked it. What is drawn (pairs, options)
    follows from the seed and the ids, not from the order of `samples`.
    Without `reasons` the reference answers think nothing before they answer.

    Raises:
        UserError: an unknown task.
    """
    questions: list[Question] = []
    for task in tasks:
        if task not in BUILDERS:
            raise unknown("task", task, BUILDERS)
        questions += BUILDERS[task](samples, seed)
    return questions if reasons else [replace(q, answer=_unreasoned(q)) for q in questions]


def each(ask: Asker) -> Builder:
    """Return the builder that asks every sample the same, in sample order."""

    def build(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
        made = map(ask, samples)
        return (question for question in made if question is not None)

    return build


def affect_question(sample: Sample) -> Question | None:
    """Ask for emotion, valence and arousal at once, as far as they are known."""
    truth = prompts.affect_truth(sample)
    return _question(sample, "affect", prompts.UNDERSTAND, truth, PUBLIC) if truth else None


def assessment(axis: str) -> Asker:
    """Return what asks for the rating of one axis, on [0, 1] with four decimals."""

    def ask(sample: Sample) -> Question | None:
        value = getattr(sample, axis)
        if value is None:
            return None
        truth = {axis: round(PUBLIC.convert(value, UNIT), 4)}
        return _question(sample, axis, prompts.assess(axis), truth, UNIT)

    return ask


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


def description_question(sample: Sample) -> Question | None:
    """Ask for sentences: why the image evokes what it evokes, and the three strongest emotions."""
    top = top_emotions(sample)
    if top is None or sample.knowledge is None:
        return None
    why = sample.knowledge if sample.knowledge.endswith((".", "!", "?")) else f"{sample.knowledge}."
    truth = {"description": f"{why} It evokes most of all {top[0]}, then {top[1]} and {top[2]}."}
    return _question(sample, "description", prompts.describe(), truth)


BUILDERS: dict[str, Builder] = {
    "affect": each(affect_question),
    "valence": each(assessment("valence")),
    "arousal": each(assessment("arousal")),
    "dominance": each(assessment("dominance")),
    "ranking": each(ranking_question),
    "dominant": each(dominant_question),
    "perception": perception_questions,
    "description": each(description_question),
    "criticise": criticise_questions,
    "rewrite": rewrite_questions,
}
"""Task -> what makes its questions of samples; a key for every one of `prompts.TASKS`."""


def _unreasoned(question: Question) -> str:
    return prompts.reply(question.truth, question.scale, None)


def _question(sample: Sample, task: str, text: str, truth: dict, scale: Scale = UNIT) -> Question:
    # A description says its reasons itself; to think them first would say everything twice.
    reason = None if task == "description" else sample.knowledge
    return Question(
        id=f"{sample.id}/{task}",
        task=task,
        images=sample.images,
        split=sample.split,
        text=text,
        truth=truth,
        scale=scale,
        answer=prompts.reply(truth, scale, reason),
    )
