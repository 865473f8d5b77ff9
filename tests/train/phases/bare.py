"""The phase generate on the bare parts of a random model, without a trainer."""

from __future__ import annotations

from types import SimpleNamespace

import torch

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


@torch.no_grad()
def loss(config: GenerateConfig, samples: list[Sample], rows: slice = slice(None)) -> float:
    """Return the loss of the rows of a rank in one step on all samples."""
    model = make.tiny()
    context = PhaseContext(
        config=SimpleNamespace(generate=config),
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
    batch = MicroBatch(
        step_items=samples,
        rows=slice(*rows.indices(len(samples))),
        update=slice(0, len(samples)),
        draws=Draws("a step"),
        model_seed=0,
    )
    return Generate(context).loss(batch).loss.item()
