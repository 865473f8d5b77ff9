"""The class of tasks: a kind of question, and how its answers are parsed, rewarded and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from numpy.typing import NDArray

from emosym.affect.scales import PUBLIC, UNIT, Scale
from emosym.records import Question, Sample

ANSWER_FORM = "Reason in <think></think>, then answer in <answer>{}</answer>."
"""Last sentence of a prompt; the braces hold the form of the answer. Ref: EEmo-Logic (arXiv
2602.01173), its answer contract."""

Value = str | float | tuple[str, ...]
"""A value in an answer: a label, a letter or a text, a number, or several labels or phrases."""
Better = Literal["higher", "lower"]
"""Whether a higher or a lower value of a metric is better."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The values that were parsed from the text of an answer."""

    well_formed: bool
    """The whole text is `<think>…</think><answer>…</answer>`, all of the answer parses, and it has
    a value for every key of the question's truth."""
    values: Mapping[str, Value] = field(default_factory=dict)
    """Key -> parsed value; keys without a valid value are absent."""
    fill: float = 0.0
    """Length of the answer as a share of the longest length allowed, in [0, 1]; set by sampling."""


def _find_nothing(text: str, question: Question) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Reader:
    """Parses the value of one key; both functions return None where there is no valid value."""

    read: Callable[[str, Question], Value | None]
    """Parse the text after `Key:`."""
    find: Callable[[str, Question], Value | None] = _find_nothing
    """Find the value in free text, for lenient parsing; the default never finds one."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A verifiable reward and the questions that it applies to."""

    score: Callable[[Answer, Question], float]
    """A pure function of an answer and its question."""
    keys: tuple[str, ...] = ()
    """It applies to questions whose truth has one of these keys; to all questions when empty."""

    def applies(self, question: Question) -> bool:
        """Return whether the reward is defined for a question."""
        return not self.keys or any(key in question.truth for key in self.keys)


Answered = Sequence[tuple[Question, Answer]]
"""Questions of one task with their parsed answers."""
Metric = Callable[..., float | None]
"""Arrays [N] of equal length -> a number, or None where it is undefined."""
Measure = tuple[Metric, *tuple[NDArray, ...]]
"""A metric and its arrays, so that a confidence interval can be computed by resampling rows."""
Build = Callable[[Sequence[Sample], int], Iterable[Question]]
"""Samples and a seed -> questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One kind of question. `emosym.tasks.registry.TASKS` lists all tasks."""

    name: str
    """Name in presets, on command lines and in reports; `Question.task`."""
    title: str
    """What the task asks for, in a few words."""
    readers: Mapping[str, Reader] = field(default_factory=dict)
    """Key of an answer (`Key: value; …`) in lower case -> reader of its value."""
    free_text: str | None = None
    """Key of the value when the whole answer is one free text, which is then written without a key;
    None for answers of the form `Key: value; …`."""
    prompt: str | None = None
    """The question, where it is the same for every single image; else None."""
    build: Build | None = None
    """Makes questions from samples. Its random choices depend only on the seed and on the samples'
    ids. None where the questions need more than samples (see `data_tools.questions.build`).
    """
    rewards: Mapping[str, Reward] = field(default_factory=dict)
    """Rewards of this task by name; tasks may share one."""
    measure: Callable[[Answered], dict[str, Measure]]
    """Questions and parsed answers -> the task's metrics."""
    metrics: Mapping[str, tuple[str, Better]]
    """Every metric that `measure` may return, in the order of reports -> (title, which way is
    better)."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of this task's answers."""
        return tuple(self.readers) if self.free_text is None else (self.free_text,)

    def reply(
        self, truth: Mapping[str, Value], scale: Scale = PUBLIC, reason: str | None = None
    ) -> str:
        """Return the reference answer `<think>…</think><answer>Key: value; …</answer>`.

        Numbers have four decimals on [0, 1] and one on other scales. A free text has no key.
        Ref: EEmo-Logic (arXiv 2602.01173), its answer contract.
        """
        if self.free_text is not None and truth.get(self.free_text):
            body = _written(truth[self.free_text], scale)
        else:
            pairs = (f"{key.capitalize()}: {_written(v, scale)}" for key, v in truth.items())
            body = "; ".join(pairs)
        return f"<think>{reason or ''}</think><answer>{body}</answer>"

    def question(
        self,
        sample: Sample,
        truth: Mapping[str, Value],
        *,
        scale: Scale = UNIT,
        reason: str | None = None,
    ) -> Question:
        """Return this task's `prompt` about a sample's image, with its reference answer.

        Args:
            sample: the image, its id and split.
            truth: the true values.
            scale: of numbers in `truth` and in answers.
            reason: the text in `<think></think>` of the reference answer.

        Raises:
            ValueError: the task has no prompt of its own.
        """
        if self.prompt is None:
            raise ValueError(f"task {self.name!r} has no prompt that is the same for every image")
        return Question(
            id=f"{sample.id}/{self.name}",
            task=self.name,
            images=sample.images,
            split=sample.split,
            text=self.prompt,
            truth=truth,
            scale=scale,
            answer=self.reply(truth, scale, reason),
        )


def each_sample(ask: Callable[[Sample], Question | None]) -> Build:
    """Return a builder that asks one question about every sample, in the order of the samples.

    `ask` returns None for a sample whose annotations do not answer the question.
    """

    def build(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
        return (question for question in map(ask, samples) if question is not None)

    return build


def label_value(value: Value | None) -> str | None:
    """Return a value that is one text; None for any other value."""
    return value if isinstance(value, str) else None


def list_value(value: Value | None) -> tuple[str, ...]:
    """Return a value that is a tuple of texts; an empty tuple for any other value."""
    return value if isinstance(value, tuple) else ()


def _written(value: Value, scale: Scale) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:.{4 if scale == UNIT else 1}f}"
