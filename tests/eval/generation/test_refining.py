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
from PIL import Image

from emosym.affect.scales import Affect
from emosym.records import ImageRequest, Understanding
from eval.generation.refining import compare
from eval.generation.requests import EvalRequest, over_plane

ROOT = Path(__file__).resolve().parents[3]
REWRITE = "<think>It is dark.</think><answer>Prompt: a tree in bright light</answer>"
CRITICISM = "<think>Dark.</think><answer>Suggestions: bright light</answer>"


class Painter:
    """Draws a grey: a seed's own, and brighter where the prompt says so."""

    def __init__(self):
        self.drawn = []  # images of each call

    def check_prompt(self, prompt):
        pass

    def generate(self, requests, *, seed, guidance_scale=None, num_inference_steps=None):
        self.drawn.append(len(requests))
        return [
            Image.new("L", (1, 1), own + 100 * ("bright" in one.prompt))
            for one, own in zip(requests, seed, strict=True)
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


def test_by_hand():
    """Asked for 1.5: seeds 10 to 15 are 0.10 to 0.15, with bright light 1.10 to 1.15."""
    request = ImageRequest(prompt="a tree", affect=Affect(1.5, 0.0))
    wanted = EvalRequest(request=request, subject="tree")
    painter = Painter()
    (row,) = compare(
        *(painter, Critic(REWRITE), grey, [wanted]),
        rounds=3,
        images=2,
        seed=10,
        num_inference_steps=1,
    )
    assert painter.drawn == [2] * 5, "three rounds, and the two that they do not share"
    assert {name: round(value, 6) for name, value in row.items()} == {
        "oracle_one": 1.4,
        "oracle_best_of": 1.35,
        "oracle_refine": 0.35,
        "judge_one": 1.4,
        "judge_best_of": 1.35,
        "judge_refine": 0.35,
        "rewritten": 0.5,  # the second rewrite changes nothing
        "first_round": 1.395,
        "last_round": 0.355,
    }
    # A rewrite that loses the tree is not used: then both ways draw the same images.
    painter = Painter()
    (row,) = compare(
        *(painter, Critic("<answer>Prompt: bright light</answer>"), grey, [wanted]), images=2
    )
    assert painter.drawn == [2] * 3
    assert row["rewritten"] == 0
    assert row["oracle_refine"] == row["oracle_best_of"] == pytest.approx(1.45)


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
    assert scores["oracle_gain"]["mean"] == pytest.approx(
        scores["oracle_best_of"]["mean"] - scores["oracle_refine"]["mean"]
    )
