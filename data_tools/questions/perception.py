"""Multiple choice about an image or a pair, made from samples.

Which samples form a pair, and the order of the options, follow from the seed and the ids. Where one
may choose what is asked, as many questions have one right answer as another. Ref: EEmo-Logic
(arXiv 2602.01173) names the kinds of questions; its generator is not published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import get_args

from data_tools.labels.votes import main_emotion, top_emotions
from emosym.affect.scales import PUBLIC, UNIT
from emosym.affect.taxonomies import MIKELS8
from emosym.randomness import Draws
from emosym.records import Question, Sample, Split
from emosym.tasks import prompts

LOW, HIGH = 0.4, 0.6
"""On [0, 1]: a value up to the first is low, one from the second is high. Ref: EEmo-Logic, check of
thinking against answers."""
NEAR = 0.1
"""On [0, 1]: two values closer than this are about the same."""
TRIES = 32
"""Partners drawn for an image before it is left out."""

AXES = ("valence", "arousal", "dominance")
YES_NO = ("Yes", "No")
LEVELS = ("low", "moderate", "high")
HIGHER = ("the first image", "the second image", "about the same")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A question about two images that has the same options for every pair."""

    name: str
    aspect: str
    text: str
    options: tuple[str, ...]
    knows: Callable[[Sample], bool]
    """Whether enough is known of an image."""
    answer: Callable[[Sample, Sample], str]
    """The right one of `options`."""


def perception_questions(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
    """Yield multiple choices about single images and about pairs of one split.

    Each image is asked about alone, and is the first of at most one pair for every kind of
    question, so there are up to twelve questions an image.
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
    """Return low, moderate or high for a value on `affect.PUBLIC`."""
    unit = _unit(value)
    return LEVELS[0] if unit <= LOW else LEVELS[2] if unit >= HIGH else LEVELS[1]


def _unit(value: float) -> float:
    """Return a value on [0, 1] with the four decimals of answers, so that bounds are sharp."""
    return round(PUBLIC.convert(value, UNIT), 4)


def _among_three(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
    """Ask whether an emotion is among the three strongest: of every second image it is."""
    known = [item for item in samples if top_emotions(item) is not None]
    for turn, place in enumerate(_order(known, seed, "among three")):
        sample = known[place]
        top = top_emotions(sample)
        right = "No" if turn % 2 else "Yes"
        named = top if right == "Yes" else [name for name in MIKELS8 if name not in top]
        name = _drawn(named, 1, seed, "among three", sample.id)[0]
        text = f"Is {name} one of the three main emotions that this image evokes?"
        yield _choice("among three", (sample,), text, right, YES_NO, "emotion", seed)


def _levels(samples: Sequence[Sample], axis: str, seed: int) -> Iterator[Question]:
    for sample in samples:
        if (value := getattr(sample, axis)) is not None:
            text = f"How high is the {axis} that this image evokes?"
            yield _choice(f"level of {axis}", (sample,), text, level(value), LEVELS, axis, seed)


def _compared(samples: Sequence[Sample], ask: Comparison, seed: int) -> Iterator[Question]:
    """Pair images so that no answer is right more than once oftener than another."""
    known = [item for item in samples if ask.knows(item)]
    count = dict.fromkeys(ask.options, 0)
    for place in _order(known, seed, ask.name):
        for second in _partners(known, place, seed, ask.name):
            right = ask.answer(known[place], second)
            if count[right] == min(count.values()):
                count[right] += 1
                pair = (known[place], second)
                yield _choice(ask.name, pair, ask.text, right, ask.options, ask.aspect, seed)
                break


def _common(samples: Sequence[Sample], seed: int) -> Iterator[Question]:
    """Ask for the one emotion that is among the three strongest of both images."""
    known = [item for item in samples if top_emotions(item) is not None]
    for place in _order(known, seed, "common"):
        top = set(top_emotions(known[place]))
        for second in _partners(known, place, seed, "common"):
            common = top & set(top_emotions(second))
            if len(common) == 1:
                pair = (known[place], second)
                others = [name for name in MIKELS8 if name not in common]
                wrong = _drawn(others, 3, seed, "common", pair[0].id)
                text = "Which emotion is common to both images?"
                options = (*common, *wrong)
                yield _choice("common", pair, text, options[0], options, "emotion", seed)
                break


def _order(samples: Sequence[Sample], seed: int, name: str) -> list[int]:
    """Return the places of samples in a drawn order."""
    split = samples[0].split if samples else ""
    return Draws(seed, "perception", name, split).permutation(len(samples)).tolist()


def _partners(samples: Sequence[Sample], place: int, seed: int, name: str) -> Iterator[Sample]:
    """Yield samples other than the one at `place`, drawn with replacement."""
    if len(samples) < 2:
        return
    draws = Draws(seed, "perception", name, "partners", samples[place].id)
    for draw in draws.uniform(TRIES).tolist():
        other = int(draw * (len(samples) - 1))
        yield samples[other + (other >= place)]


def _drawn(items: Sequence[str], count: int, seed: int, name: str, id: str) -> list[str]:
    order = Draws(seed, "perception", name, "drawn", id).permutation(len(items)).tolist()
    return [items[place] for place in order[:count]]


def _choice(
    name: str,
    samples: tuple[Sample, ...],
    text: str,
    right: str,
    options: Sequence[str],
    aspect: str,
    seed: int,
) -> Question:
    """Return a multiple choice with its options in an order drawn for it."""
    id = f"{'+'.join(sample.id for sample in samples)}/perception/{name}"
    listed = dict(zip(ascii_uppercase, _drawn(options, len(options), seed, name, id), strict=False))
    truth = {"answer": next(letter for letter, said in listed.items() if said == right)}
    knowledge = [sample.knowledge for sample in samples if sample.knowledge is not None]
    return Question(
        id=id,
        task="perception",
        images=tuple(sample.image for sample in samples),
        split=samples[0].split,
        text=prompts.choose(text, listed),
        truth=truth,
        answer=prompts.reply(truth, UNIT, " ".join(knowledge)),
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
        knows=lambda sample: getattr(sample, axis) is not None,
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
        knows=lambda sample: getattr(sample, axis) is not None,
        answer=answer,
    )


COMPARISONS = (
    Comparison(
        name="same emotion",
        aspect="emotion",
        text="Do both images evoke mainly the same emotion?",
        options=YES_NO,
        knows=lambda sample: main_emotion(sample) is not None,
        answer=_same_emotion,
    ),
    *(_same_level(axis) for axis in AXES),
    *(_higher(axis) for axis in AXES),
)
