"""What a generated PNG says about itself: the request, the seed and the model that made it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from emosym.errors import UserError
from emosym.inference.pipeline import complete
from emosym.models.emotion_space import blend_shares
from emosym.records import ImageRequest
from emosym.strict_json import read_json

KEY = "emosym"
"""Keyword of the PNG text chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PngMetadata:
    """How an image was made."""

    request: ImageRequest
    seed: int
    """In [0, 2^63)."""
    guidance: float
    steps: int
    model: str
    """Identity of the model, as `zoo.fingerprint` gives it."""
    space: Mapping[str, float] | None = None
    """Emotion -> share of the blend, where the model's emotion space gave the condition."""


def to_png(image: Image.Image, imprint: PngMetadata) -> bytes:
    """Return a PNG file with its imprint; equal arguments give equal bytes."""
    fields = asdict(imprint)
    if imprint.space is None:
        del fields["space"]
    about = PngInfo()
    about.add_text(KEY, json.dumps(fields.pop("request") | fields))  # ASCII, as PNG's tEXt wants
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()


def read_png_metadata(path: Path) -> PngMetadata | None:
    """Return what a file says about how it was made; None when it says nothing.

    Raises `UserError` when there is an imprint that cannot be read.
    """
    with Image.open(path) as image:
        image.load()  # text may follow the pixels
        text = getattr(image, "text", {}).get(KEY)
    if text is None:
        return None
    try:
        fields = read_json(text)
        request = {name: fields.pop(name) for name in ImageRequest.__slots__}
        imprint = PngMetadata(request=ImageRequest(**request), **fields)
        kinds = [(imprint.request.prompt, str), (imprint.seed, int), (imprint.model, str)]
        kinds += [(imprint.guidance, float | int), (imprint.steps, int)]
        kinds += [(imprint.request.emotion, str | None)]
        kinds += [(imprint.request.valence, float | int | None)]
        kinds += [(imprint.request.arousal, float | int | None)]
        if not all(isinstance(value, kind) for value, kind in kinds):
            raise ValueError("a field of another type")
        if not 0 <= imprint.seed < 2**63:
            raise ValueError(f"seed {imprint.seed}")
        complete(imprint.request)
        if imprint.space is not None:
            blend_shares(imprint.space)
    except (ValueError, TypeError, KeyError, AttributeError, UserError) as error:
        raise UserError(
            f"{path} says in a broken way how it was made",
            got=error,
            fix="save the image without its metadata",
        ) from error
    return imprint
