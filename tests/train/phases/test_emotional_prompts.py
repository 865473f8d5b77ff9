"""The share of prompts that describe colour and light is drawn by the step."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from data_tools.dataset import open_dataset
from emosym.models.model import EmoSym
from emosym.randomness import Draws
from emosym.records import Sample
from tests.model_zoo import make
from train.config import DataConfig
from train.data.dataset import TrainingSet
from train.data.prompt_features import PromptFeatureCache
from train.micro_batches import MicroBatch
from train.phases.base import PhaseContext
from train.phases.generate import Generate, GenerateConfig


@pytest.fixture(scope="module")
def samples(world) -> list[Sample]:
    return [sample for sample in open_dataset(world) if sample.split == "train"][:8]


def flow(samples: list[Sample], share: float) -> float:
    """Return the loss of one step, by the phase itself on the bare parts of a random model."""
    model = make.tiny()
    context = PhaseContext(
        config=SimpleNamespace(generate=GenerateConfig(emotional_share=share, image_share=0.0)),
        model=model,
        parts={name: getattr(model, name) for name in EmoSym.PARTS},
        training_set=TrainingSet(samples, [], DataConfig(), 0),
        device=torch.device("cpu"),
        prompt_features=PromptFeatureCache(model.generator.denoiser, frozen=True),
        reference=None,
        starting_generator=None,
        memory=None,
        knowledge_encoder=None,
        save=lambda: None,
    )
    every = slice(0, len(samples))
    draws = Draws("a step")
    batch = MicroBatch(step_items=samples, rows=every, update=every, draws=draws, model_seed=0)
    with torch.no_grad():
        return Generate(context).loss(batch).loss.item()


def test_a_share_of_prompts_describes_colour_and_light(samples):
    neutral, emotional = flow(samples, 0.0), flow(samples, 1.0)
    described = [replace(sample, prompt=sample.emotional_prompt) for sample in samples]
    assert emotional == flow(described, 0.0)
    assert len({neutral, emotional, flow(samples, 0.5)}) == 3


def test_an_image_without_an_emotional_prompt_keeps_its_neutral_one(samples):
    bare = [replace(sample, emotional_prompt=None) for sample in samples[:4]]
    described = [replace(sample, prompt=sample.emotional_prompt) for sample in samples[4:]]
    assert flow([*bare, *samples[4:]], 1.0) == flow([*bare, *described], 0.0)
