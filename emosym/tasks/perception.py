"""Task `perception`: multiple choice about an image or a pair of images.

Which samples form a pair, and the order of the options, follow from the seed and the ids. Where the
builder can choose, each option is the right answer equally often. Ref: EEmo-Logic (arXiv
2602.01173) names the kinds of questions; its generator is not published.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, get_args

from emosym.affect.scales import PUBLIC, UNIT
from emosym.affect.taxonomies import MIKELS8
from emosym.records import Question, Sample, Split
from emosym.tasks.base import ANSWER_FORM, Answer, Answered, Measure, Reader, Reward, Task
from emosym.tasks.metrics import mean_reward
from emosym.tasks.votes import main_emotion, top_emotions

if TYPE_CHECKING:
    from emosym.randomness import Draws

KEY = "answer"
LOW, HIGH = 0.4, 0.6
"""Bounds on [0, 1]: up to the first a value is low, from the second on it is high. Ref: EEmo-Logic
(arXiv 2602.01173), check of reasoning against answers."""
NEAR = 0.1
"""On [0, 1]: two values closer than this are about the same."""
TRIES = 32
"""Partners drawn for an image before it is left out."""

AXES = ("valence", "arousal", "dominance")
YES_NO = ("Yes", "No")
LEVELS = ("low", "moderate", "high")
HIGHER = ("the first image", "the second image", "about the same")

_ANNOUNCED = re.compile(r"(?i:answer|option|choice)(?i:\s+is)?[\s:*(]*([A-Z])(?![A-Za-z'])")
_MARKED = re.compile(r"(?<![A-Za-z])([A-Z])(?=\s*(?:[:.)*]|$))", re.MULTILINE)


def choice_prompt(question: str, options: Mapping[str, str]) -> str:
    """Return a multiple-choice question; `options` maps letters to texts."""
    listed = " ".join(f"{letter}: {text}" for letter, text in options.items())
    return f"{question} {listed} " + ANSWER_FORM.format("Answer: letter")


def read_option(text: str, question: Question) -> str | None:
    """Parse the letter of one of the question's options, in either case."""
    return text.upper() if text.upper() in question.options else None


