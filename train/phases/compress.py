"""Compress: reasoning tokens absorb emotional reasoning knowledge. Ref: EmoSym, step 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from emosym.errors import UserError
from emosym.interfaces import Answers
from emosym.models.losses import (
    affect_loss,
    distil_loss,
    info_nce,
    label_loss,
    language_loss,
    layer_deviation,
)
from emosym.models.reasoner import effective_rank, mean_cosine, norm_ratio
from emosym.models.understander import Distillation, UnderstanderOutput
from emosym.records import Sample
from emosym.tasks.affect import affect_reply
from train.config import RunConfig
from train.data.dataset import affect_targets, label_targets
from train.data.knowledge import KnowledgeConfig
from train.micro_batches import MicroBatch, gather
from train.phases.base import Phase, PhaseContext, StepOutput, Text
from train.ranges import check_positive, check_range

REQUIRED = {
    "label": ("emotion",),
    "knowledge": ("knowledge",),
    "affect": ("valence", "arousal"),
    "language": ("knowledge",),
    "distil": ("knowledge",),
    "reconstruct": ("knowledge",),
}
"""Loss -> annotations of which some training image must have one."""


@dataclass(kw_only=True, slots=True)
class CompressConfig(KnowledgeConfig):
    """Emotional reasoning knowledge compression. Ref: EmoSym, step 1 (docs/papers.md)."""

    batch_size: int = 32
    """Images a step."""
    label_weight: float = 0.5
    """Cross-entropy on the label."""
    knowledge_weight: float = 0.5
    """InfoNCE of the reasoning tokens against the knowledge text."""
    affect_weight: float = 1.0
    """Smooth L1 on valence and arousal (ours; 0 as published)."""
    language_weight: float = 0.0
    """Language loss on the reference answer (ours; 0 as published)."""
    distil_weight: float = 0.0
    """Self-distillation (ours, after CODI; 1 there): the state at [EMO] after the reasoning tokens
    learns to equal the state at [EMO] after the knowledge text. The forward pass over the text also
    learns label, valence and arousal, at the weights above."""
    reconstruct_weight: float = 0.0
    """Language loss on the knowledge text, decoded from the reasoning states alone (ours, after
    ICAE; try 0.1). The frozen language model of the start decodes it, so that only the states
    learn.
    """

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size)
        check_range(
            math.inf,
            label_weight=self.label_weight,
            knowledge_weight=self.knowledge_weight,
            affect_weight=self.affect_weight,
            language_weight=self.language_weight,
            distil_weight=self.distil_weight,
            reconstruct_weight=self.reconstruct_weight,
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A micro-batch before its loss; the tensors are None where `loss` can gather them itself."""

    views: Sequence[Image.Image]
    """The images as the model sees them, flipped and cropped, [B]."""
    states: Tensor | None = None
    """Mean reasoning states of all images of the step, [N, D]."""
    keys: Tensor | None = None
    """Projected knowledge of all images of the step, [N, D]."""
    deviation: Tensor | None = None
    """`layer_deviation` of all teacher states of the step."""


