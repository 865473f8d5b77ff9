"""The denoisers of Stable Diffusion behind `emosym.interfaces.Denoiser`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import ModelMixin, SD3Transformer2DModel, UNet2DConditionModel
from torch import Tensor
from transformers import BatchEncoding

from emosym.diffusion.processes import RectifiedFlow, VPDiffusion
from emosym.errors import UserError
from emosym.interfaces import Denoiser, TextFeatures
from model_zoo.decoders.prompt_encoders import PromptEncoder
from model_zoo.decoders.schedulers import process_of


class StableDiffusion(Denoiser):
    """What all families share.

    Args:
        network: the network that denoises.
        text_encoder: reads prompts.
        scheduler: the configuration that says what the outputs mean; diffusers' keys.
        image_size: side of the images, pixels.

    Raises:
        UserError: parts that do not belong together.
    """

    folder: str
    """Where diffusers keeps the network."""
    network_class: type[ModelMixin]
    process_class: type
    pipeline: str | None
    """The diffusers pipeline of the same parts, if there is one."""
    text_tokens: int | None = None
    """Window of T5, in families that have one."""

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
                f"a {self.network_class.__name__} with a scheduler that is not its own",
                got=scheduler["_class_name"],
                expected=f"one of a {self.process_class.__name__.lower()} process",
            )
        self.token_width: int = text_encoder.width
        self.pooled_width: int = text_encoder.pooled_width
        self.knowledge_width: int = text_encoder.knowledge_width

    def tokenize(self, prompts: Sequence[str]) -> list[BatchEncoding]:
        """Return prompts as ids for each text encoder.

        Raises:
            UserError: a prompt is longer than a window.
        """
        return self.text_encoder.tokenize(prompts)

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Encode prompts; raises as `tokenize`."""
        return self.text_encoder(prompts)

    def pool_text(self, texts: Sequence[str]) -> Tensor:
        """Return vectors [B, `knowledge_width`] of texts of any length, each read whole."""
        return self.text_encoder.pool(texts)

    def checkpoint_gradients(self) -> None:
        """Recompute the network's layers in the backward pass instead of keeping them."""
        self.network.enable_gradient_checkpointing()

    def _check_pooled(self, width: int) -> None:
        if self.pooled_width != width:
            raise UserError(
                "text encoders and denoiser differ in their pooled width",
                got=self.pooled_width,
                expected=f"{width}, as the denoiser reads",
            )


class MMDiT(StableDiffusion):
    """The transformer of SD3 and SD3.5: two CLIPs with T5 or without, or T5 alone.

    Ref: Esser et al. 2024 (arXiv 2403.03206).
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
        t5 = text_encoder.t5
        self.text_tokens = text_encoder.blank if t5 is None else t5.window
        self.pipeline = "StableDiffusion3Pipeline" if len(text_encoder.clips) else None
        self._check_pooled(network.config.pooled_projection_dim)

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
    """The UNet of SD 1.x and 2.x (one CLIP) and of SDXL (two CLIPs, sizes).

    Images are asked for as SDXL's best: never cropped, as large as they are.
    Ref: Rombach et al. 2022 (arXiv 2112.10752); SDXL (arXiv 2307.01952) §2.2.
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
        config = network.config
        for key in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
            if config[key] is not None:
                raise UserError(f"a UNet with {key} is not supported", got=config[key])
        self.sized = config.addition_embed_type == "text_time"
        if config.addition_embed_type is not None and not self.sized:
            raise UserError(
                "a UNet with this addition_embed_type is not supported",
                got=config.addition_embed_type,
                expected="none (SD 1.x, 2.x) or text_time (SDXL)",
            )
        self.pipeline = "StableDiffusionXLPipeline" if self.sized else "StableDiffusionPipeline"
        if self.sized:
            sizes = 6 * config.addition_time_embed_dim
            self._check_pooled(config.projection_class_embeddings_input_dim - sizes)
        else:
            self._check_pooled(0)

    def predict(self, latents: Tensor, time: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """Return ε or v at times [B] in 0 ... T - 1."""
        added = {}
        if self.sized:
            side = self.image_size  # original size, corner of the crop, wanted size
            sizes = tokens.new_tensor([side, side, 0, 0, side, side])
            added = {"text_embeds": pooled, "time_ids": sizes.expand(len(tokens), -1)}
        return self.network(
            latents.to(tokens.dtype),
            time,
            encoder_hidden_states=tokens,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
