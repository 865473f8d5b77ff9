"""A model without reasoning tokens (K = 0) trains in every phase, is saved, and goes on."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from emosym.affect.scales import Affect
from emosym.inference.pipeline import EmoSymPipeline
from emosym.records import ImageRequest
from model_zoo import zoo
from tests.model_zoo.make import picture
from tests.train import probes
from tests.train.processes import in_ranks, train

CYCLE = {"compress": 1, "verify_posterior": 1, "verify_grpo": 1, "generate": 1, "remember": 1}


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """Return the folder of a random model without reasoning tokens."""
    folder = tmp_path_factory.mktemp("bare") / "model"
    in_ranks(probes.write_model, folder, 0)
    return folder


def write(path: Path, bare: Path, world: Path, **sections) -> Path:
    whole = {
        "stages": [{"steps": 10, "cycle": CYCLE}],
        "compress": {"knowledge_weight": 0.0, "language_weight": 0.1},
        "generate": {"update_understander": True, "image_share": 1.0},
        "evaluate": {"before": True, "images": 4, "requests": 2, "per_request": 1},
        "save_every": 5,
    }
    path.write_text(json.dumps(probes.settings(bare, world, **whole | sections)))
    return path


def test_every_phase_trains_it_and_a_resumed_run_is_the_straight_one(tmp_path, bare, world):
    run = tmp_path / "run"
    straight = train("run", write(tmp_path / "preset.yaml", bare, world), "--run", run)
    assert straight.code == 0, straight.err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    numbers = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert len(rows) == 10
    assert all(math.isfinite(number) for number in numbers)
    assert {row["compress/latent_rank"] for row in rows if "compress/latent_rank" in row} == {0}
    files = zoo.model_files(run / "model")
    shutil.rmtree(run / "checkpoints" / "step-0000010")
    resumed = train("resume", run)
    assert resumed.code == 0, resumed.err
    assert zoo.model_files(run / "model") == files
    before, after = zoo.load(bare).state_dict(), zoo.load(run / "model").state_dict()
    assert before.keys() == after.keys()
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert "understander.reasoner.emotion" not in still
    assert not any(name.startswith("generator.conditioner.connector.") for name in still)
    assert [n for n in still if n.startswith("understander.reasoner")] == [
        "understander.reasoner.context"
    ]


def test_it_understands_and_draws(bare):
    model = EmoSymPipeline.from_pretrained(bare)
    (seen,) = model.understand([picture()])
    assert sum(seen.probabilities.values()) == pytest.approx(1, abs=1e-5)
    (image,) = model.generate(
        [ImageRequest(prompt="a boat", affect=Affect(2, 1))], num_inference_steps=1
    )
    (other,) = model.generate(
        [ImageRequest(prompt="a boat", affect=Affect(-2, 1))], num_inference_steps=1
    )
    assert image.tobytes() != other.tobytes()


def test_there_is_nothing_to_teach_knowledge_to(tmp_path, bare, world):
    preset = write(tmp_path / "p.yaml", bare, world, compress={"knowledge_weight": 0.5})
    refused = train("run", preset, "--run", tmp_path / "run")
    assert refused.code == 2
    assert refused.errors == [
        "error: compress.knowledge_weight has no reasoning tokens to teach; got reasoning_tokens=0;"
        " set compress.knowledge_weight=0, or give the model some"
    ]
