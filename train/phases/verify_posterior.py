"""Verify: understanding RL with EmoSym's differentiable class-posterior reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from emosym.errors import UserError
from emosym.models.losses import affect_loss, class_posterior, kl_weight, label_loss
from emosym.records import Sample
from train.data.dataset import affect_targets, label_targets
from train.distributed import ranks
from train.micro_batches import MicroBatch
from train.phases.base import Phase, PhaseContext, StepOutput
from train.ranges import check_positive, check_range


@dataclass(kw_only=True, slots=True)
class VerifyPosteriorConfig:
    """RL with the differentiable class-posterior reward. Ref: EmoSym, step 2 (docs/papers.md)."""

    batch_size: int = 32
    """Images a step."""
    affect_weight: float = 1.0
    """Smooth L1 on valence and arousal (ours; 0 as published)."""
    hard_negatives: float = 0.0
    """Largest share of hard negatives in a batch, at most 0.5: real images of the bank with nearly
    the same prompt as an image of the batch, and another emotion."""

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size)
        check_range(math.inf, affect_weight=self.affect_weight)
        check_range(0.5, hard_negatives=self.hard_negatives)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A micro-batch before its loss."""

    views: Sequence[Image.Image]
    """The images as the model sees them, flipped and cropped, [B]."""
    reference_logits: Tensor
    """[B, Y] of the frozen reference."""
    kl_weight: float | None = None
    """Weight of the KL by its mean in the whole step; None where `loss` knows that mean itself."""


class VerifyPosterior(Phase[VerifyPosteriorConfig, Sample]):
    """CE - (r̃ - λ KL) with EmoSym's differentiable class-posterior reward. Ref: EmoSym, step 2."""

    name = "verify_posterior"
    Config = VerifyPosteriorConfig
    owns = ("understander",)
    replays = True

    def __init__(self, context: PhaseContext) -> None:
        super().__init__(context)
        self.hard_negatives = self.config.hard_negatives
        unlabelled = sum(sample.emotion is None for sample in context.training_set.samples)
        if unlabelled:
            raise UserError(
                "phase verify_posterior needs an emotion label for every training image",
                got=f"{unlabelled} of {len(context.training_set.samples)} without",
                fix="use phase verify_grpo with verify_grpo.reward_weights.emotion=0",
            )
        if self.hard_negatives and context.memory.path is None:
            raise UserError(
                "verify_posterior.hard_negatives needs a memory bank",
                fix="give a stage the phase remember, or set it to 0",
            )
        if self.config.affect_weight:
            context.training_set.require("verify_posterior.affect_weight", "valence", "arousal")

    def prepare(self, batches: Sequence[MicroBatch[Sample]]) -> Sequence[Prepared]:
        """Choose the views; several micro-batches are read twice, first for the KL of the step."""
        context = self.context
        found = []
        for batch in batches:
            views = context.training_set.views(batch.items, batch.uniform(4))
            reference = context.reference(context.image_prompts(views)).emotion_logits
            found.append(Prepared(views, reference))
        if len(batches) == 1:
            return found
        kls = []
        for batch, prepared in zip(batches, found, strict=True):
            batch.seed_model()
            output = context.model.read(context.image_prompts(prepared.views))
            kls.append(self._reward(output.emotion_logits, batch, prepared)[1])
        weight = kl_weight(ranks.mean(torch.stack(kls).mean()).item())
        return [replace(prepared, kl_weight=weight) for prepared in found]

    def loss(self, batch: MicroBatch[Sample]) -> StepOutput:
        """Return the loss of one micro-batch."""
        context, prepared = self.context, batch.prepared
        output = context.parts["understander"](context.image_prompts(prepared.views))
        reward, kl = self._reward(output.emotion_logits, batch, prepared)
        weight = prepared.kl_weight
        if weight is None:
            weight = kl_weight(ranks.mean(kl).item())
        target = self._labels(batch)
        affect = affect_loss(output.affect, affect_targets(batch.items).to(context.device))
        loss = (
            label_loss(output.emotion_logits, target)
            - (reward - weight * kl)
            + self.config.affect_weight * affect
        )
        return StepOutput(
            loss,
            {
                "reward": reward.detach(),
                "kl": kl.detach(),
                "kl_weight": weight,
                "accuracy": (output.emotion_logits.argmax(-1) == target).float().mean(),
                "affect": affect.detach(),
            },
        )

    def _labels(self, batch: MicroBatch[Sample]) -> Tensor:
        labels = label_targets(batch.items, self.context.model.config.emotions)
        return labels.to(self.context.device)

    def _reward(
        self, logits: Tensor, batch: MicroBatch[Sample], prepared: Prepared
    ) -> tuple[Tensor, Tensor]:
        """Return the mean reward and KL of a micro-batch."""
        return class_posterior(logits, prepared.reference_logits, self._labels(batch))