def find_option(text: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that free text chooses, or None.

    In this order: the last letter that is announced as answer or option ("the answer is B"), the
    last letter with punctuation of a list ("B: Joy", "(B)"), the option whose text comes first. A
    full list of the options only repeats the question and is ignored. Letters are capital, because
    "a" is a word.

    Ref: EEmo-Bench (arXiv 2504.16405), perception; its own parser is not published. This one gives
    the published verdicts on the recorded answers of two models (tests/eval/tasks).
    """
    text = _repeated(options).sub(" ", text)
    for form in (_ANNOUNCED, _MARKED):
        letters = [letter for letter in form.findall(text) if letter in options]
        if letters:
            return letters[-1]
    return _first_named(_plain(text), {key: _plain(value) for key, value in options.items()})


def _repeated(options: Mapping[str, str]) -> re.Pattern[str]:
    listed = (rf"{letter}\s*:\s*{re.escape(words)}" for letter, words in options.items())
    return re.compile(r"\s*".join(listed)) if options else re.compile(r"(?!)")


def _first_named(text: str, options: Mapping[str, str]) -> str | None:
    """Return the option whose text comes first; of two at the same place the longer one."""
    places = {letter: text.find(words) for letter, words in options.items() if words.strip()}
    named = [letter for letter, place in places.items() if place >= 0]
    return min(named, key=lambda letter: (places[letter], -len(options[letter])), default=None)


def _plain(text: str) -> str:
    """Return lower-case words between single spaces, with "picture" for "image"."""
    plain = re.sub(r"'s\b", "", text.lower()).replace("image", "picture")
    return f" {' '.join(re.findall(r'[a-z0-9]+', plain))} "


def option_reward(answer: Answer, question: Question) -> float:
    """Return 1 for the right letter, else 0."""
    return float(answer.values.get(KEY) == question.truth[KEY])


OPTION = Reward(option_reward, (KEY,))


def _measure(answered: Answered) -> dict[str, Measure]:
    """Return the accuracy over all questions, and over each group that has questions.

    An answer without a letter is wrong. Groups are single images and pairs, each also by kind of
    options, and the aspects (emotion, valence, arousal, dominance).
    """
    groups: dict[str, list[tuple[Question, Answer]]] = {}
    for question, answer in answered:
        number = "single" if len(question.images) == 1 else "pair"
        choices = {text.strip(" .").lower() for text in question.options.values()}
        kind = "yes_no" if choices == {"yes", "no"} else "what_how"
        for name in filter(None, (number, f"{number}_{kind}", question.aspect)):
            groups.setdefault(name, []).append((question, answer))
    by_group = {name: mean_reward(OPTION, groups[name]) for name in sorted(groups)}
    return {"accuracy": mean_reward(OPTION, answered)} | by_group


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A question about two images that has the same options for every pair."""

    name: str
    aspect: str
    text: str
    options: tuple[str, ...]
    applies: Callable[[Sample], bool]
    """Whether enough is known about an image."""
    answer: Callable[[Sample, Sample], str]
    """Two images -> the right one of `options`."""


def perception_questions(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
    """Yield multiple choices about single images and about pairs of one split.

    Each image has questions of its own, and is the first image of at most one pair for every kind
    of question: up to twelve questions an image.
    """
    for split in get_args(Split):
        group = sorted((item for item in samples if item.split == split), key=lambda item: item.id)
        yield from _among_three(group, seed)
        for axis in AXES:
            yield from _levels(group, axis, seed)
        for comparison in COMPARISONS:
            yield from _compared(group, comparison, seed)
        yield from _common(group, seed)


def level(value: float) -> str:
    """Return low, moderate or high for a value on `PUBLIC`."""
    unit = _unit(value)
    return LEVELS[0] if unit <= LOW else LEVELS[2] if unit >= HIGH else LEVELS[1]


def _unit(value: float) -> float:
    """Return a value on [0, 1] with the four decimals of answers, so that bounds are sharp."""
    return round(PUBLIC.convert(value, UNIT), 4)


def _among_three(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
    """Ask whether an emotion is among the three strongest: yes for half of the images."""
    known = _with_top_emotions(samples)
    for turn, place in enumerate(_order([sample for sample, _ in known], seed, "among three")):
        sample, top = known[place]
        right = "No" if turn % 2 else "Yes"
        names = top if right == "Yes" else [name for name in MIKELS8 if name not in top]
        name = _drawn(names, 1, seed, "among three", sample.id)[0]
        text = f"Is {name} one of the three main emotions that this image evokes?"
        yield _choice("among three", (sample,), text, right, YES_NO, "emotion", seed)


def _levels(samples: Sequence[Sample], axis: str, seed: int) -> Iterator[Question]:
    for sample in samples:
        if (value := getattr(sample, axis)) is not None:
            text = f"How high is the {axis} that this image evokes?"
            yield _choice(f"level of {axis}", (sample,), text, level(value), LEVELS, axis, seed)


def _compared(samples: Sequence[Sample], comparison: Comparison, seed: int) -> Iterator[Question]:
    """Pair images so that how often each answer is right differs by at most one."""
    known = [item for item in samples if comparison.applies(item)]
    count = dict.fromkeys(comparison.options, 0)
    for place in _order(known, seed, comparison.name):
        for other in _partners(known, place, seed, comparison.name):
            right = comparison.answer(known[place], known[other])
            if count[right] == min(count.values()):
                count[right] += 1
                pair = (known[place], known[other])
                yield _choice(
                    comparison.name,
                    pair,
                    comparison.text,
                    right,
                    comparison.options,
                    comparison.aspect,
                    seed,
                )
                break


def _common(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
    """Ask for the one emotion that is among the three strongest of both images."""
    known = _with_top_emotions(samples)
    images = [sample for sample, _ in known]
    for place in _order(images, seed, "common"):
        first, top = known[place]
        for other in _partners(images, place, seed, "common"):
            second, second_top = known[other]
            common = set(top) & set(second_top)
            if len(common) == 1:
                pair = (first, second)
                others = [name for name in MIKELS8 if name not in common]
                wrong = _drawn(others, 3, seed, "common", pair[0].id)
                text = "Which emotion is common to both images?"
                options = (*common, *wrong)
                yield _choice("common", pair, text, options[0], options, "emotion", seed)
                break


def _order(samples: Sequence[Sample], seed: int, name: str) -> list[int]:
    """Return the places of samples in a drawn order."""
    split = samples[0].split if samples else ""
    return _draws(seed, "perception", name, split).permutation(len(samples)).tolist()


def _with_top_emotions(samples: Sequence[Sample]) -> list[tuple[Sample, tuple[str, ...]]]:
    """Return the samples whose three strongest emotions are known, with these."""
    return [(item, top) for item in samples if (top := top_emotions(item)) is not None]


def _draws(*key: int | str) -> Draws:
    from emosym.randomness import Draws  # it imports torch; listing the tasks must not

    return Draws(*key)


def _partners(samples: Sequence[Sample], place: int, seed: int, name: str) -> Iterator[int]:
    """Yield places of samples other than the one at `place`, drawn with replacement."""
    if len(samples) < 2:
        return
    draws = _draws(seed, "perception", name, "partners", samples[place].id)
    for draw in draws.uniform(TRIES).tolist():
        other = int(draw * (len(samples) - 1))
        yield other + (other >= place)


def _drawn(items: Sequence[str], count: int, seed: int, name: str, id: str) -> list[str]:
    order = _draws(seed, "perception", name, "drawn", id).permutation(len(items)).tolist()
    return [items[place] for place in order[:count]]


def _choice(
    name: str,
    samples: tuple[Sample, ...],
    question: str,
    right: str,
    options: Sequence[str],
    aspect: str,
    seed: int,
) -> Question:
    """Return a multiple choice with its options in an order drawn for it."""
    id = f"{'+'.join(sample.id for sample in samples)}/perception/{name}"
    listed = dict(zip(ascii_uppercase, _drawn(options, len(options), seed, name, id), strict=False))
    truth = {KEY: next(letter for letter, text in listed.items() if text == right)}
    knowledge = [sample.knowledge for sample in samples if sample.knowledge is not None]
    return Question(
        id=id,
        task="perception",
        images=tuple(sample.image for sample in samples),
        split=samples[0].split,
        text=choice_prompt(question, listed),
        truth=truth,
        answer=PERCEPTION.reply(truth, UNIT, " ".join(knowledge)),
        scale=UNIT,
        options=listed,
        aspect=aspect,
    )


def _same_emotion(first: Sample, second: Sample) -> str:
    return "Yes" if main_emotion(first) == main_emotion(second) else "No"


def _same_level(axis: str) -> Comparison:
    def answer(first: Sample, second: Sample) -> str:
        same = level(getattr(first, axis)) == level(getattr(second, axis))
        return "Yes" if same else "No"

    return Comparison(
        name=f"same {axis}",
        aspect=axis,
        text=f"Is the {axis} that both images evoke on the same level (low, moderate or high)?",
        options=YES_NO,
        applies=lambda sample: getattr(sample, axis) is not None,
        answer=answer,
    )


def _higher(axis: str) -> Comparison:
    def answer(first: Sample, second: Sample) -> str:
        difference = round(_unit(getattr(first, axis)) - _unit(getattr(second, axis)), 4)
        if abs(difference) < NEAR:
            return "about the same"
        return "the first image" if difference > 0 else "the second image"

    return Comparison(
        name=f"higher {axis}",
        aspect=axis,
        text=f"Which image evokes the higher {axis}?",
        options=HIGHER,
        applies=lambda sample: getattr(sample, axis) is not None,
        answer=answer,
    )


COMPARISONS = (
    Comparison(
        name="same emotion",
        aspect="emotion",
        text="Do both images evoke mainly the same emotion?",
        options=YES_NO,
        applies=lambda sample: main_emotion(sample) is not None,
        answer=_same_emotion,
    ),
    *(_same_level(axis) for axis in AXES),
    *(_higher(axis) for axis in AXES),
)

PERCEPTION = Task(
    name="perception",
    title="multiple choice",
    readers={KEY: Reader(read_option, lambda text, question: find_option(text, question.options))},
    build=perception_questions,
    rewards={"option": OPTION},
    measure=_measure,
    metrics={
        "accuracy": ("accuracy", "higher"),
        "single": ("single images", "higher"),
        "single_yes_no": ("single images, yes or no", "higher"),
        "single_what_how": ("single images, what or how", "higher"),
        "pair": ("pairs", "higher"),
        "pair_yes_no": ("pairs, yes or no", "higher"),
        "pair_what_how": ("pairs, what or how", "higher"),
        "emotion": ("about emotion", "higher"),
        "valence": ("about valence", "higher"),
        "arousal": ("about arousal", "higher"),
        "dominance": ("about dominance", "higher"),
    },
)
