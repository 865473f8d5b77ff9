"""Task `affect`: emotion label, valence and arousal in one answer. EmoSym's main question."""

from __future__ import annotations

from collections.abc import Sequence

from emosym.affect.scales import PUBLIC
from emosym.records import Question, Sample
from emosym.tasks.assessment import NUMBER, RATING_REWARDS, rating_measures
from emosym.tasks.base import ANSWER_FORM, Answered, Measure, Task, Value, each_sample
from emosym.tasks.dominant import EMOTION, LABEL, LABEL_REWARDS
from emosym.tasks.metrics import mean_reward

AFFECT_PROMPT = "Which emotion does this image evoke? Give valence and arousal from -3 to 3."
"""The question that the understanding branch answers about an image."""


def untrained_prompt(labels: Sequence[str]) -> str:
    """Return `AFFECT_PROMPT` for a model that was not trained on our answers.

    It also names the labels and the form of the answer.
    """
    return f"{AFFECT_PROMPT} Choose the emotion from {', '.join(labels)}. " + ANSWER_FORM.format(
        "Emotion: word; Valence: x.x; Arousal: x.x"
    )


def affect_truth(sample: Sample) -> dict[str, Value]:
    """Return the sample's emotion, valence and arousal, those that are known."""
    values = {"emotion": sample.emotion, "valence": sample.valence, "arousal": sample.arousal}
    return {key: value for key, value in values.items() if value is not None}


def affect_reply(sample: Sample) -> str:
    """Return the reference answer to `AFFECT_PROMPT`: the knowledge text, then the known values."""
    return AFFECT.reply(affect_truth(sample), PUBLIC, sample.knowledge)


def affect_question(sample: Sample) -> Question | None:
    """Ask for the emotion, valence and arousal that are known; None where none is."""
    truth = affect_truth(sample)
    if not truth:
        return None
    return AFFECT.question(sample, truth, scale=PUBLIC, reason=sample.knowledge)


def _measure(answered: Answered) -> dict[str, Measure]:
    errors = {
        f"{axis}_mae": rating_measures(axis, answered)["mae"] for axis in ("valence", "arousal")
    }
    return {"accuracy": mean_reward(EMOTION, answered)} | errors


AFFECT = Task(
    name="affect",
    title="emotion, valence and arousal",
    prompt=AFFECT_PROMPT,
    readers={"emotion": LABEL, "valence": NUMBER, "arousal": NUMBER},
    build=each_sample(affect_question),
    rewards=LABEL_REWARDS | RATING_REWARDS,
    measure=_measure,
    metrics={
        "accuracy": ("accuracy", "higher"),
        "valence_mae": ("valence MAE", "lower"),
        "arousal_mae": ("arousal MAE", "lower"),
    },
)
