"""Compress: reasoning tokens absorb emotional reasoning knowledge. Ref: EmoSym §2.4."""

from __future__ import annotations

import torch
from torch import Tensor

from emosym.errors import UserError
from emosym.interfaces import Answers
from emosym.models.losses import affect_loss, distil_loss, info_nce, label_loss, language_loss
from emosym.models.reasoner import effective_rank, mean_cosine, norm_ratio
from emosym.models.understander import Distillation, UnderstanderOutput
from train.data.dataset import affect_targets, label_targets
from train.distributed import ranks
from train.phases.base import MicroBatch, PhaseContext, StepOutput

NEEDS = {
    "label": ("emotion",),
    "knowledge": ("knowledge",),
    "affect": ("valence", "arousal"),
    "language": ("knowledge",),
    "distil": ("knowledge",),
    "reconstruct": ("knowledge",),
}
"""Loss -> what some training image must have for it."""


class Compress:
    """CE on the label + InfoNCE of h_ctx against the knowledge text (+ V/A, + answer).

    Options bring the knowledge into the reasoning tokens in two more ways: self-distillation from
    a reading of the words (CODI, arXiv 2502.21074), and telling the words from the states alone
    (ICAE, arXiv 2307.06945).
    """

    name = "compress"
    owns = ("understander",)
    material = "samples"
    replays = True
    hard_negatives = 0.0
    compares = None
    dropout = True

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.config = context.config.compress
        self.batch_size = self.config.batch_size
        for loss, facts in NEEDS.items():
            if getattr(self.config, f"{loss}_weight"):
                context.training_set.require(f"compress.{loss}_weight", *facts)
        for loss in ("knowledge", "reconstruct"):
            if getattr(self.config, f"{loss}_weight") and not context.model.config.reasoning_tokens:
                raise UserError(
                    f"compress.{loss}_weight has no reasoning tokens to teach",
                    got="reasoning_tokens=0",
                    fix=f"set compress.{loss}_weight=0, or give the model some",
                )

    def loss(self, part: MicroBatch) -> StepOutput:
        """Return the weighted sum of the losses of one micro-batch."""
        context, config = self.context, self.config
        samples = part.samples
        asked = context.ask(context.training_set.views(samples, part.uniform(4)))
        answers = context.answer(samples) if config.language_weight else None
        texts = [sample.knowledge or "" for sample in samples]
        knowledge = context.knowledge(texts) if config.knowledge_weight else None
        words = self._unclosed(self._tell(texts)) if config.distil_weight else None
        reading = context.parts["understander"](asked, answers, knowledge, words)

        known = torch.tensor([s.knowledge is not None for s in samples]).to(context.device)
        all_known = ranks.gather(known.float()).bool()
        first = ranks.rank() * len(samples)
        labels = label_targets(samples, context.model.config.emotions).to(context.device)
        affects = affect_targets(samples).to(context.device)
        parts = {"label": config.label_weight * label_loss(reading.emotion_logits, labels)}
        if reading.knowledge is not None:
            keys = ranks.gather(reading.knowledge)
            parts["knowledge"] = config.knowledge_weight * info_nce(
                reading.h_ctx.mean(1), keys, all_known, first
            )
        parts["affect"] = config.affect_weight * affect_loss(reading.affect, affects)
        if answers is not None:
            # A reason is not known for an image of the bank: it must not teach to give none.
            parts["language"] = config.language_weight * language_loss(
                reading.answer_logits, answers.ids, answers.mask * known[:, None]
            )
        if reading.distillation is not None:
            teachers = ranks.gather(reading.distillation.teacher.detach())
            parts["distil"] = config.distil_weight * distil_loss(
                reading.distillation.student, teachers, all_known, first
            )
            parts["teacher"] = self._teacher_loss(reading.distillation, labels, affects, known)
        if config.reconstruct_weight:
            told = self._tell(texts)
            parts["reconstruct"] = config.reconstruct_weight * language_loss(
                context.reference.tell(reading.h_ctx, told), told.ids, told.mask * known[:, None]
            )
        loss = torch.stack(list(parts.values())).sum()
        metrics = {name: value.detach() for name, value in parts.items()}
        return StepOutput(loss, metrics | self._monitors(reading))

    def _tell(self, texts: list[str]) -> Answers:
        return self.context.model.processor.answers(texts).to(self.context.device)

    def _unclosed(self, told: Answers) -> Answers:
        """Return texts that do not end the turn: [EMO] goes on after them."""
        return Answers(told.ids, told.mask * (told.ids != self.context.model.processor.end_of_turn))

    def _teacher_loss(
        self, distillation: Distillation, labels: Tensor, affects: Tensor, known: Tensor
    ) -> Tensor:
        """Return what the reading of the words has to learn where there are words."""
        label = label_loss(distillation.emotion_logits, labels.masked_fill(~known, -100))
        affect = affect_loss(
            distillation.affect, affects.masked_fill(~known[:, None], float("nan"))
        )
        return self.config.label_weight * label + self.config.affect_weight * affect

    @torch.no_grad()
    def _monitors(self, reading: UnderstanderOutput) -> dict[str, Tensor]:
        """Return what shows that latents collapse: they all say the same, or the same of all."""
        understander = self.context.model.understander
        return {
            "latent_rank": effective_rank(reading.h_ctx),
            "latent_cosine": mean_cosine(reading.h_ctx),
            "image_cosine": mean_cosine(ranks.gather(reading.h_ctx.mean(1))),
            "norm_ratio": norm_ratio(
                understander.reasoner.context, understander.backbone.token_embeddings
            ),
        }
