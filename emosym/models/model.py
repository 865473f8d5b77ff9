"""The whole model: understander, generator and autoencoder, which are trained separately."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from emosym.affect.taxonomies import MIKELS8
from emosym.diffusion.guidance import Scale
from emosym.errors import UserError
from emosym.interfaces import Autoencoder, Backbone, Denoiser, Processor, Prompts
from emosym.models.conditioner import Conditioner, ConnectorConditioner, PseudoWordConditioner
from emosym.models.emotion_space import EmotionSpace
from emosym.models.generator import Condition, Generator, OnStep
from emosym.models.training_images import TrainingImages
from emosym.models.understander import Understander, UnderstanderOutput

FORMAT = 2
"""Version of the model folder; any other version is refused."""
DECODER = "decoder"
"""Value of `knowledge_encoder` for the decoder's own text encoder."""

MAX_STEPS = 1000
"""Largest number of sampling steps; flow matching has converged long before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Settings of the model besides its backbone and decoder; the keys of `emosym.json`.

    Raises:
        UserError: a number outside its range, labels that are not Mikels' or are repeated.
    """

    format: int = FORMAT
    reasoning_tokens: int = 8
    """K; 0 leaves the emotion token [EMO] only."""
    hidden: int = 256
    """Width of the heads' and mappers' hidden layers."""
    conditioner: Literal["word", "connector"] = "word"
    """How states condition the decoder: one pseudo-word (EmoSym), or K + 1 tokens through a small
    transformer (MetaQuery)."""
    connector_layers: int = 2
    """Layers of that transformer."""
    image_size: int = 64
    """Side of generated images, pixels."""
    steps: int = 16
    """Default number of sampling steps."""
    guidance: float = 3.0
    """Default guidance scale."""
    emotions: list[str] = field(default_factory=lambda: list(MIKELS8))
    """Labels in the order of the emotion head's outputs."""
    tasks: list[str] = field(default_factory=lambda: ["affect"])
    """Tasks of `emosym.tasks.registry` that it was trained to answer in words."""
    knowledge_encoder: str = DECODER
    """Encoder of the knowledge texts; see `model_zoo.text.text_encoders`."""
    knowledge_width: int | None = None
    """Width of its features; null is the width of the decoder's."""

    def __post_init__(self) -> None:
        check_range("reasoning_tokens", self.reasoning_tokens, 0, 1024)
        check_range("hidden", self.hidden, 1, 65_536)
        check_range("connector_layers", self.connector_layers, 1, 64)
        if self.knowledge_width is not None:
            check_range("knowledge_width", self.knowledge_width, 1, 65_536)
        check_range("image_size", self.image_size, 8, 8192)
        check_range("steps", self.steps, 1, MAX_STEPS)
        check_range("guidance", self.guidance, 0, 1000)
        if not self.emotions or len({*self.emotions} & {*MIKELS8}) < len(self.emotions):
            raise UserError(
                "emotions", got=self.emotions, expected=f"some of {', '.join(MIKELS8)}, each once"
            )


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise UserError for a value outside [low, high], NaN included."""
    if not low <= value <= high:
        raise UserError(name, got=value, expected=f"{low} to {high}")


class EmoSym(nn.Module):
    """Understander, generator and autoencoder, with the processor of their inputs.

    `PARTS` are the attribute names of the parts; each is trained by its own engine.
    """

    PARTS = ("understander", "generator", "autoencoder")

    def __init__(
        self,
        config: ModelConfig,
        *,
        backbone: Backbone,
        processor: Processor,
        denoiser: Denoiser,
        autoencoder: Autoencoder,
    ) -> None:
        super().__init__()
        self.config = config
        self.processor = processor
        self.understander = Understander(
            backbone,
            tokens=config.reasoning_tokens,
            hidden=config.hidden,
            classes=len(config.emotions),
            knowledge_width=config.knowledge_width or denoiser.knowledge_width,
        )
        self.generator = Generator(denoiser, _conditioner(config, backbone.width, denoiser))
        self.autoencoder: Autoencoder = autoencoder
        self.space: EmotionSpace | None = None
        """Fitted to this understander's states; None where none was fitted."""
        self.card = ""
        """Model card in Markdown, kept by loading and saving; empty where there is none."""
        self.training_images: TrainingImages | None = None
        """How the images look that it was trained on; None where that is not known."""

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.understander.reasoner.emotion.device

    def head_state(self) -> dict[str, Tensor]:
        """Return the weights that belong to neither backbone nor decoder nor autoencoder."""
        others = ("understander.backbone.", "generator.denoiser.", "autoencoder.")
        return {k: v for k, v in self.state_dict().items() if not k.startswith(others)}

    def load_head_state(self, state: dict[str, Tensor]) -> None:
        """Load what `head_state` returned; names and shapes must match exactly.

        Only `Whitening` may be missing, in weights of before it existed: it then does nothing.
        """
        own = self.head_state()
        fitted = {name for name, _ in self.named_buffers()} - state.keys()
        own = {name: value for name, value in own.items() if name not in fitted}
        wrong = [
            f"{name}: got {tuple(state[name].shape) if name in state else 'nothing'},"
            f" expected {tuple(own[name].shape) if name in own else 'nothing'}"
            for name in sorted(own.keys() | state.keys())
            if name not in own or name not in state or own[name].shape != state[name].shape
        ]
        if wrong:
            raise UserError(
                f"the weights do not fit the model in {len(wrong)} tensors, first {wrong[0]}",
                fix="load a model made with the same preset",
            )
        for name, value in own.items():
            value.copy_(state[name])

    @torch.no_grad()
    def generate(
        self,
        noise: Tensor,
        condition: Condition,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: Scale | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Return pixels [B, 3, H, W] in [-1, 1] from noise [B, *autoencoder.latent_shape].

        None means the default of the model's configuration. `guidance_scale` and `on_step` as in
        `Generator.sample`.
        """
        config = self.config
        steps = config.steps if num_inference_steps is None else num_inference_steps
        scale = config.guidance if guidance_scale is None else guidance_scale
        latents = self.generator.sample(
            noise,
            condition,
            num_inference_steps=steps,
            guidance_scale=scale,
            on_step=on_step,
        )
        return self.autoencoder.decode(latents).clamp(-1, 1)

    def condition(
        self, output: UnderstanderOutput, prompts: list[str], affect: Tensor
    ) -> Condition:
        """Return the condition of an understander's output, prompts and wanted affect [B, 2]."""
        return self.condition_of(output.h_ctx, output.h_emo, prompts, affect)

    def condition_on_states(
        self, states: Tensor, prompts: list[str], affect: Tensor | None = None
    ) -> Condition:
        """Return the condition of states [B, 1 + K, D], prompts and wanted affect [B, 2].

        Without a wanted affect it is the affect head's prediction for a state: in training, too,
        states come with the affect of their image.
        """
        h_emo = states[:, 0]
        if affect is None:
            affect = self.understander.affect_head(h_emo)
        return self.condition_of(states[:, 1:], h_emo, prompts, affect)

    def condition_of(
        self, h_ctx: Tensor, h_emo: Tensor, prompts: list[str], affect: Tensor
    ) -> Condition:
        """Return the condition of states [B, K, D] and [B, D], prompts and wanted affect [B, 2]."""
        encode = self.generator.denoiser.encode_text
        return Condition(
            text=encode(prompts),
            unconditional_text=encode([""]).expand(len(prompts)),
            h_ctx=h_ctx,
            h_emo=h_emo,
            affect=affect,
        )

    def read(self, prompts: Prompts) -> UnderstanderOutput:
        """Read prompts without gradient."""
        with torch.no_grad():
            return self.understander(prompts)


def _conditioner(config: ModelConfig, width: int, denoiser: Denoiser) -> Conditioner:
    sizes = (width, config.hidden, denoiser.token_width, denoiser.pooled_width)
    if config.conditioner == "word":
        return PseudoWordConditioner(*sizes)
    return ConnectorConditioner(*sizes, layers=config.connector_layers)
