"""`python -m eval refining`, and what it compares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
from PIL import Image

from emosym.affect.scales import Affect
from emosym.models.steering import SteeredState
from emosym.records import ImageRequest, Understanding
from eval.generation.refining import compare
from eval.generation.requests import EvalRequest, over_plane

ROOT = Path(__file__).resolve().parents[3]
REWRITE = "<think>It is dark.</think><answer>Prompt: a tree in bright light</answer>"
CRITICISM = "<think>Dark.</think><answer>Suggestions: bright light</answer>"


class Painter:
    """Draws a grey: a seed's own, and brighter where the prompt or the state says so.

    A state is one number, the grey that it adds for each unit of valence that it aims at.
    """

    def __init__(self):
        self.drawn = []  # images of each call

    def check_prompt(self, prompt):
        pass

    def steer(self, images, affects, aim):
        greys = [image.getpixel((0, 0)) for image in images]
        assert [one.valence for one in affects] == [grey / 100 for grey in greys]
        return SteeredState(
            state=torch.full((1, 1), 50 * aim.valence),
            images=(1 / len(images),) * len(images),
            emotions={},
            affect=aim,
        )

    def generate(
        self, requests, *, seed, guidance_scale=None, num_inference_steps=None, states=None
    ):
        self.drawn.append(len(requests))
        added = [0.0] * len(requests) if states is None else states[:, 0, 0].tolist()
        return [
            Image.new("I", (1, 1), own + round(more) + 100 * ("bright" in one.prompt))
            for one, own, more in zip(requests, seed, added, strict=True)
        ]


class Critic:
    """Sees a grey level of 100 as valence 1; asks for bright light, once or in vain."""

    def __init__(self, rewrite):
        self.rewrite = rewrite

    def understand(self, images, *, answer=True):
        return [
            Understanding(
                emotion="awe",
                probabilities={"awe": 1.0},
                affect=Affect(image.getpixel((0, 0)) / 100, 0.0),
                text="",
            )
            for image in images
        ]

    def answer(self, questions, *, max_tokens=None):
        return [CRITICISM if one.images else self.rewrite for one in questions]


def grey(image, subject):
    return Affect(image.getpixel((0, 0)) / 100, 0)


def shown(images):
    """Say that dark images show a tree."""
    return ["tree" if image.getpixel((0, 0)) < 100 else "cat" for image in images]


def test_by_hand():
    """Asked for 1.5: seeds 10 to 15 are 0.10 to 0.15, with bright light 1.10 to 1.15.

    The first round reaches 0.105. So the state aims at 1.5 + 1.5 - 0.105 = 2.895, and a grey of
    145 is added: 1.57 and 1.58. From there it aims at 2.895 + 1.5 - 1.575 = 2.82, and 141 is
    added: 1.55 and 1.56. Both together reach 2.575, too bright, but nearer than 0.105. From there
    the state aims at 2.895 + 1.5 - 2.575 = 1.82, and 91 is added: 2.05 and 2.06.
    """
    request = ImageRequest(prompt="a tree", affect=Affect(1.5, 0.0))
    wanted = EvalRequest(request=request, subject="tree")
    painter = Painter()
    (row,) = compare(
        *(painter, Critic(REWRITE), grey, [wanted]),
        rounds=3,
        images=2,
        seed=10,
        num_inference_steps=1,
        classify=shown,
    )
    assert painter.drawn == [2] * 9, "three rounds, and two that each other way does not share"
    assert {name: round(value, 6) for name, value in row.items()} == {
        "oracle_one": 1.4,
        "oracle_best_of": 1.35,
        "oracle_refine": 0.35,
        "oracle_refine_state": 0.05,
        "oracle_refine_both": 0.55,
        "judge_one": 1.4,
        "judge_best_of": 1.35,
        "judge_refine": 0.35,
        "judge_refine_state": 0.05,
        "judge_refine_both": 0.55,
        "subject_one": 1,
        "subject_best_of": 1,
        "subject_refine": 0,
        "subject_refine_state": 0,
        "subject_refine_both": 0,
        "rewritten": 0.5,  # the second rewrite changes nothing
        "first_round": 1.395,
        "last_round": 0.355,
        "last_round_state": 0.055,
        "last_round_both": 0.555,
    }
    # A rewrite that loses the tree is not used: then the words draw the same images.
    painter = Painter()
    (row,) = compare(
        *(painter, Critic("<answer>Prompt: bright light</answer>"), grey, [wanted]), images=2
    )
    assert painter.drawn == [2] * 5, "as words, best_of; and two rounds of states"
    assert row["rewritten"] == 0
    assert row["oracle_refine"] == row["oracle_best_of"] == pytest.approx(1.45)
    assert row["oracle_refine_state"] == row["oracle_refine_both"] < 0.1
    assert not any(name.startswith("subject") for name in row)


def test_each_point_has_as_many_prompts_each_of_its_own():
    prompts = [
        EvalRequest(request=ImageRequest(prompt=f"tree {number}"), subject="tree")
        for number in range(75)
    ]
    requests = over_plane(prompts, 5, seed=0)
    points = Counter(one.request.affect.coordinates for one in requests)
    assert len(points) == 25
    assert set(points.values()) == {3}
    assert {value for point in points for value in point} == {-3, -1.5, 0, 1.5, 3}
    bare = [replace(one.request, affect=None) for one in requests]
    assert bare == [one.request for one in prompts], "in their order, which subjects follow"
    assert over_plane(prompts, 5, seed=0) == requests != over_plane(prompts, 5, seed=1)


def test_the_command():
    few = [
        "--prompts",
        "1",
        "--points",
        "2",
        "--rounds",
        "2",
        "--images",
        "2",
        "--num-inference-steps",
        "2",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "eval", "refining", "--json", *few],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert scores["requests"] == len(scores["each"]) == 4
    assert len({one["prompt"] for one in scores["each"]}) == 4
    assert scores["oracle_one"]["mean"] == pytest.approx(
        fmean(one["oracle_one"] for one in scores["each"])
    )
    assert 0 < scores["judge_best_of"]["mean"] < scores["judge_one"]["mean"]
    for suffix in ("", "_state", "_both"):
        gain = scores[f"oracle_gain{suffix}"]
        difference = [
            one["oracle_best_of"] - one[f"oracle_refine{suffix}"] for one in scores["each"]
        ]
        assert gain["mean"] == pytest.approx(fmean(difference))
        low, high = gain["interval"]
        assert min(difference) <= low <= gain["mean"] <= high <= max(difference)
    assert 0 <= scores["subject_refine_state"]["mean"] <= 1
