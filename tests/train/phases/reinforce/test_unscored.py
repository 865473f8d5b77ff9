"""Images without a score: left out of their group, drawn again, or the end of the run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emosym.errors import UserError
from tests.model_zoo.chat_server import Handler, serving
from tests.train import probes
from tests.train.phases.reinforce.test_phase import preset
from tests.train.processes import in_ranks
from train.distributed import ranks

ODD = "I would rather not say."


class Mood:
    """A judge that says something odd of some images, and of the same ones again."""

    def __init__(self, is_odd: Callable[[int], bool]) -> None:
        self.is_odd = is_odd
        self.seen: dict[str, int] = {}
        """Image -> its number in order of appearance."""

    def __call__(self, handler: Handler, body: dict) -> None:
        image = body["messages"][0]["content"][0]["image_url"]["url"]
        name = hashlib.sha256(image.encode()).hexdigest()
        number = self.seen.setdefault(name, len(self.seen))
        valence = int(name[:4], 16) / 2**16 * 6 - 3
        answer = f"<answer>Emotion: awe; Valence: {valence:.2f}; Arousal: 1.0</answer>"
        handler.say(ODD if self.is_odd(number) else answer)


def served(model, world, url: str, steps: int, **options: Any) -> dict[str, Any]:
    weights = {"affect": 0.0, "http": 1.0}
    judge = {"path": url, "model": "seer", "retries": 0}
    chosen = {"algorithm": "cps", "batch_size": 2, "num_images_per_prompt": 4, **options}
    return preset(
        *(model, world, steps),
        **{"reward_weights": weights, "judges": {"http": judge}, **chosen},
    )


def trained(run: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """Train to the end or into an error; return the message, the rows and what moved."""
    told = None
    with probes.trainer(run, whole) as made:
        before = probes.weights(made.context.model.generator)
        try:
            made.train()
        except (UserError, ranks.OtherRankError) as error:
            told = str(error)
        after = probes.weights(made.context.model.generator)
    ranks.barrier()
    return {
        "told": told,
        "done": made.state.step,
        "rows": probes.rows(run),
        "moved": any(not torch.equal(before[name], after[name]) for name in before),
    }


def test_a_few_images_without_a_score_are_left_out(tmp_path, model, world):
    """One of eight: above the default share, below the one that is set."""
    mood = Mood(lambda number: number % 8 == 3)
    with serving(mood) as server:
        whole = served(model, world, server.url, 2, max_unjudged=0.125)
        (found,) = in_ranks(trained, tmp_path / "run", whole)
    assert found["told"] is None
    assert found["moved"]
    assert len(mood.seen) == 16
    for row in found["rows"]:
        assert row["reinforce/unjudged"] == 1 / 8
        assert row["reinforce/redraws"] == 0
        assert 0 < row["reinforce/reward"] < 1
        assert row["reinforce/reward_spread"] > 0


@pytest.mark.parametrize(
    ("odd", "options"),
    [
        (lambda number: number == 3, {}),  # 1 of 8 is more than the default of a tenth
        # One score of four in a group, and none: the images of a request arrive in any order.
        (lambda number: number < 3, {"max_unjudged": 1.0, "batch_size": 1}),
        (lambda number: number < 4, {"max_unjudged": 1.0, "batch_size": 1}),
    ],
)
def test_too_many_are_drawn_again(odd, options, tmp_path, model, world):
    """From other noise for the same requests: as many other images, all with a score."""
    mood = Mood(odd)
    with serving(mood) as server:
        whole = served(model, world, server.url, 1, **options)
        (found,) = in_ranks(trained, tmp_path / "run", whole)
    (row,) = found["rows"]
    assert (row["reinforce/redraws"], row["reinforce/unjudged"]) == (1, 0)
    assert len(mood.seen) == 2 * 4 * options.get("batch_size", 2)
    assert found["told"] is None
    assert found["moved"]


def test_after_three_draws_the_run_stops_and_resumes_with_the_next_step(tmp_path, model, world):
    """Of the first 24 images the judge says nothing, however often it is asked."""
    mood = Mood(lambda number: number < 24)
    with serving(mood) as server:
        whole = served(model, world, server.url, 2)
        (stopped,) = in_ranks(trained, tmp_path / "run", whole)
        assert re.fullmatch(
            r"no score for too many images of a step, drawn 3 times: judge 'http'; got 8 of 8"
            r" images without a score; .*rather not say.*; the state is saved: the step was left"
            r" out; correct the judge, .*, then continue with the next step: `make resume RUN=.*`",
            stopped["told"],
        )
        assert (stopped["done"], len(mood.seen), stopped["moved"]) == (1, 24, False)
        (row,) = stopped["rows"]
        assert (row["reinforce/unjudged"], row["reinforce/redraws"]) == (1, 2)
        (resumed,) = in_ranks(trained, tmp_path / "run", whole)
    assert (resumed["told"], resumed["done"], resumed["moved"]) == (None, 2, True)
    assert len(mood.seen) == 32  # none was drawn twice
    assert [row["reinforce/unjudged"] for row in resumed["rows"]] == [1, 0]


def refusal(run: Path, whole: dict[str, Any]) -> str:
    """Return why a run cannot start."""
    with pytest.raises(UserError) as caught, probes.trainer(run, whole):
        pass
    return str(caught.value)


def test_a_run_does_not_choose_the_server_that_gets_the_key(tmp_path, model, world, monkeypatch):
    """As that of somebody else, which is resumed."""
    monkeypatch.setenv("EMOSYM_JUDGE_KEY", "sk-secret")
    monkeypatch.setenv("EMOSYM_JUDGE_URL", "https://api.example.com/v1")
    with serving(Mood(lambda number: False)) as server:
        whole = served(model, world, server.url, 1)
        (told,) = in_ranks(refusal, tmp_path / "run", whole)
    assert f"is not sent to the judge at {server.url}; got EMOSYM_JUDGE_URL=https://api." in told
    assert server.requests == []


def test_all_ranks_stop_when_one_has_no_scores(tmp_path, model, world):
    mood = Mood(lambda number: number % 2 == 0)
    with serving(mood) as server:
        whole = served(model, world, server.url, 2)
        first, second = in_ranks(trained, tmp_path / "run", whole, size=2)
    assert "judge 'http'; got" in first["told"]
    assert "rather not say" in first["told"]
    assert second["told"] == ""
    assert (first["done"], second["done"]) == (1, 1)
    assert not first["moved"]


def test_an_image_that_one_of_two_judges_leaves_out_is_left_out(tmp_path, model, world):
    mood = Mood(lambda number: number % 8 == 5)
    with serving(mood) as server:
        weights = {"affect": 0.5, "http": 0.5}
        whole = served(
            *(model, world, server.url, 1),
            reward_weights=weights,
            max_unjudged=0.2,
            algorithm="nft",
        )
        (found,) = in_ranks(trained, tmp_path / "run", whole)
    (row,) = found["rows"]
    assert row["reinforce/unjudged"] == 1 / 8
    assert 0 < row["reinforce/reward_http"] < 1
    assert 0 < row["reinforce/reward_affect"] < 1


@pytest.mark.parametrize("silent", [False, True])
def test_a_judge_that_watches_may_leave_images_out(silent, tmp_path, model, world):
    """What it says of the others is logged; nothing is drawn again."""
    mood = Mood(lambda number: silent or number % 4 == 0)
    with serving(mood) as server:
        whole = served(
            *(model, world, server.url, 3),
            reward_weights={"affect": 1.0},
            watch=["http"],
            patience=2,
        )
        (found,) = in_ranks(trained, tmp_path / "run", whole)
    assert found["told"] is None
    for row in found["rows"]:
        assert (row["reinforce/unjudged"], row["reinforce/redraws"]) == (0, 0)
        assert row["reinforce/hacking"] == 0
        if silent:
            assert row["reinforce/http"] is row["reinforce/second_judge"] is None
        else:
            assert 0 < row["reinforce/http"] < 1
            assert 0 < row["reinforce/second_judge"] < 1


def test_a_share_lies_between_none_and_all(tmp_path, model, world):
    whole = preset(model, world, max_unjudged=1.5)
    (found,) = in_ranks(probes.refused, tmp_path / "run", whole)
    assert "max_unjudged must lie in [0, 1]" in found
