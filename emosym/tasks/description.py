"""Task `description`: sentences on which emotions an image evokes, and why.

Ref: EEmo-Logic (arXiv 2602.01173), description task; EEmo-Bench (arXiv 2504.16405).
"""

from __future__ import annotations

from emosym.records import Question, Sample
from emosym.tasks import metrics
from emosym.tasks.base import ANSWER_FORM, Answered, Measure, Task, each_sample, label_value
from emosym.tasks.votes import top_emotions

KEY = "description"


def description_prompt(question: str = "Which emotions does this image evoke, and why?") -> str:
    """Return the question for a description in sentences."""
    return f"{question} " + ANSWER_FORM.format("sentences")


def description_question(sample: Sample) -> Question | None:
    """Ask which emotions the image evokes and why; None without knowledge or three emotions.

    The reference answer has no reasoning: it would say the same knowledge twice.
    """
    top = top_emotions(sample)
    if top is None or sample.knowledge is None:
        return None
    why = sample.knowledge if sample.knowledge.endswith((".", "!", "?")) else f"{sample.knowledge}."
    text = f"{why} It evokes most of all {top[0]}, then {top[1]} and {top[2]}."
    return DESCRIPTION.question(sample, {KEY: text})


def _measure(answered: Answered) -> dict[str, Measure]:
    """Return chrF to the reference, if any. EEmo-Bench's model judges are not reproduced."""
    known = [(q, a) for q, a in answered if KEY in q.truth]
    answers = [label_value(a.values.get(KEY)) or "" for _, a in known]
    references = [label_value(q.truth[KEY]) or "" for q, _ in known]
    return {"chrf": (metrics.mean, metrics.chrf(answers, references))}


DESCRIPTION = Task(
    name="description",
    title="description in sentences",
    prompt=description_prompt(),
    free_text=KEY,
    build=each_sample(description_question),
    measure=_measure,
    metrics={"chrf": ("chrF to the reference", "higher")},
)
