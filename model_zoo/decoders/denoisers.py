"""The denoisers of Stable Diffusion. They implement `emosym.interfaces.Denoiser`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers import BatchEncoding

from emosym.diffusion.processes import Process, RectifiedFlow, TimestepSpacing, VPDiffusion
from emosym.errors import UserError
from emosym.interfaces import Denoiser, TextFeatures
from model_zoo.decoders.prompt_encoders import PromptEncoder
from model_zoo.decoders.schedulers import process_of


class StableDiffusion(Denoiser):
    """Base class of the families; a family implements `predict`.

    Args:
        network: the denoising network.
        text_encoder: encodes prompts.
        scheduler: configuration of a diffusers scheduler; it defines `process`.
        image_size: side of the images in pixels.

    Raises:
        UserError: network, text encoders and scheduler do not fit each other.
    """

    folder: ClassVar[str]
    """Subfolder of the network in the diffusers layout."""
    network_class: ClassVar[type[ModelMixin]]
    process_class: ClassVar[type[Process]]
    pipeline: str | None
    """Name of the diffusers pipeline with the same components; None if there is none."""
    text_encoder: PromptEncoder
    text_tokens: int | None = None
    """Prompt length of T5 in tokens; None in families without T5."""

    def __init__(
        self,
        network: ModelMixin,
        text_encoder: PromptEncoder,
        scheduler: Mapping[str, Any],
        image_size: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.text_encoder = text_encoder
        self.scheduler = dict(scheduler)
        self.image_size = image_size
        self.process = process_of(scheduler)
        if not isinstance(self.process, self.process_class):
            raise UserError(
                f"the scheduler does not fit a {self.network_class.__name__}",
                got=scheduler["_class_name"],
                expected=f"a scheduler of {self.process_class.__name__}",
            )
        self.token_width: int = text_encoder.width
        self.pooled_width: int = text_encoder.pooled_width
        self.knowledge_width: int = text_encoder.knowledge_width
        self.prompt_window: int = text_encoder.tokenizers.window

    def set_timestep_spacing(self, timestep_spacing: TimestepSpacing) -> None:
        """Choose the times of sampling steps, see `process_of`; saved with the scheduler.

        Raises:
            UserError: a flow with `leading`.
        """
        scheduler = self.scheduler | {"timestep_spacing": timestep_spacing}
        self.process = process_of(scheduler)
        self.scheduler = scheduler

    def tokenize(self, prompts: Sequence[str]) -> list[BatchEncoding]:
        """Return the token ids of prompts for each text encoder.

        Raises:
            UserError: a prompt is too long, unless `truncate_prompts`.
        """
        return self.text_encoder.tokenizers(prompts, truncate=self.truncate_prompts)

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each prompt."""
        return self.text_encoder.tokenizers.count(prompts)

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encode prompts; raises as `tokenize`."""
        return self.text_encoder(prompts, truncate=self.truncate_prompts)

    def pool_text(self, texts: Sequence[str]) -> Tensor:
        """Return vectors [B, `knowledge_width`] of texts of any length; nothing is truncated."""
        return self.text_encoder.pool(texts)

    def checkpoint_gradients(self) -> None:
        """Recompute activations of the network in the backward pass (gradient checkpointing)."""
        self.network.enable_gradient_checkpointing()

    def predict(self, latents: Tensor, time: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """Return the output of `process` at times [B]: [B, C, H, W] -> same."""
        raise NotImplementedError

    def _check_pooled(self, width: int) -> None:
        if self.pooled_width != width:
            raise UserError(
                "the pooled text features do not fit the denoiser",
                got=f"width {self.pooled_width}",
                expected=f"width {width}",
            )


class MMDiT(StableDiffusion):
    """The transformer of SD3 and SD3.5, with two CLIPs and T5, two CLIPs, or T5 alone.

    Ref: Esser et al. 2024, arXiv 2403.03206.
    """

    folder = "transformer"
    network_class = SD3Transformer2DModel
    process_class = RectifiedFlow

    def __init__(
        self,
        network: SD3Transformer2DModel,
        text_encoder: PromptEncoder,
        scheduler: Mapping[str, Any],
        image_size: int,
    ) -> None:
        super().__init__(network, text_encoder, scheduler, image_size)
        config: Any = network.config
        t5 = text_encoder.t5
        self.text_tokens = text_encoder.blank if t5 is None else t5.window
        self.pipeline = "StableDiffusion3Pipeline" if len(text_encoder.clips) else None
        self._check_pooled(config.pooled_projection_dim)

    def predict(self, latents: Tensor, time: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """Return the velocity at noise levels [B] in [0, 1]."""
        return self.network(
            hidden_states=latents.to(tokens.dtype),
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            timestep=time * 1000,
            return_dict=False,
        )[0]


class UNet(StableDiffusion):
    """The UNet of SD 1.x and 2.x (one CLIP) and of SDXL (two CLIPs and size conditioning).

    SDXL is always conditioned on an uncropped original of the generated size.
    Ref: Rombach et al. 2022, arXiv 2112.10752; SDXL, arXiv 2307.01952, section 2.2.
    """

    folder = "unet"
    network_class = UNet2DConditionModel
    process_class = VPDiffusion

    def __init__(
        self,
        network: UNet2DConditionModel,
        text_encoder: PromptEncoder,
        scheduler: Mapping[str, Any],
        image_size: int,
    ) -> None:
        super().__init__(network, text_encoder, scheduler, image_size)
        config: Any = network.config
        for key in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
            if config[key] is not None:
                raise UserError(f"a UNet with {key} is not supported", got=config[key])
        self.has_size_conditioning = config.addition_embed_type == "text_time"
        if config.addition_embed_type is not None and not self.has_size_conditioning:
            raise UserError(
                "a UNet with this addition_embed_type is not supported",
                got=config.addition_embed_type,
                expected="none (SD 1.x, 2.x) or text_time (SDXL)",
            )
        if self.has_size_conditioning:
            self.pipeline = "StableDiffusionXLPipeline"
            sizes = 6 * config.addition_time_embed_dim
            self._check_pooled(config.projection_class_embeddings_input_dim - sizes)
        else:
            self.pipeline = "StableDiffusionPipeline"
            self._check_pooled(0)

    def predict(self, latents: Tensor, time: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """Return ε or v at times [B] in 0 ... T - 1."""
        added = {}
        if self.has_size_conditioning:
            side = self.image_size
            # original height and width, top and left of the crop, target height and width
            sizes = tokens.new_tensor([side, side, 0, 0, side, side])
            added = {"text_embeds": pooled, "time_ids": sizes.expand(len(tokens), -1)}
        return self.network(
            latents.to(tokens.dtype),
            time,
            encoder_hidden_states=tokens,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
