"""Generate: the denoising loss through conditioner and decoder. Ref: EmoSym §2.6."""

from __future__ import annotations

import torch
from torch import Tensor

from emosym.diffusion.processes import add_noise, min_snr, training_times
from emosym.models.losses import affect_loss, label_loss
from emosym.records import ImageRequest, Sample
from emosym.tasks import prompts
from train.data.dataset import affect_targets, label_targets, square_pixels
from train.data.density import density_weights
from train.phases.base import MicroBatch, PhaseContext, StepOutput


class Generate:
    """Condition on what was read (from the image, or from the request in words), draw, compare."""

    name = "generate"
    material = "samples"
    replays = False
    compares = None
    dropout = True

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.config = context.config.generate
        self.batch_size = self.config.batch_size
        # The generator comes last: its engine is the nearest to the loss.
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

    def loss(self, part: MicroBatch) -> StepOutput:
        """Return the flow loss of one micro-batch, and what keeps understanding."""
        context, config = self.context, self.config
        samples, model = part.samples, context.model
        latents = torch.stack([self._latent(sample) for sample in samples])
        noise = part.normal(*latents.shape[1:]).to(context.device)
        process = model.generator.process
        time = training_times(process, part.normal().to(context.device), config.times)
        keep, show, name, feel = (
            (part.uniform() >= share).to(context.device)
            for share in (
                config.condition_dropout,
                config.prompt_dropout,
                config.label_dropout,
                config.affect_dropout,
            )
        )
        # One source a step, decided by the step: all ranks read the same kind of prompt.
        from_image = part.draws.uniform(1).item() < config.image_share
        told = (part.uniform() < config.emotional_share).tolist()
        shown = [
            ((s.emotional_prompt if full else None) or s.prompt or "") if yes else ""
            for s, yes, full in zip(samples, show, told, strict=True)
        ]
        affect = affect_targets(samples).to(context.device)
        asked_affect = torch.where(feel[:, None], affect, torch.nan)
        if from_image:
            asked = context.ask([context.training_set.image(sample.image) for sample in samples])
        else:
            asked = self._requests(samples, shown, name, feel)
        with torch.set_grad_enabled(config.update_understander):
            reading = context.parts["understander"](asked)
        with torch.set_grad_enabled(config.train_text_encoder):
            condition = context.condition(reading, shown, asked_affect)
        mixed = add_noise(process, latents, noise, time)
        output = context.parts["generator"](mixed, time, condition, keep)
        errors = (output - process.target(latents, noise, time)).float().square().mean((1, 2, 3))
        weights = errors.new_tensor([self.weights.get(sample.id, 1.0) for sample in samples])
        if config.min_snr is not None:
            weights = weights * min_snr(process, time, config.min_snr)
        flow = (errors * weights).mean()
        metrics: dict[str, Tensor | float] = {"flow": flow.detach(), "from_image": from_image}
        loss = flow
        if config.update_understander and from_image:
            target = label_targets(samples, model.config.emotions).to(context.device)
            label = label_loss(reading.emotion_logits, target)
            feeling = affect_loss(reading.affect, affect)
            loss = flow + config.label_weight * label + config.affect_weight * feeling
            metrics |= {"label": label.detach(), "affect": feeling.detach()}
        return StepOutput(loss, metrics)

    def _requests(self, samples: list[Sample], shown: list[str], name: Tensor, feel: Tensor):
        texts = [
            prompts.imagine(
                ImageRequest(
                    prompt=prompt,
                    emotion=sample.emotion if named else None,
                    valence=sample.valence if felt else None,
                    arousal=sample.arousal if felt else None,
                )
            )
            for sample, prompt, named, felt in zip(
                samples, shown, name.tolist(), feel.tolist(), strict=True
            )
        ]
        return self.context.model.processor.prompts(texts, None).to(self.context.device)

    def _latent(self, sample: Sample) -> Tensor:
        """Return the latent of an image, encoded alone so that no batch can change its bits."""
        steps = getattr(self.context.parts["autoencoder"], "global_steps", 0)
        if steps != self._encoder_steps:  # what was encoded before the VAE moved is stale
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