class Compress(Phase[CompressConfig, Sample]):
    """CE on the label + InfoNCE of h_ctx against the knowledge text (+ V/A, + answer).

    Two options bring the knowledge into the reasoning tokens in other ways: self-distillation from
    a forward pass over the text (CODI, arXiv 2502.21074), and reconstruction of the text from the
    states alone (ICAE, arXiv 2307.06945).
    """

    name = "compress"
    Config = CompressConfig
    needs = frozenset({"knowledge"})
    fixed = ("knowledge_encoder",)
    owns = ("understander",)
    replays = True

    def __init__(self, context: PhaseContext) -> None:
        super().__init__(context)
        for loss, facts in REQUIRED.items():
            if getattr(self.config, f"{loss}_weight"):
                context.training_set.require(f"compress.{loss}_weight", *facts)
        for loss in ("knowledge", "reconstruct"):
            if getattr(self.config, f"{loss}_weight") and not context.model.config.reasoning_tokens:
                raise UserError(
                    f"compress.{loss}_weight has no reasoning tokens to teach",
                    got="reasoning_tokens=0",
                    fix=f"set compress.{loss}_weight=0, or give the model some",
                )

    @classmethod
    def check(cls, config: CompressConfig, run: RunConfig) -> None:
        """Refuse to reconstruct texts with a language model of random weights."""
        if run.from_scratch and config.reconstruct_weight:
            raise UserError(
                "compress.reconstruct_weight needs a trained language model",
                got="from_scratch=true, whose starting weights are random",
                fix="set it to 0, or train a base with compress.language_weight first",
            )

    @classmethod
    def resolve_paths(cls, config: CompressConfig) -> None:
        """Make the folder of a knowledge encoder absolute."""
        config.resolve_paths()

    @classmethod
    def texts(cls, config: CompressConfig, item: Sample) -> Iterable[Text]:
        """Yield the reference answer, and the knowledge text where the language model reads it.

        A knowledge encoder accepts any text.
        """
        if config.language_weight:
            yield Text(affect_reply(item))
        if config.distil_weight or config.reconstruct_weight:
            yield Text(item.knowledge or "")

    def prepare(self, batches: Sequence[MicroBatch[Sample]]) -> Sequence[Prepared]:
        """Choose the views; several micro-batches are read twice, first for what they contrast."""
        training_set = self.context.training_set
        views = [training_set.views(batch.items, batch.uniform(4)) for batch in batches]
        contrasts = self.config.knowledge_weight or self.config.distil_weight
        if len(batches) == 1 or not contrasts:
            return [Prepared(each) for each in views]
        outputs = []
        for batch, each in zip(batches, views, strict=True):
            batch.seed_model()
            with torch.no_grad():
                outputs.append(self._read(batch, each, self.context.model.understander))
        states = gather(batches, [output.h_ctx.mean(1) for output in outputs])
        keys = [output.knowledge for output in outputs if output.knowledge is not None]
        found = [output.distillation for output in outputs if output.distillation is not None]
        whole = Prepared(
            views[0],
            states=states,
            keys=gather(batches, keys) if keys else None,
            deviation=self._deviation(batches, found) if found else None,
        )
        return [replace(whole, views=each) for each in views]

    def loss(self, batch: MicroBatch[Sample]) -> StepOutput:
        """Return the weighted sum of the losses of one micro-batch."""
        context, config = self.context, self.config
        samples, prepared = batch.items, batch.prepared
        answers = context.reference_answers(samples) if config.language_weight else None
        output = self._read(batch, prepared.views, context.parts["understander"], answers)

        all_known = self._known(batch)
        known = all_known[batch.rows]
        labels = label_targets(samples, context.model.config.emotions).to(context.device)
        affects = affect_targets(samples).to(context.device)
        losses = {"label": config.label_weight * label_loss(output.emotion_logits, labels)}
        states = None
        if batch.alone or prepared.states is not None:
            states = batch.join(output.h_ctx.mean(1), prepared.states)
        if output.knowledge is not None and states is not None:
            keys = batch.join(output.knowledge, prepared.keys)
            losses["knowledge"] = config.knowledge_weight * info_nce(states, keys, all_known)
        losses["affect"] = config.affect_weight * affect_loss(output.affect, affects)
        if answers is not None and output.answer_logits is not None:
            # Without a knowledge text, as for images of the bank, the answer has no reasoning. It
            # is masked, or the model would learn to answer without reasoning.
            losses["language"] = config.language_weight * language_loss(
                output.answer_logits, answers.ids, answers.mask * known[:, None]
            )
        if output.distillation is not None:
            student, teacher, *_ = found = output.distillation
            deviation = prepared.deviation
            if deviation is None:
                deviation = self._deviation([batch], [found])
            losses["distil"] = config.distil_weight * distil_loss(
                student, teacher, known, deviation
            )
            losses["teacher"] = self._teacher_loss(found, labels, affects, known)
        if config.reconstruct_weight:
            targets = context.answers([sample.knowledge or "" for sample in samples])
            losses["reconstruct"] = config.reconstruct_weight * language_loss(
                context.reference.decode_states(output.h_ctx, targets),
                targets.ids,
                targets.mask * known[:, None],
            )
        loss = torch.stack(list(losses.values())).sum()
        metrics = {name: value.detach() for name, value in losses.items()}
        return StepOutput(loss, metrics | self._monitors(output, states))

    def _read(
        self,
        batch: MicroBatch[Sample],
        views: Sequence[Image.Image],
        understander: Callable[..., UnderstanderOutput],
        answers: Answers | None = None,
    ) -> UnderstanderOutput:
        """Return the output for a micro-batch, with what the weights of the losses ask for."""
        config = self.config
        texts = [sample.knowledge or "" for sample in batch.items]
        features = self._knowledge_features(texts) if config.knowledge_weight else None
        words = self._without_end(self.context.answers(texts)) if config.distil_weight else None
        return understander(self.context.image_prompts(views), answers, features, words)

    def _known(self, batch: MicroBatch[Sample]) -> Tensor:
        """Return which images of the step have a knowledge text, [N] of bool."""
        known = [sample.knowledge is not None for sample in batch.step_items]
        return torch.tensor(known, device=self.context.device)

    def _deviation(
        self, batches: Sequence[MicroBatch[Sample]], found: Sequence[Distillation]
    ) -> Tensor:
        """Return the standard deviation of each layer's teacher states in the whole step."""
        teachers = gather(batches, [each.teacher for each in found])
        return layer_deviation(teachers, self._known(batches[0]))

    def _knowledge_features(self, texts: Sequence[str]) -> Tensor:
        encoder = self.context.knowledge_encoder
        if encoder is None:
            raise RuntimeError("compress needs the knowledge encoder")
        return encoder(texts)

    def _without_end(self, texts: Answers) -> Answers:
        """Remove the end-of-turn token of each text, because [EMO] follows."""
        end = self.context.model.processor.end_of_turn
        return Answers(texts.ids, texts.mask * (texts.ids != end))

    def _teacher_loss(
        self, distillation: Distillation, labels: Tensor, affects: Tensor, known: Tensor
    ) -> Tensor:
        """Return the supervised loss of the teacher, over images with a knowledge text."""
        label = label_loss(distillation.emotion_logits, labels.masked_fill(~known, -100))
        affect = affect_loss(
            distillation.affect, affects.masked_fill(~known[:, None], float("nan"))
        )
        return self.config.label_weight * label + self.config.affect_weight * affect

    @torch.no_grad()
    def _monitors(self, output: UnderstanderOutput, states: Tensor | None) -> dict[str, Tensor]:
        """Return metrics of latent collapse: tokens equal in an image, or for all images.

        The latter needs the mean states of all images of the step, [N, D].
        """
        understander = self.context.model.understander
        monitors = {
            "latent_rank": effective_rank(output.h_ctx),
            "latent_cosine": mean_cosine(output.h_ctx),
            "norm_ratio": norm_ratio(
                understander.reasoner.context, understander.backbone.token_embeddings
            ),
        }
        return monitors if states is None else {**monitors, "image_cosine": mean_cosine(states)}
