"""Refinement with a generator and a critic whose numbers are known, and with the real model."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.inference.refine import JUDGED_TOGETHER, best_of, refine
from emosym.records import ImageRequest, Question, Understanding
from emosym.tasks.rewrite import lost_content

REQUEST = ImageRequest(prompt="a cat in the rain", affect=Affect(1.0, -1.0))
WINDOW = 9
BRIGHT = "<answer>Suggestions: bright, pale</answer>"
REWRITTEN = "<think></think><answer>a cat in the rain, in bright pale light</answer>"


class Generator:
    """Draws an image whose colour is its seed, and reads `WINDOW` words."""

    def __init__(self) -> None:
        self.asked: list[tuple[ImageRequest, int]] = []

    def check_prompt(self, prompt: str) -> None:
        if len(prompt.split()) > WINDOW:
            raise UserError("the prompt is too long", got=len(prompt.split()))

    def generate(
        self,
        requests: Sequence[ImageRequest],
        *,
        seed: int | Sequence[int],
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
    ) -> list[Image.Image]:
        (request,) = requests
        self.asked.append((request, seed))
        return [Image.new("RGB", (4, 4), (seed, 0, 0))]


class Critic:
    """Says of seed i that it evokes valence 1 + errors[i] and the wanted arousal.

    Errors of one sign lie to one side of what is wanted; those of both surround it.
    """

    def __init__(self, errors: Sequence[float], texts: Sequence[str] = ()) -> None:
        self.errors = errors
        self.texts = list(texts)
        self.questions: list[Question] = []
        self.shown: list[list[int]] = []
        self.together: list[int] = []

    def understand(
        self, images: Sequence[Image.Image | Path], *, answer: bool = True
    ) -> list[Understanding]:
        assert not answer, "nobody reads the words of a judgement"
        self.together.append(len(images))
        return [
            Understanding(
                emotion="awe",
                probabilities=dict.fromkeys(MIKELS8, 1 / 8),
                affect=Affect.unchecked(1.0 + self.errors[image.getpixel((0, 0))[0]], -1.0),
                text="",
            )
            for image in images
        ]

    def answer(self, questions: Sequence[Question], *, max_tokens: int | None = None) -> list[str]:
        (question,) = questions
        self.questions.append(question)
        self.shown.append([image.getpixel((0, 0))[0] for image in question.images])
        return [self.texts.pop(0)]


def drawn(generator: Generator) -> list[tuple[str, int]]:
    return [(request.prompt, seed) for request, seed in generator.asked]


# --- rounds, by hand


def test_three_rounds_by_hand() -> None:
    generator = Generator()
    second = REWRITTEN.replace("bright pale", "dark soft")
    critic = Critic([1.5, 2.0, 1.75, 1.25, 1.5, 1.25], [BRIGHT, REWRITTEN, BRIGHT, second])
    found = refine(generator, critic, REQUEST, rounds=3, images=2, seed=0)
    rewritten, rewritten_again = (
        "a cat in the rain, in bright pale light",
        "a cat in the rain, in dark soft light",
    )
    assert drawn(generator) == [
        *((REQUEST.prompt, 0), (REQUEST.prompt, 1)),
        *((rewritten, 2), (rewritten, 3)),
        *((rewritten_again, 4), (rewritten_again, 5)),
    ]
    assert {r.affect for r, _ in generator.asked} == {Affect(1.0, -1.0)}
    assert [one.prompt for one in found.rounds] == [REQUEST.prompt, rewritten, rewritten_again]
    assert [[d.error for d in one.drawings] for one in found.rounds] == [
        [1.5, 2.0],
        [1.75, 1.25],
        [1.5, 1.25],
    ]
    assert [(one.best, one.worst) for one in found.rounds] == [(0, 1), (1, 0), (1, 0)]
    assert [one.mean_error for one in found.rounds] == [1.75, 1.5, 1.375]
    best_round, best = found.best
    assert (best.seed, best.affect.valence, best.error) == (3, 2.25, 1.25), "the first of equals"
    assert best_round is found.rounds[1]
    assert found.image.getpixel((0, 0)) == (3, 0, 0)
    assert found.stopped == "all rounds drawn"
    assert critic.texts == [], "after the last round nobody is asked"


def test_the_critic_gets_best_and_worst_image_and_its_answers_are_kept() -> None:
    words = "<think>The light is dark.</think>" + BRIGHT
    critic = Critic([2.0, 3.0, 1.5, 2.0, 2.0, 2.0], [words, REWRITTEN])
    found = refine(Generator(), critic, REQUEST, rounds=2, images=3)
    first, last = found.rounds
    criticised, rewritten = critic.questions
    assert (criticised.task, rewritten.task) == ("criticise", "rewrite")
    assert critic.shown == [[2, 1], []]
    assert all(isinstance(image, Image.Image) for image in criticised.images), "in memory"
    assert "a cat in the rain, valence 1.0, arousal -1.0, from" in criticised.text
    assert "in the mean: valence 3.2, arousal -1.0." in criticised.text, "1 + (2 + 3 + 1.5) / 3"
    assert "as far beyond: valence -1.2, arousal -1.0." in criticised.text, "2 * 1.0 - 3.2"
    assert "a cat in the rain" in rewritten.text
    assert "bright, pale" in rewritten.text
    assert first.critique.words == words
    assert first.critique.analysis == "The light is dark."
    assert first.critique.suggestions == ("bright", "pale")
    assert (first.rewrite, first.kept) == (REWRITTEN, None)
    assert (last.critique, last.rewrite, last.kept) == (None, None, None)


def test_a_round_on_both_sides_of_the_request_is_not_criticised() -> None:
    generator, critic = Generator(), Critic([-2.0, 1.5, 1.5, 2.0, 2.0, 2.0], [BRIGHT, REWRITTEN])
    found = refine(generator, critic, REQUEST, rounds=3, images=2, seed=0)
    first, second, _ = found.rounds
    assert (first.critique, first.rewrite) == (None, None)
    assert first.kept == "the images lie on both sides of the request"
    assert second.prompt == REQUEST.prompt, "more of the same"
    assert critic.shown == [[2, 3], []], "the second round lies to one side"
    assert second.kept is None
    assert found.rounds[2].prompt == "a cat in the rain, in bright pale light"


@pytest.mark.parametrize(("third", "back"), [(2.75, True), (2.5, False)])
def test_a_rewrite_with_a_larger_mean_error_is_dropped(third: float, back: bool) -> None:
    """The first round's mean error is 2.25, the second's 2.25 (kept) or more."""
    errors = [2.5, 2.0, third, 2.0, 2.0, 2.0, 2.0, 2.0]
    again = REWRITTEN.replace("bright pale", "dark soft")
    critic = Critic(errors, [BRIGHT, REWRITTEN, BRIGHT, again, BRIGHT, again])
    found = refine(Generator(), critic, REQUEST, rounds=4, images=2, seed=0)
    rewritten, rewritten_again = (
        "a cat in the rain, in bright pale light",
        "a cat in the rain, in dark soft light",
    )
    assert [one.prompt for one in found.rounds[:2]] == [REQUEST.prompt, rewritten]
    if back:
        why = "a larger mean error than with the prompt before"
        assert (found.rounds[1].kept, found.rounds[1].critique) == (why, None)
        assert [one.prompt for one in found.rounds[2:]] == [REQUEST.prompt, rewritten_again]
        assert found.rounds[2].kept is None, "its images are asked about anew"
    else:
        assert found.rounds[1].kept is None
        assert found.rounds[2].prompt == rewritten_again


@pytest.mark.parametrize(
    ("least", "epsilon", "rounds"), [(0.75, 0.5, 1), (1.0, 0.5, 2), (1.0, 0.75, 1), (0.0, 0.0, 2)]
)
def test_it_stops_below_twice_epsilon(least: float, epsilon: float, rounds: int) -> None:
    critic = Critic([2.0, least, 2.0, 2.0], [BRIGHT, REWRITTEN])
    found = refine(Generator(), critic, REQUEST, rounds=2, images=2, epsilon=epsilon)
    assert len(found.rounds) == rounds
    assert found.stopped == ("near enough" if rounds == 1 else "all rounds drawn")
    assert found.best[1].error == least


def test_it_stops_in_a_later_round_too() -> None:
    critic = Critic([2.0, 1.5, 0.5, 2.0], [BRIGHT, REWRITTEN])
    found = refine(Generator(), critic, REQUEST, rounds=3, images=2)
    assert (len(found.rounds), found.stopped) == (2, "near enough")


def test_equal_errors_show_two_images() -> None:
    critic = Critic([2.0] * 6, ["nothing"])
    found = refine(Generator(), critic, REQUEST, rounds=2, images=3)
    assert critic.shown == [[0, 2]]
    assert found.best[1].seed == 0


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["I like it"], "the suggestions cannot be parsed"),
        (["<answer>Suggestions: </answer>"], "the suggestions cannot be parsed"),
        (["<answer>Suggestions: dark,, pale</answer>"], "the suggestions cannot be parsed"),
        ([BRIGHT, "a cat in the rain, dark"], "the rewrite cannot be parsed"),
        ([BRIGHT, "<answer> </answer>"], "the rewrite cannot be parsed"),
        ([BRIGHT, "<answer>a dog in the sun</answer>"], "the rewrite drops cat, rain"),
        ([BRIGHT, "<answer>a  cat in the rain</answer>"], "the rewrite changes nothing"),
        (
            [BRIGHT, "<answer>a cat in the rain, dark dark dark dark dark</answer>"],
            "the rewrite cannot be drawn: the prompt is too long; got 10",
        ),
    ],
)
def test_a_rewrite_that_cannot_be_used_keeps_the_prompt(texts: list[str], why: str) -> None:
    generator = Generator()
    found = refine(generator, Critic([2.0] * 4, texts), REQUEST, rounds=2, images=2, seed=0)
    assert found.rounds[0].kept == why
    assert found.rounds[0].rewrite == (texts[1] if len(texts) == 2 else None)
    assert drawn(generator) == [(REQUEST.prompt, seed) for seed in range(4)]


def test_a_rewrite_of_many_lines_becomes_one() -> None:
    generator = Generator()
    text = "<answer>\nRain;\n  and A cat\n</answer>"
    refine(generator, Critic([2.0] * 4, [BRIGHT, text]), REQUEST, rounds=2, images=2)
    assert drawn(generator)[-1] == ("Rain; and A cat", 3)


def test_content_is_its_words() -> None:
    assert lost_content("A red cat, in the Rain", "the rain and a cat") == ["red"]
    assert lost_content("a cat", "a catalogue") == ["cat"]
    assert lost_content("cat cat", "") == ["cat"]
    assert lost_content("of the in", "") == []


def test_the_trace_is_plain_data() -> None:
    critic = Critic([2.0, 1.5, 1.75, 2.0], [BRIGHT, REWRITTEN])
    found = refine(Generator(), critic, REQUEST, rounds=2, images=2, seed=0)
    trace = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert trace["request"] == {
        **{"prompt": REQUEST.prompt, "emotion": None},
        **{"valence": 1.0, "arousal": -1.0},
    }
    assert trace["best"] == {
        **{"round": 0, "prompt": REQUEST.prompt, "seed": 1},
        **{"valence": 2.5, "arousal": -1.0, "error": 1.5},
    }
    assert trace["stopped"] == "all rounds drawn"
    assert [one["mean_error"] for one in trace["rounds"]] == [1.75, 1.875]
    assert trace["rounds"][0]["critique"]["suggestions"] == ["bright", "pale"]
    assert [d["seed"] for one in trace["rounds"] for d in one["drawings"]] == [0, 1, 2, 3]


# --- best of


def test_best_of_uses_one_prompt_and_no_text() -> None:
    count = JUDGED_TOGETHER + 2
    errors = [2.0] * count
    errors[JUDGED_TOGETHER + 1] = errors[3] = -0.5
    generator, critic = Generator(), Critic(errors)
    shown = []
    found = best_of(
        generator,
        critic,
        REQUEST,
        count,
        show=lambda words, _state, one, _image: shown.append((words, one.seed)),
    )
    assert drawn(generator) == shown == [(REQUEST.prompt, seed) for seed in range(count)]
    assert critic.together == [JUDGED_TOGETHER, 2]
    assert critic.questions == []
    assert found.best[1].seed == 3, "the first of equals"
    assert found.image.getpixel((0, 0)) == (3, 0, 0)
    assert (len(found.rounds), found.stopped) == (1, "all rounds drawn")
    assert (found.rounds[0].best, found.rounds[0].worst) == (3, JUDGED_TOGETHER)


def test_best_of_needs_no_prompt_but_affect() -> None:
    found = best_of(Generator(), Critic([0.5]), ImageRequest(affect=Affect(1.0, -1.0)), 1)
    assert found.best[1].error == 0.5
    found = best_of(Generator(), Critic([0.5]), ImageRequest(emotion="awe"), 1)
    assert found.request.affect.valence == pytest.approx(1.3875)


# --- bad input


@pytest.mark.parametrize(
    ("request_", "options", "problem"),
    [
        (
            ImageRequest(prompt="a cat"),
            {},
            "images cannot be judged without a target",
        ),
        (ImageRequest(affect=Affect(1.0, 0.0)), {}, "there is no prompt to rewrite"),
        (
            ImageRequest(prompt="a", affect=Affect.unchecked(4.0, 0.0)),
            {},
            "valence is outside its scale",
        ),
        (ImageRequest(prompt="a " * 10, emotion="awe"), {}, "the prompt is too long"),
        (REQUEST, {"rounds": 0}, "rounds; got 0"),
        (REQUEST, {"images": 1}, "images a round; got 1"),
        (REQUEST, {"epsilon": -0.1}, "epsilon; got -0.1"),
        (REQUEST, {"epsilon": math.nan}, "epsilon; got nan"),
        (REQUEST, {"num_inference_steps": 0}, "the number of inference steps; got 0"),
        (REQUEST, {"guidance_scale": math.inf}, "the guidance scale; got inf"),
    ],
)
def test_bad_input_is_an_error_before_any_image(request_, options, problem) -> None:
    generator = Generator()
    with pytest.raises(UserError, match=f"^{problem}"):
        refine(generator, Critic([0.0] * 99), request_, **options)
    assert generator.asked == []
    with pytest.raises(UserError, match="the number of images; got 0"):
        best_of(generator, Critic([]), REQUEST, 0)


def test_a_judge_that_gives_nan_is_an_error() -> None:
    with pytest.raises(
        UserError, match="no finite numbers for the image of seed 1; got valence nan"
    ):
        refine(Generator(), Critic([2.0, math.nan]), REQUEST, images=2)


# --- the real model


def test_a_real_model_generates_judges_and_criticises(tiny) -> None:
    """Random weights say nothing useful: the prompt stays, and every number is the model's own."""
    pipeline = EmoSymPipeline(tiny)
    request = ImageRequest(prompt="a boat at sea", affect=Affect(-1.0, 2.0))
    found = refine(
        pipeline,
        pipeline,
        request,
        rounds=2,
        images=2,
        seed=5,
        num_inference_steps=2,
        epsilon=0,
        max_tokens=4,
    )
    seen = [drawing for one in found.rounds for drawing in one.drawings]
    assert [drawing.seed for drawing in seen] == [5, 6, 7, 8]
    assert found.rounds[0].kept == "the suggestions cannot be parsed"
    for drawing in seen:
        image = pipeline.generate([request], seed=drawing.seed, num_inference_steps=2)
        (judged,) = pipeline.understand(image, answer=False)
        assert drawing.affect.coordinates == pytest.approx(judged.affect.coordinates, abs=1e-5)
        if drawing is found.best[1]:
            assert np.array_equal(np.asarray(found.image), np.asarray(image[0]))
    assert found.best[1].error == min(drawing.error for drawing in seen)
    with pytest.raises(UserError, match="too long for the decoder's text encoder"):
        refine(pipeline, pipeline, ImageRequest(prompt="boats " * 60, affect=Affect(0.0, 0.0)))
