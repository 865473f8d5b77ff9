"""Compress in all its forms: any number of tokens, any encoder, and what each loss teaches."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from emosym.config import load_config
from emosym.errors import UserError
from emosym.models.model import DECODER, ModelConfig
from model_zoo import catalogue
from model_zoo.text.text_encoders import SENTENCE
from tests.train import probes
from tests.train.processes import in_ranks
from train.phases.compress import Compress, CompressConfig
from train.phases.registry import train_config

TOKENS = (1, 4, 8, 16)
WORDS = {"distil_weight": 1.0, "reconstruct_weight": 0.1, "language_weight": 0.2}
STILL = {
    "learning_rate": 2e-3,
    "weight_decay": 0.0,
    "warmup_steps": 5,
    "lr_scheduler_type": "constant",
}
LESSON = 60


@pytest.fixture(scope="module")
def found(tmp_path_factory, model, world):
    """Return what every case of this file gave, from one process."""
    folder = tmp_path_factory.mktemp("compress")

    def whole(start: Path, steps: int = 1, **sections):
        stages = [{"steps": steps, "cycle": {"compress": 1}}]
        return probes.settings(start, world, stages=stages, **sections)

    counts = {
        f"K={count}": (
            folder / f"k{count}",
            whole(model, compress=WORDS, reasoning_tokens=count),
        )
        for count in TOKENS
    }
    none = {"knowledge_weight": 0.0, "distil_weight": 1.0}
    counts["K=0"] = (folder / "k0", whole(model, compress=none, reasoning_tokens=0))
    sentence = {"knowledge_encoder": SENTENCE}
    counts["sentence"] = (folder / "sentence", whole(model, compress=sentence))
    counts["kept"] = (folder / "kept", whole(folder / "sentence" / "model"))
    counts["back"] = (
        folder / "back",
        whole(folder / "sentence" / "model", compress={"knowledge_encoder": DECODER}),
    )
    base = catalogue.folder_of("emosym-tiny")
    rate = {"engine": {"understander": STILL}}
    lessons = {
        "reconstruct": {"reconstruct_weight": 1.0},
        "distil": {"distil_weight": 1.0},
    }
    taught = {
        name: (folder / name, whole(base, LESSON, compress={"batch_size": 8, **loss}, **rate), 8)
        for name, loss in lessons.items()
    }
    return {
        **in_ranks(probes.many, probes.refitted, counts)[0],
        **in_ranks(probes.many, probes.decoded, taught)[0],
    }


@pytest.mark.parametrize("count", TOKENS)
def test_any_number_of_tokens_trains(found, count):
    case = found[f"K={count}"]
    (row,) = case["rows"]
    names = ("label", "knowledge", "affect", "language", "distil", "teacher", "reconstruct")
    parts = [row[f"compress/{name}"] for name in names]
    assert min(parts) > 0
    assert row["compress/loss"] == pytest.approx(sum(parts), rel=1e-5)
    assert 1 <= row["compress/latent_rank"] <= count + 1e-4
    assert (row["compress/latent_cosine"] is None) == (count == 1)
    assert -1 <= row["compress/image_cosine"] <= 1
    assert case["config"]["reasoning_tokens"] == count
    assert case["before"]["understander.reasoner.context"].shape == (count, 48)
    assert {"understander.reasoner.context", "understander.reasoner.emotion"} <= case["moved"]
    assert case["saved"]


def test_new_tokens_are_small_and_the_rest_is_kept(found):
    """N(0, 0.02), drawn from the seed; without a change, nothing is drawn and the hash stays."""
    own, new = found["K=4"]["before"], found["K=16"]["before"]
    context = new["understander.reasoner.context"]
    assert context.std().item() == pytest.approx(0.02, rel=0.1)
    name = "understander.reasoner.emotion"
    assert torch.equal(own[name], new[name])
    assert all(torch.equal(own[n], new[n]) for n in own if n != "understander.reasoner.context")
    hashes = {case: found[case]["hash"] for case in ("K=1", "K=4", "K=16", "kept", "sentence")}
    assert len(set(hashes.values())) == len(hashes)


def test_without_latents(found):
    case = found["K=0"]
    (row,) = case["rows"]
    assert "compress/knowledge" not in row
    assert row["compress/distil"] > 0
    assert "understander.reasoner.emotion" in case["moved"]
    assert case["config"]["reasoning_tokens"] == 0


@pytest.mark.parametrize("loss", ["knowledge", "reconstruct"])
def test_a_loss_on_latents_needs_some(loss):
    weights = {"knowledge_weight": 0.0, f"{loss}_weight": 1.0}
    context = SimpleNamespace(
        config=SimpleNamespace(compress=CompressConfig(**weights)),
        training_set=SimpleNamespace(require=lambda *_: None),
        model=SimpleNamespace(config=ModelConfig(reasoning_tokens=0)),
    )
    with pytest.raises(UserError, match=rf"^compress.{loss}_weight has no reasoning tokens"):
        Compress(context)


def test_a_random_language_model_cannot_reconstruct(tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text("stages: [{steps: 1, cycle: {compress: 1}}]\nfrom_scratch: true\n")
    with pytest.raises(UserError, match=r"reconstruct_weight needs .* got from_scratch=true"):
        load_config(train_config(), path, ["compress.reconstruct_weight=0.1"])


def test_the_head_belongs_to_its_encoder(found):
    """Another encoder gets a new head and is saved with the model, and kept by later runs."""
    first = "understander.knowledge_head.0.weight"
    widths = {name: found[name]["before"][first].shape[1] for name in ("sentence", "kept", "back")}
    assert widths == {"sentence": 384, "kept": 384, "back": 32}
    for name in ("sentence", "kept"):
        config = found[name]["config"]
        assert (config["knowledge_encoder"], config["knowledge_width"]) == (SENTENCE, 384)
        assert first in found[name]["moved"]
    config = found["back"]["config"]
    assert (config["knowledge_encoder"], config["knowledge_width"]) == (DECODER, None)
    for name in ("sentence", "kept"):
        assert 0 < found[name]["rows"][0]["compress/knowledge"] < 2 * math.log(4)


def test_a_text_is_decoded_from_the_states_of_its_image(found):
    """Eight images are memorised: the loss falls, and is high given the states of another image."""
    lesson = found["reconstruct"]
    begin = lesson["rows"][0]["compress/reconstruct"]
    assert begin > 2.5
    assert lesson["own"] < 0.8
    assert lesson["other"] > 2 * lesson["own"]
    ranks = [row["compress/latent_rank"] for row in lesson["rows"]]
    assert ranks[-1] > ranks[0] + 0.5  # one vector cannot hold a sentence


def test_distillation_brings_the_latents_to_the_words(found):
    distances = [row["compress/distil"] for row in found["distil"]["rows"]]
    assert min(distances[-10:]) < 0.2 * distances[0]
