"""Metadata of a generated PNG: the request, the seed and the model that made it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType

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
    """How an image was generated."""

    request: ImageRequest
    seed: int
    """In [0, 2^63)."""
    guidance: float
    steps: int
    model: str
    """Hash of the model's files, from `zoo.fingerprint`."""
    space: Mapping[str, float] | None = None
    """Emotion -> share of the blend, if the image was generated from the emotion space."""


def to_png(image: Image.Image, metadata: PngMetadata) -> bytes:
    """Return a PNG file with metadata; equal arguments give equal bytes."""
    fields = asdict(metadata)
    if metadata.space is None:
        del fields["space"]
    about = PngInfo()
    about.add_text(KEY, json.dumps(fields.pop("request") | fields))  # ASCII, for PNG's tEXt
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()


def read_png_metadata(path: Path) -> PngMetadata | None:
    """Return a file's metadata; None for a file without any.

    Raises `UserError` for metadata that cannot be parsed.
    """
    with Image.open(path) as image:
        image.load()  # text may follow the pixels
        text = getattr(image, "text", {}).get(KEY)
    if text is None:
        return None
    try:
        return _parse(read_json(text))
    except (ValueError, TypeError, KeyError, AttributeError, UserError) as error:
        raise UserError(
            f"{path} has broken metadata",
            got=error,
            fix="save the image without its metadata",
        ) from error


def _parse(fields: object) -> PngMetadata:
    """Return metadata from JSON.

    Raises some exception for a field that is missing, unknown or wrong.
    """
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    request = {name: fields.pop(name) for name in ImageRequest.__slots__}
    metadata = PngMetadata(request=ImageRequest(**request), **fields)
    kinds: list[tuple[object, tuple[type, ...]]] = [
        (metadata.request.prompt, (str,)),
        (metadata.seed, (int,)),
        (metadata.model, (str,)),
        (metadata.guidance, (float, int)),
        (metadata.steps, (int,)),
        (metadata.request.emotion, (str, NoneType)),
        (metadata.request.valence, (float, int, NoneType)),
        (metadata.request.arousal, (float, int, NoneType)),
    ]
    if not all(isinstance(value, kind) for value, kind in kinds):
        raise ValueError("a field of another type")
    if not 0 <= metadata.seed < 2**63:
        raise ValueError(f"seed {metadata.seed}")
    complete(metadata.request)
    if metadata.space is not None:
        blend_shares(metadata.space)
    return metadata
