"""The share of prompts that describe colour and light is drawn by the step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data_tools.dataset import open_dataset
from emosym.records import Sample
from tests.train.phases.bare import loss
from train.phases.generate import GenerateConfig


@pytest.fixture(scope="module")
def samples(world) -> list[Sample]:
    return [sample for sample in open_dataset(world) if sample.split == "train"][:8]


def flow(samples: list[Sample], share: float) -> float:
    """Return the loss of one step, by the phase itself on the bare parts of a random model."""
    return loss(GenerateConfig(emotional_share=share, image_share=0.0), samples)


def test_a_share_of_prompts_describes_colour_and_light(samples):
    neutral, emotional = flow(samples, 0.0), flow(samples, 1.0)
    described = [replace(sample, prompt=sample.emotional_prompt) for sample in samples]
    assert emotional == flow(described, 0.0)
    assert len({neutral, emotional, flow(samples, 0.5)}) == 3


def test_an_image_without_an_emotional_prompt_keeps_its_neutral_one(samples):
    bare = [replace(sample, emotional_prompt=None) for sample in samples[:4]]
    described = [replace(sample, prompt=sample.emotional_prompt) for sample in samples[4:]]
    assert flow([*bare, *samples[4:]], 1.0) == flow([*bare, *described], 0.0)
