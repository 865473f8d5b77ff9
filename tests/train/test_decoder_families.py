"""The generate phase trains decoders of all kinds, whole and through adapters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model_zoo import zoo
from model_zoo.compose import compose
from model_zoo.decoders.loading import save_decoder
from tests.model_zoo import make
from tests.train import probes
from tests.train.processes import in_ranks
from train.data.base_texts import base_texts

FAMILIES = ("sdxl", "sd3")
STEPS = 16


@pytest.fixture(scope="module")
def models(tmp_path_factory, model) -> dict[str, Path]:
    """Return a model folder with a decoder of each family, and of the member without weights."""
    folder = tmp_path_factory.mktemp("families")
    found = {}
    for family in FAMILIES:
        save_decoder(*make.decoder(family), folder / family)
        kind = "connector" if family == "sdxl" else "word"
        made = compose(
            model / "backbone", folder / family, reasoning_tokens=2, hidden=16, conditioner=kind
        )
        found[family] = zoo.save(made, folder / f"{family}-model")
    made = zoo.build("emosym-tiny-unet", base_texts(300, 0), 0)
    return found | {"emosym-tiny-unet": zoo.save(made, folder / "emosym-tiny-unet")}


def settings(model: Path, world: Path, steps: int, **sections):
    return probes.settings(
        model,
        world,
        stages=[{"steps": steps, "cycle": {"generate": 1}}],
        **{"engine": {"gradient_checkpointing": True, "generator": {"learning_rate": 1e-3}}}
        | sections,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory, models, world):
    """Return what runs of all families gave, all of them in one process."""
    wholes = {family: settings(models[family], world, STEPS) for family in models}
    lora = {"generator": {"rank": 2, "alpha": 4}}
    wholes["lora"] = settings(models["sdxl"], world, 2, lora=lora)
    return in_ranks(probes.outcome, tmp_path_factory.mktemp("runs"), wholes)[0]


@pytest.mark.parametrize("family", [*FAMILIES, "emosym-tiny-unet"])
def test_the_loss_falls_and_only_the_generator_moves(found, family):
    losses = [row["generate/loss"] for row in found[family]["rows"] if "generate/loss" in row]
    assert len(losses) == STEPS
    assert sum(losses[-6:]) < sum(losses[:6])
    moved = {
        name
        for name, value in found[family]["weights"].items()
        if not torch.equal(value, found[family]["before"][name])
    }
    assert {name.split(".")[1] for name in moved} == {"denoiser", "conditioner"}
    assert not any(".text_encoder." in name for name in moved)
    assert any(name.startswith("generator.denoiser.network.") for name in moved)


def test_adapters_train_and_the_base_stays(found):
    moved = {
        name
        for name, value in found["lora"]["weights"].items()
        if not torch.equal(value, found["lora"]["before"][name])
    }
    of_decoder = {name for name in moved if name.startswith("generator.denoiser.")}
    assert of_decoder
    assert all(".lora_" in name for name in of_decoder)
