from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageChops

from data_tools.questions.build import build_questions
from emosym.inference import sheets
from emosym.records import Sample
from eval.generation.grid import affect_grid
from eval.held_out import grids, measure
from tests.eval.painter import SIDE, Painter, colour

NOTHING = {"images": 0, "requests": 0, "per_request": 1, "answers": False, "seed": 0}


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Return images that show a valence of -3, 0, 3; the last but one is rated one too low."""
    samples = []
    for split in ("train", "test"):
        for place, (shown, rated) in enumerate([(-3, -3.0), (0, -1.0), (3, 3.0)]):
            path = tmp_path / f"{split}-{place}.png"
            Image.new("RGB", (SIDE, SIDE), colour(shown, 0)).save(path)
            samples.append(Sample(id=path.stem, image=path, split=split, valence=rated))
    return samples


def test_questions_of_the_test_split_are_scored(samples: list[Sample]) -> None:
    questions = build_questions(samples, ["valence"], 0)
    assert len(questions) == 6
    found = measure(Painter(), Painter(), samples, questions=questions, **NOTHING)
    (task,) = found.tasks
    assert task == "valence"
    assert found.tasks["valence"].count == 3
    # One unit of six, on the scale of the question, [0, 1]; a colour has 256 levels.
    assert found.tasks["valence"].metrics["mae"] == pytest.approx(1 / 6 / 3, abs=0.002)
    assert found.tasks["valence"].metrics["srcc"] == pytest.approx(1.0)
    plain = found.to_dict()
    assert plain["tasks"]["valence"]["count"] == 3
    assert plain["tasks"]["valence"]["well_formed"] == 1.0
    assert plain["understanding"] is plain["generation"] is None


def test_without_questions_nothing_is_asked(samples: list[Sample]) -> None:
    for questions in ([], build_questions(samples[:3], ["valence"], 0)):
        found = measure(Painter(), Painter(), samples, questions=questions, **NOTHING)
        assert found.tasks is None
        assert found.to_dict() == dict.fromkeys(("understanding", "generation", "tasks"))


def test_grids_are_stacked() -> None:
    samples = [
        Sample(id=prompt, image=Path("unused.png"), split="test", valence=1.0, prompt=prompt)
        for prompt in ("a boat", "a hut")
    ]
    one = affect_grid(Painter(), "a boat", seed=0)
    both = grids(Painter(), samples, 2, seed=0)
    assert both is not None
    assert both.size == (one.width, 2 * one.height)
    for top in (0, one.height):
        part = both.crop((0, top, one.width, top + one.height))
        changed = ImageChops.difference(part, one).getbbox()
        assert changed is None or changed[3] <= sheets.TOP, "another title and nothing else"
    assert grids(Painter(), samples, 0, seed=0) is None
