"""Metadata of a generated PNG: the request, the seed and the model that made it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from emosym.affect.scales import Affect
from emosym.diffusion.guidance import Scale
from emosym.errors import UserError
from emosym.inference.inputs import check_sampling, complete
from emosym.models.emotion_space import blend_shares
from emosym.records import ImageRequest
from emosym.strict_json import read_json

KEY = "emosym"
"""Keyword of the PNG text chunk."""

KINDS: dict[str, tuple[type, ...]] = {
    "prompt": (str,),
    "emotion": (str, NoneType),
    "valence": (float, int, NoneType),
    "arousal": (float, int, NoneType),
    "seed": (int,),
    "guidance": (float, int, dict),
    "steps": (int,),
    "model": (str,),
}
"""Types of the fields that all metadata have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PngMetadata:
    """How an image was generated."""

    request: ImageRequest
    seed: int
    """In [0, 2^63)."""
    guidance: Scale
    """One scale, or one for each source that was named."""
    steps: int
    model: str
    """Hash of the model's files, from `zoo.fingerprint`."""
    space: Mapping[str, float] | None = None
    """Emotion -> share of the blend, if the image was generated from the emotion space."""
    mixed_state: bool = False
    """Whether `emosym refine` mixed the state, so that request and seed alone do not draw it."""


def to_png(image: Image.Image, metadata: PngMetadata) -> bytes:
    """Return a PNG file with metadata; equal arguments give equal bytes."""
    scale = metadata.guidance
    fields = metadata.request.to_dict() | {
        "seed": metadata.seed,
        "guidance": dict(scale) if isinstance(scale, Mapping) else scale,
        "steps": metadata.steps,
        "model": metadata.model,
    }
    if metadata.space is not None:
        fields["space"] = dict(metadata.space)
    if metadata.mixed_state:
        fields["mixed_state"] = True
    about = PngInfo()
    about.add_text(KEY, json.dumps(fields))  # ASCII, for PNG's tEXt
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()


def read_png_metadata(path: Path) -> PngMetadata | None:
    """Return a file's metadata; None for a file without any.

    Raises `UserError` for metadata that cannot be parsed.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()  # text may follow the pixels
            text = getattr(image, "text", {}).get(KEY)
    except UnidentifiedImageError:  # of another format
        return None
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
    if not all(isinstance(fields[name], kinds) for name, kinds in KINDS.items()):
        raise ValueError("a field of another type")
    prompt, emotion, *affect = (
        fields.pop(name) for name in ("prompt", "emotion", "valence", "arousal")
    )
    request = ImageRequest(prompt=prompt, emotion=emotion, affect=Affect.optional(*affect))
    metadata = PngMetadata(request=request, **fields)
    if not isinstance(metadata.mixed_state, bool):
        raise ValueError(f"mixed_state {metadata.mixed_state}")
    if not 0 <= metadata.seed < 2**63:
        raise ValueError(f"seed {metadata.seed}")
    check_sampling(metadata.steps, metadata.guidance)
    complete(metadata.request)
    if metadata.space is not None:
        blend_shares(metadata.space)
    return metadata
