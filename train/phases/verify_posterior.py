"""Verify: understanding RL with EmoSym's differentiable class-posterior reward."""

from __future__ import annotations

import math
from dataclasses import dataclass

from emosym.errors import UserError
from emosym.models.losses import affect_loss, class_posterior, kl_weight, label_loss
from emosym.records import Sample
from train.data.dataset import affect_targets, label_targets
from train.distributed import ranks
from train.phases.base import MicroBatch, Phase, PhaseContext, StepOutput
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

    def loss(self, batch: MicroBatch[Sample]) -> StepOutput:
        """Return the loss of one micro-batch."""
        context, samples = self.context, batch.items
        images = context.image_prompts(context.training_set.views(samples, batch.uniform(4)))
        target = label_targets(samples, context.model.config.emotions).to(context.device)
        output = context.parts["understander"](images)
        reference = context.reference(images)
        reward, kl = class_posterior(output.emotion_logits, reference.emotion_logits, target)
        weight = kl_weight(ranks.mean(kl).item())
        affect = affect_loss(output.affect, affect_targets(samples).to(context.device))
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
