"""Compress: reasoning tokens absorb emotional reasoning knowledge. Ref: EmoSym §2.4."""

from __future__ import annotations

import torch

from emosym.errors import UserError
from emosym.losses import affect_loss, info_nce, label_loss, language_loss
from emosym.reasoner import effective_rank
from train import ranks
from train.data import affect_targets, label_targets
from train.phases.base import Bench, Outcome, Slice

NEEDS = {
    "label": ("emotion",),
    "knowledge": ("knowledge",),
    "affect": ("valence", "arousal"),
    "language": ("knowledge",),
}
"""Loss -> what some training image must have for it."""


class Compress:
    """CE on the label + InfoNCE of h_ctx against the knowledge text (+ V/A, + answer)."""

    name = "compress"
    owns = ("understander",)
    material = "samples"
    replays = True

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.config = bench.config.compress
        self.batch_size = self.config.batch_size
        if self.config.knowledge_weight and not bench.model.config.reasoning_tokens:
            raise UserError(
                "compress.knowledge_weight teaches reasoning tokens, and the model has none",
                fix="set compress.knowledge_weight=0",
            )
        for loss, facts in NEEDS.items():
            if getattr(self.config, f"{loss}_weight"):
                bench.corpus.require(f"compress.{loss}_weight", *facts)

    def loss(self, part: Slice) -> Outcome:
        """Return the weighted sum of the losses of one micro-batch."""
        bench, config = self.bench, self.config
        samples = part.samples
        asked = bench.ask(bench.corpus.views(samples, part.uniform(4)))
        known = torch.tensor([sample.knowledge is not None for sample in samples])
        answers = bench.answer(samples) if config.language_weight else None
        with torch.no_grad():
            texts = [sample.knowledge or "" for sample in samples]
            knowledge = bench.model.generator.denoiser.pool_text(texts)
        reading = bench.parts["understander"](asked, answers, knowledge)

        keys = ranks.gather(reading.knowledge)
        known = known.to(keys.device)
        all_known = ranks.gather(known.float()).bool()
        # Zero, and not the NaN of an empty mean, without reasoning tokens.
        mean = reading.h_ctx.sum(1) / max(reading.h_ctx.shape[1], 1)
        parts = {
            "label": config.label_weight
            * label_loss(
                reading.emotion_logits,
                label_targets(samples, bench.model.config.emotions).to(bench.device),
            ),
            "knowledge": config.knowledge_weight
            * info_nce(mean, keys, all_known, ranks.rank() * len(samples)),
            "affect": config.affect_weight
            * affect_loss(reading.affect, affect_targets(samples).to(bench.device)),
        }
        if answers is not None:
            # A reason is not known for an image of the bank: it must not teach to give none.
            told = answers.mask * known[:, None]
            parts["language"] = config.language_weight * language_loss(
                reading.answer_logits, answers.ids, told
            )
        loss = torch.stack(list(parts.values())).sum()
        metrics = {name: value.detach() for name, value in parts.items()}
        metrics["latent_rank"] = effective_rank(reading.h_ctx.detach())
        return Outcome(loss, metrics)
