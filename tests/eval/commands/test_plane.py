"""`python -m eval plane` on the shipped model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from eval.generation.requests import world_prompts

ROOT = Path(__file__).resolve().parents[3]


def plane(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "eval", "plane", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_shipped_model_follows_the_plane() -> None:
    done = plane("emosym-tiny", "--prompts", 2, "--images", 1, "--num-inference-steps", 3, "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert (scores["model"], scores["judge"]) == ("emosym-tiny", "emosym-tiny")
    assert (scores["guidance"], scores["steps"], scores["prompts"]) == (2.0, 3, 2)
    assert len(scores["cells"]) == 25
    assert scores["floor_error"] < scores["oracle_error"] < 3.6, "a constant 0 is 3.6 off"
    assert scores["continuity"]["valence"]["spearman"] > 0.8
    assert scores["seed_diversity"] is None
    assert scores["prompt_diversity"] > 0
    assert 0 <= scores["subject_accuracy"] <= 1


def test_prompts_name_all_subjects_alike_and_follow_the_seed() -> None:
    requests = world_prompts(20, 3)
    assert set(Counter(one.subject for one in requests).values()) == {2}
    assert all(f" {one.subject} " in one.request.prompt for one in requests)
    assert requests[:7] == world_prompts(7, 3)
    assert requests != world_prompts(20, 4)


def test_bad_input_is_one_line_before_a_model_is_loaded() -> None:
    for words, message in (
        (("--guidance-scale", "nan"), "the guidance scale; got nan"),
        ((), "unknown model"),
    ):
        done = plane("no-such-model", *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert message in done.stderr
