"""One image as the commands draw it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from PIL import Image

from emosym.inference.png_metadata import PngMetadata, to_png
from emosym.records import ImageRequest

if TYPE_CHECKING:
    from emosym.inference.pipeline import EmoSymPipeline


def draw(
    pipeline: EmoSymPipeline,
    request: ImageRequest,
    seed: int,
    *,
    guidance: float | None,
    steps: int | None,
    maker: str,
    space: Mapping[str, float] | None = None,
) -> tuple[Image.Image, bytes]:
    """Return an image and its PNG file, with how it was made by the model of hash `maker`.

    Alone, not in a batch: there sums round otherwise, and the same request and seed would give
    other bytes. With `space`, shares of emotions, the model's emotion space gives the condition,
    and `request` is what `pipeline.wanted` says of it.
    """
    how = {"seed": seed, "guidance": guidance, "steps": steps}
    if space is None:
        (image,) = pipeline.generate([request], **how)
    else:
        (image,) = pipeline.imagine(space, prompt=request.prompt, **how)
    return image, png_of(image, request, seed, pipeline, guidance, steps, maker, space)


def png_of(
    image: Image.Image,
    request: ImageRequest,
    seed: int,
    pipeline: EmoSymPipeline,
    guidance: float | None,
    steps: int | None,
    maker: str,
    space: Mapping[str, float] | None = None,
) -> bytes:
    """Return the PNG file of an image that the model of hash `maker` drew, with its imprint."""
    config = pipeline.model.config
    imprint = PngMetadata(
        request=request,
        seed=seed,
        guidance=config.guidance if guidance is None else guidance,
        steps=config.steps if steps is None else steps,
        model=maker,
        space=space,
    )
    return to_png(image, imprint)
