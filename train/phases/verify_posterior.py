"""Verify: understanding RL with EmoSym's differentiable class-posterior reward."""

from __future__ import annotations

from emosym.errors import UserError
from emosym.models.losses import affect_loss, class_posterior, kl_weight, label_loss
from train.data.dataset import affect_targets, label_targets
from train.distributed import ranks
from train.phases.base import MicroBatch, PhaseContext, StepOutput


class VerifyPosterior:
    """CE - (r̃ - λ KL) with EmoSym's differentiable class-posterior reward. Ref: EmoSym §2.5."""

    name = "verify_posterior"
    owns = ("understander",)
    material = "samples"
    replays = True
    compares = None
    dropout = True

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.config = context.config.verify_posterior
        self.batch_size = self.config.batch_size
        self.hard_negatives = self.config.hard_negatives
        unlabelled = sum(sample.emotion is None for sample in context.training_set.samples)
        if unlabelled:
            raise UserError(
                "phase verify_posterior needs an emotion label for every training image",
                got=f"{unlabelled} of {len(context.training_set.samples)} without",
                fix="use phase verify_grpo with verify_grpo.rewards.emotion=0",
            )
        if self.hard_negatives and context.memory.path is None:
            raise UserError(
                "verify_posterior.hard_negatives has no bank to find them in",
                fix="give a stage the phase remember, or set it to 0",
            )
        if self.config.affect_weight:
            context.training_set.require("verify_posterior.affect_weight", "valence", "arousal")

    def loss(self, part: MicroBatch) -> StepOutput:
        """Return the loss of one micro-batch."""
        context = self.context
        asked = context.ask(context.training_set.views(part.samples, part.uniform(4)))
        target = label_targets(part.samples, context.model.config.emotions).to(context.device)
        reading = context.parts["understander"](asked)
        anchor = context.reference(asked)
        reward, kl = class_posterior(reading.emotion_logits, anchor.emotion_logits, target)
        weight = kl_weight(ranks.mean(kl).item())
        affect = affect_loss(reading.affect, affect_targets(part.samples).to(context.device))
        loss = (
            label_loss(reading.emotion_logits, target)
            - (reward - weight * kl)
            + self.config.affect_weight * affect
        )
        right = (reading.emotion_logits.argmax(-1) == target).float().mean()
        metrics = {"reward": reward.detach(), "kl": kl.detach(), "kl_weight": weight}
        return StepOutput(loss, {**metrics, "accuracy": right, "affect": affect.detach()})
