from __future__ import annotations

import json

import numpy as np
import pytest

from emosym.inference.continuity import Continuity
from emosym.tasks import metrics
from eval.generation.continuity import continuity_scores


def one(spearman: float, step: float, unevenness: float | None) -> Continuity:
    return Continuity(
        spearman=spearman, colour_step=step, embedding_step=2 * step, unevenness=unevenness
    )


def test_a_mean_over_prompts_with_its_interval() -> None:
    rho = [1.0, 0.9, -0.5, 0.8]
    scores = continuity_scores([one(r, r / 10, None) for r in rho], seed=3)
    assert scores.mean.spearman == pytest.approx(0.55)
    assert scores.mean.embedding_step == pytest.approx(0.11)
    assert scores.intervals["spearman"] == metrics.bootstrap(metrics.mean, np.array(rho), seed=3)
    low, high = scores.intervals["spearman"]
    assert -0.5 <= low < 0.55 < high <= 1
    assert scores.mean.unevenness is scores.intervals["unevenness"] is None
    assert json.loads(json.dumps(scores.to_dict()))["spearman"] == pytest.approx(0.55)


def test_one_prompt_has_no_interval() -> None:
    scores = continuity_scores([one(1, 0.1, 1.5)], seed=0)
    assert scores.mean == one(1, 0.1, 1.5)
    assert set(scores.intervals.values()) == {None}
