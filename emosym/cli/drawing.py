"""Generation of one image for a command, as a PNG with metadata."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from PIL import Image

from emosym.diffusion.guidance import Scale
from emosym.inference.png_metadata import PngMetadata, to_png
from emosym.records import ImageRequest

if TYPE_CHECKING:
    from emosym.inference.pipeline import EmoSymPipeline


def warn_untrained(pipeline: EmoSymPipeline) -> None:
    """Say on stderr that images do not show the wanted emotion, if nothing trained the model to."""
    if pipeline.model.generator.conditioner.is_new:
        print(
            "warning: the model was not trained to generate, so its images do not show the wanted"
            " emotion; train it with a phase that generates, as `make train-joint` does",
            file=sys.stderr,
        )


def draw(
    pipeline: EmoSymPipeline,
    request: ImageRequest,
    seed: int,
    *,
    guidance_scale: Scale | None,
    num_inference_steps: int | None,
    model_hash: str,
    space: Mapping[str, float] | None = None,
) -> tuple[Image.Image, bytes]:
    """Generate an image, and its PNG file with metadata.

    The batch size is 1: in a larger batch sums are rounded differently, and the same request and
    seed would give other bytes. With `space`, shares of emotions, the condition is sampled from
    the model's emotion space, and `request` is the one that `pipeline.wanted` returned.
    """
    if space is None:
        (image,) = pipeline.generate(
            [request],
            seed=seed,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
        )
    else:
        (image,) = pipeline.imagine(
            space,
            prompt=request.prompt,
            seed=seed,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
        )
    return image, png_of(
        image, request, seed, pipeline, guidance_scale, num_inference_steps, model_hash, space
    )


def png_of(
    image: Image.Image,
    request: ImageRequest,
    seed: int,
    pipeline: EmoSymPipeline,
    guidance_scale: Scale | None,
    num_inference_steps: int | None,
    model_hash: str,
    space: Mapping[str, float] | None = None,
    *,
    mixed_state: bool = False,
) -> bytes:
    """Return the PNG file, with metadata, of an image that the model of this hash generated."""
    config = pipeline.model.config
    metadata = PngMetadata(
        request=request,
        seed=seed,
        guidance=config.guidance if guidance_scale is None else guidance_scale,
        steps=config.steps if num_inference_steps is None else num_inference_steps,
        model=model_hash,
        space=space,
        mixed_state=mixed_state,
    )
    return to_png(image, metadata)
