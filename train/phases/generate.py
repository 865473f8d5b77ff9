"""Generate: the denoising loss through conditioner and decoder. Ref: EmoSym, step 3."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from PIL import Image, ImageEnhance
from torch import Tensor, nn

from emosym.diffusion.processes import add_noise, min_snr, training_times
from emosym.errors import UserError
from emosym.interfaces import Prompts
from emosym.models.generator import CONDITION, Condition
from emosym.models.imagine import imagine_prompt
from emosym.models.losses import affect_loss, label_loss
from emosym.models.model import EmoSym
from emosym.randomness import Draws
from emosym.records import ImageRequest, Sample
from train.config import RunConfig
from train.data.dataset import affect_targets, label_targets, square_pixels
from train.data.density import density_weights
from train.distributed import ranks
from train.micro_batches import MicroBatch
from train.phases.base import Alarm, Phase, PhaseContext, StepOutput, Text
from train.phases.influence import EXCHANGED, influences, warnings
from train.ranges import check_positive, check_range


@dataclass(kw_only=True, slots=True)
class SourceDropout:
    """Shares of images for which the decoder does not get a source of its condition.

    Each is drawn independently of the others, and of what the request names. Where only the states
    are left, the decoder has to learn what they say. The defaults are ours (docs/experiments.md);
    EmoSym drops none.
    """

    text: float = 0.4
    """The features of the prompt."""
    affect: float = 0.4
    """The embedding of the wanted valence and arousal."""
    state: float = 0.1
    """h_ctx and h_emo together."""
    h_ctx: float = 0.15
    """The reasoning tokens alone."""
    h_emo: float = 0.1
    """The emotion token alone."""

    def __post_init__(self) -> None:
        check_range(
            text=self.text,
            affect=self.affect,
            state=self.state,
            h_ctx=self.h_ctx,
            h_emo=self.h_emo,
        )


@dataclass(kw_only=True, slots=True)
class GenerateConfig:
    """Denoising through conditioner and decoder. Ref: EmoSym, step 3 (docs/papers.md)."""

    RENAMED: ClassVar[Mapping[str, str]] = {"times": "timestep_sampling", "min_snr": "snr_gamma"}

    batch_size: int = 32
    """Images a step."""
    update_understander: bool = False
    """Let the loss flow into the understander and step it too, with the two weights below."""
    label_weight: float = 1.0
    """Cross-entropy on the label, in steps whose condition is read from the image."""
    affect_weight: float = 1.0
    """Smooth L1 on valence and arousal, in steps whose condition is read from the image."""
    image_share: float = 0.6
    """Share of steps whose condition is read from the image itself, not from the request."""
    color_jitter: float = 0.7
    """Brightness and saturation of the image that the states are read from are multiplied by
    factors in [1 - x, 1 + x] where the decoder also gets the image's valence and arousal. The
    states then say another light than the one that is wanted, so that the decoder learns to take it
    from valence and arousal. x is in [0, 1]."""
    condition_dropout: float = 0.1
    """Share of images whose whole condition is dropped (for guidance)."""
    prompt_dropout: float = 0.1
    """Share of images without a prompt (emotion alone)."""
    label_dropout: float = 0.5
    """Share of requests that name no emotion."""
    affect_dropout: float = 0.1
    """Share of requests that name no valence and arousal."""
    source_dropout: SourceDropout = field(default_factory=SourceDropout)
    """What the decoder does not get of what an image's request or its own image says."""
    density_weight: float = 0.0
    """Power, in [0, 2], of the rarity (1 / density) of an image's valence and arousal in the
    weight of its loss: 1 for EmotiCrafter, 2 in its code, 0 weighs all alike. Weights have mean 1
    over the rated training images and are at most 10; an image without ratings has 1."""
    timestep_sampling: Literal["logit_normal", "uniform"] = "logit_normal"
    """Distribution of the noise levels in training. Ref: SD3 (arXiv 2403.03206), eq. 19; SD1.5:
    uniform."""
    snr_gamma: float | None = None
    """γ of the min-SNR weight of the loss (arXiv 2303.09556, 5 there); null weighs all alike."""
    emotional_share: float = 0.0
    """Share of prompts that also describe the colour and light that carry the emotion (an image's
    `emotional_prompt`, where it has one), so that the decoder learns the words that `emosym refine`
    adds."""
    influence_steps: int = 50
    """Steps of the phase between two measurements of `generate/influence_...`, how much the loss
    rises under another image's states, reasoning tokens, valence and arousal, or prompt; 0 measures
    none. Each takes about as long as two steps of 32 images."""
    train_text_encoder: bool = False
    """Train the decoder's text encoder too (only for a base from scratch)."""

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size)
        check_range(math.inf, influence_steps=self.influence_steps)
        check_range(math.inf, label_weight=self.label_weight, affect_weight=self.affect_weight)
        check_range(2.0, density_weight=self.density_weight)
        if self.snr_gamma is not None:
            check_positive(snr_gamma=self.snr_gamma)
        check_range(
            image_share=self.image_share,
            color_jitter=self.color_jitter,
            condition_dropout=self.condition_dropout,
            prompt_dropout=self.prompt_dropout,
            label_dropout=self.label_dropout,
            affect_dropout=self.affect_dropout,
            emotional_share=self.emotional_share,
        )


