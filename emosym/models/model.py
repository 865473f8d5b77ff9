"""The whole model: three parts that train apart and work together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.interfaces import Processor, Prompts
from emosym.models.conditioner import Conditioner, ConnectorConditioner, PseudoWordConditioner
from emosym.models.generator import Condition, Generator
from emosym.models.understander import Understander, UnderstanderOutput

if TYPE_CHECKING:
    from emosym.models.emotion_space import EmotionSpace

FORMAT = 2
"""Version of the model folder; another one is refused."""
DECODER = "decoder"
"""Names the decoder's own text encoder as the encoder of knowledge."""

MOST_STEPS = 1000
"""Sampling steps; flow matching has long converged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What shapes the model beside its backbone and decoder.

    Raises:
        UserError: a number outside its range, labels that are not Mikels' or come twice.
    """

    format: int = FORMAT
    reasoning_tokens: int = 8
    """K; 0 leaves [EMO] alone."""
    hidden: int = 256
    """Width of the heads' and mappers' hidden layers."""
    conditioner: Literal["word", "connector"] = "word"
    """What the decoder is told of the states: one pseudo-word (EmoSym), or K + 1 tokens through a
    small transformer (MetaQuery)."""
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
    knowledge_encoder: str = DECODER
    """What encodes the texts that the knowledge head projects; `model_zoo.text.text_encoders`."""
    knowledge_width: int | None = None
    """Width of its features; null is the decoder's."""

    def __post_init__(self) -> None:
        check_range("reasoning_tokens", self.reasoning_tokens, 0, 1024)
        check_range("hidden", self.hidden, 1, 65_536)
        check_range("connector_layers", self.connector_layers, 1, 64)
        check_range("image_size", self.image_size, 8, 8192)
        check_range("steps", self.steps, 1, MOST_STEPS)
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
    """Understander, generator and autoencoder with the processor of their inputs.

    The parts are found by name in `PARTS`; each is trained by its own engine.
    """

    PARTS = ("understander", "generator", "autoencoder")

    def __init__(
        self,
        config: ModelConfig,
        *,
        backbone: nn.Module,
        processor: Processor,
        denoiser: nn.Module,
        autoencoder: nn.Module,
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
        self.autoencoder = autoencoder
        self.space: EmotionSpace | None = None
        """Of this understander's states; None where none was fitted."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.understander.reasoner.emotion.device

    def head_state(self) -> dict[str, Tensor]:
        """Return the parameters that belong to neither a backbone nor a decoder."""
        theirs = ("understander.backbone.", "generator.denoiser.", "autoencoder.")
        return {k: v for k, v in self.state_dict().items() if not k.startswith(theirs)}

    def load_head_state(self, state: dict[str, Tensor]) -> None:
        """Load what `head_state` returned; names and shapes must match exactly."""
        own = self.head_state()
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
    def draw(
        self, noise: Tensor, condition: Condition, *, steps: int | None, guidance: float | None
    ) -> Tensor:
        """Return pixels [B, 3, H, W] in [-1, 1] from noise of `autoencoder.latent_shape`."""
        latents = self.generator.sample(
            noise,
            condition,
            steps=self.config.steps if steps is None else steps,
            guidance=self.config.guidance if guidance is None else guidance,
        )
        return self.autoencoder.decode(latents).clamp(-1, 1)

    def condition(
        self, reading: UnderstanderOutput, prompts: list[str], affect: Tensor
    ) -> Condition:
        """Join what was read, the decoder's own text features and the wanted affect [B, 2]."""
        return self._told(prompts, reading.h_ctx, reading.h_emo, affect)

    def evoke(self, states: Tensor, prompts: list[str]) -> Condition:
        """Return the condition of states [B, 1 + K, D] that an emotion space gave.

        The wanted affect is what a state feels like to the model's own head: in training it came
        with a state, and was that image's.
        """
        h_emo = states[:, 0]
        affect = self.understander.affect_head(h_emo).float()
        return self._told(prompts, states[:, 1:], h_emo, affect)

    def _told(self, prompts: list[str], h_ctx: Tensor, h_emo: Tensor, affect: Tensor) -> Condition:
        encode = self.generator.denoiser.encode_text
        return Condition(
            text=encode(prompts),
            free=encode([""]).expand(len(prompts)),
            h_ctx=h_ctx,
            h_emo=h_emo,
            affect=affect,
        )

    def read(self, prompts: Prompts) -> UnderstanderOutput:
        """Read prompts without gradient."""
        with torch.no_grad():
            return self.understander(prompts)


def _conditioner(config: ModelConfig, width: int, denoiser: nn.Module) -> Conditioner:
    sizes = (width, config.hidden, denoiser.token_width, denoiser.pooled_width)
    if config.conditioner == "word":
        return PseudoWordConditioner(*sizes)
    return ConnectorConditioner(*sizes, layers=config.connector_layers)