INFLUENCE_IMAGES = 32
"""Images of the training set on which influence is measured."""
FITTED_IMAGES = 512
"""Images of the training set to whose states a new conditioner is fitted."""
READ_TOGETHER = 32
"""Of these, how many the understander reads in one pass."""


class Generate(Phase[GenerateConfig, Sample]):
    """Denoise images under the condition of their states, read from the image or from a request."""

    name = "generate"
    Config = GenerateConfig
    fixed = ("train_text_encoder",)

    def __init__(self, context: PhaseContext) -> None:
        super().__init__(context)
        both = ("understander", "generator")
        self.owns = both if self.config.update_understander else ("generator",)
        if self.config.update_understander and self.config.label_weight:
            context.training_set.require("generate.label_weight", "emotion")
        if self.config.update_understander and self.config.affect_weight:
            context.training_set.require("generate.affect_weight", "valence", "arousal")
        self.weights: dict[str, float] = {}
        if self.config.density_weight:
            context.training_set.require("generate.density_weight", "valence", "arousal")
            self.weights = density_weights(context.training_set.samples, self.config.density_weight)
        if self.config.emotional_share:
            context.training_set.require("generate.emotional_share", "emotional_prompt")
        self._latents: dict[str, Tensor] = {}
        self._encoder_steps = 0

    @classmethod
    def check(cls, config: GenerateConfig, run: RunConfig) -> None:
        """Raise UserError if the run both trains and freezes the decoder's text encoder."""
        if run.lora.generator is not None and config.train_text_encoder:
            raise UserError(
                "lora.generator freezes the decoder, but generate.train_text_encoder trains a part"
                " of it",
                fix="set one of them to null or false",
            )
        if "denoiser" in run.freeze and config.train_text_encoder:
            raise UserError(
                "freeze names the denoiser, but generate.train_text_encoder trains a part of it",
                fix="set one of them to [] or false",
            )

    @classmethod
    def texts(cls, config: GenerateConfig, item: Sample) -> Iterable[Text]:
        """Yield the prompts of an image."""
        if item.prompt is not None:
            yield Text(item.prompt, decoder=True)
        if config.emotional_share and item.emotional_prompt is not None:
            yield Text(item.emotional_prompt, decoder=True)

    @classmethod
    def unfreezes(cls, config: GenerateConfig, model: EmoSym) -> Sequence[nn.Module]:
        """Return the decoder's text encoder, if the options say so."""
        return [model.generator.denoiser.text_encoder] if config.train_text_encoder else []

    def prepare(self, batches: Sequence[MicroBatch[Sample]]) -> Sequence[None]:
        """Fit a new conditioner to the states that the understander has now."""
        if self.context.model.generator.conditioner.needs_fit:
            self._fit()
        return [None] * len(batches)

    def loss(self, batch: MicroBatch[Sample]) -> StepOutput:
        """Return the denoising loss of one micro-batch, and the supervised losses on the images."""
        context, config = self.context, self.config
        samples, model = batch.items, context.model
        latents = torch.stack([self._latent(sample) for sample in samples])
        noise = batch.normal(*latents.shape[1:]).to(context.device)
        process = model.generator.process
        time = training_times(process, batch.normal().to(context.device), config.timestep_sampling)
        keep_condition, keep_prompt, keep_label, keep_affect = (
            (batch.uniform() >= dropout).to(context.device)
            for dropout in (
                config.condition_dropout,
                config.prompt_dropout,
                config.label_dropout,
                config.affect_dropout,
            )
        )
        # One source for the whole step, because all ranks need the same kind of prompt.
        from_image = batch.draws.uniform(1).item() < config.image_share
        emotional = (batch.uniform() < config.emotional_share).tolist()
        texts = [
            ((s.emotional_prompt if full else None) or s.prompt or "") if kept else ""
            for s, kept, full in zip(samples, keep_prompt, emotional, strict=True)
        ]
        affect = affect_targets(samples).to(context.device)
        wanted_affect = torch.where(keep_affect[:, None], affect, torch.nan)
        keep = self._keep(batch, keep_condition)
        if from_image:
            given = wanted_affect.isfinite().all(1) & keep[:, 1]
            tokens = context.image_prompts(self._views(batch, given))
        else:
            tokens = self._requests(samples, texts, keep_label, keep_affect)
        with torch.set_grad_enabled(config.update_understander):
            states = context.parts["understander"](tokens)
        with torch.set_grad_enabled(config.train_text_encoder):
            condition = context.condition(states, texts, wanted_affect)
        errors = self._errors(latents, noise, time, condition, keep)
        weights = errors.new_tensor([self.weights.get(sample.id, 1.0) for sample in samples])
        if config.snr_gamma is not None:
            weights = weights * min_snr(process, time, config.snr_gamma)
        flow = (errors * weights).mean()
        metrics: dict[str, Tensor | float] = {"flow": flow.detach(), "from_image": from_image}
        metrics |= model.generator.conditioner.monitors()
        loss = flow
        if config.update_understander and from_image:
            target = label_targets(samples, model.config.emotions).to(context.device)
            label = label_loss(states.emotion_logits, target)
            affect_error = affect_loss(states.affect, affect)
            loss = flow + config.label_weight * label + config.affect_weight * affect_error
            metrics |= {"label": label.detach(), "affect": affect_error.detach()}
        return StepOutput(loss, metrics)

    def monitor(self, metrics: dict[str, float], history: list[list[float]]) -> Alarm | None:
        """Add the influence of each source of the condition; see `train.phases.influence`."""
        turns, silent = history or ([0.0], [0.0] * len(EXCHANGED))
        turns[0] += 1
        if self.config.influence_steps and turns[0] % self.config.influence_steps == 0:
            measured = self._influence()
            for line in warnings(measured, silent):
                ranks.say(line)
            metrics |= {f"influence_{name}": mean for name, (mean, _) in measured.items()}
        history[:] = [turns, silent]
        return None

    @torch.no_grad()
    def _fit(self) -> None:
        """Fit the conditioner to the states of images and of requests, as often as steps use them.

        Every rank reads the same images, and so fits the same.
        """
        context, config = self.context, self.config
        samples = context.training_set.take("samples", "fit", 0, FITTED_IMAGES)
        from_image = round(config.image_share * len(samples))
        context.model.eval()
        found = []
        for start in range(0, len(samples), READ_TOGETHER):
            part = samples[start : start + READ_TOGETHER]
            if start < from_image:
                tokens = context.image_prompts([context.training_set.image(s.image) for s in part])
            else:
                given = torch.ones(len(part), dtype=torch.bool)
                tokens = self._requests(part, [s.prompt or "" for s in part], given, given)
            states = context.parts["understander"](tokens)
            found.append((states.h_ctx, states.h_emo))
        context.model.train()
        h_ctx, h_emo = (torch.cat(parts) for parts in zip(*found, strict=True))
        context.model.generator.conditioner.fit(h_ctx, h_emo)

    @torch.no_grad()
    def _influence(self) -> dict[str, tuple[float, float]]:
        """Measure influences on the same images, noise and times each time."""
        context = self.context
        samples = context.training_set.take("samples", "influence", 0, INFLUENCE_IMAGES)
        draws = Draws("influence", context.config.seed)
        latents = torch.stack([self._latent(sample) for sample in samples])
        noise = draws.normal(*latents.shape).to(context.device)
        fractions = (torch.arange(len(samples)) + 0.5) / len(samples)
        time = context.model.generator.process.times(fractions).to(context.device)
        context.model.eval()
        images = [context.training_set.image(sample.image) for sample in samples]
        condition = context.condition(
            context.parts["understander"](context.image_prompts(images)),
            [sample.prompt or "" for sample in samples],
            affect_targets(samples).to(context.device),
        )
        keep = torch.ones(len(samples), len(CONDITION), dtype=torch.bool, device=context.device)
        found = influences(condition, lambda other: self._errors(latents, noise, time, other, keep))
        context.model.train()
        return found

    def _errors(
        self, latents: Tensor, noise: Tensor, time: Tensor, condition: Condition, keep: Tensor
    ) -> Tensor:
        """Return the mean squared error of the denoiser on each image, [B]."""
        process = self.context.model.generator.process
        noised = add_noise(process, latents, noise, time)
        output = self.context.parts["generator"](noised, time, condition, keep)
        return (output - process.target(latents, noise, time)).float().square().mean((1, 2, 3))

    def _keep(self, batch: MicroBatch[Sample], keep_condition: Tensor) -> Tensor:
        """Return which inputs of the generator act, [B, 4] as in `Generator.forward`."""
        drop = self.config.source_dropout
        text, affect, state, h_ctx, h_emo = (
            (batch.uniform() >= share).to(keep_condition.device)
            for share in (drop.text, drop.affect, drop.state, drop.h_ctx, drop.h_emo)
        )
        keep = torch.stack([text, affect, state & h_ctx, state & h_emo], dim=1)
        return keep & keep_condition[:, None]

    def _views(self, batch: MicroBatch[Sample], given: Tensor) -> list[Image.Image]:
        """Return the images to read states from, in random light where V and A are given [B]."""
        factors = 1 + self.config.color_jitter * (2 * batch.uniform(2) - 1)
        images = [self.context.training_set.image(sample.image) for sample in batch.items]
        return [
            jittered(image, *pair) if known else image
            for image, pair, known in zip(images, factors.tolist(), given.tolist(), strict=True)
        ]

    def _requests(
        self,
        samples: Sequence[Sample],
        texts: Sequence[str],
        keep_label: Tensor,
        keep_affect: Tensor,
    ) -> Prompts:
        """Return B instructions to imagine an image, without the values that dropout removed."""
        requests = [
            imagine_prompt(
                ImageRequest(
                    prompt=text,
                    emotion=sample.emotion if label else None,
                    affect=sample.affect if affect else None,
                )
            )
            for sample, text, label, affect in zip(
                samples, texts, keep_label.tolist(), keep_affect.tolist(), strict=True
            )
        ]
        return self.context.model.processor.prompts(requests, None).to(self.context.device)

    def _latent(self, sample: Sample) -> Tensor:
        """Return the latent of an image. It is encoded alone: in a batch, rounding could differ."""
        steps = getattr(self.context.parts["autoencoder"], "global_steps", 0)
        if steps != self._encoder_steps:  # cached latents are of older weights
            self._latents, self._encoder_steps = {}, steps
        key = str(sample.image)
        if key not in self._latents:
            side = self.context.model.config.image_size
            pixels = square_pixels(self.context.training_set.image(sample.image), side)[None]
            autoencoder = self.context.model.autoencoder
            pixels = pixels.to(self.context.device, next(autoencoder.parameters()).dtype)
            with torch.no_grad():
                self._latents[key] = autoencoder.encode(pixels)[0]
        return self._latents[key]


def jittered(image: Image.Image, brightness: float, saturation: float) -> Image.Image:
    """Return an image with brightness, then saturation, multiplied by factors in [0, 2]."""
    lit = ImageEnhance.Brightness(image).enhance(brightness)
    return ImageEnhance.Color(lit).enhance(saturation)
