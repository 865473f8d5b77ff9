"""Conversion of colours to sRGB by the profile that a picture carries."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
"""Pillow's mode -> the ICC colour space of a profile that describes it."""

_STEPS = np.linspace(0, 255, 16).astype(np.uint8)
_PROBE = np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS), -1).reshape(64, 64, 3)
"""Colours all over RGB, by which a profile is recognised as sRGB."""


class UnusableProfile(Exception):  # noqa: N818 (a reason to ignore the profile, not an error)
    """A colour profile is damaged or describes other pixels; the message is the reason."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an image of mode L, RGB or CMYK, whose colours an ICC profile describes, in sRGB.

    The intent is relative colorimetric with black point compensation. A profile that moves no
    colour by more than one of 255 levels is sRGB: the image is returned as it is.

    Raises:
        UnusableProfile: the profile is damaged or has another colour space than the image.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space
        image = _fitted(image, space)
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(
            source,
            target,
            image.mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if image.mode == "RGB" and _is_identity(transform):
            return image
        converted = transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise UnusableProfile(str(error) or "it is damaged") from error
    converted.info = {}
    return converted


def _fitted(image: Image.Image, space: str) -> Image.Image:
    """Return the image in the mode that a profile's colour space describes."""
    if space == _SPACES.get(image.mode):
        return image
    if image.mode == "L" and space == "RGB ":
        return image.convert("RGB")
    if image.mode == "RGB" and space == "GRAY":
        red, green, blue = image.split()
        if red.tobytes() == green.tobytes() == blue.tobytes():  # a decoder made RGB of grey
            return red
    raise UnusableProfile(f"it is for {space.strip() or 'unknown'} pixels, these are {image.mode}")


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    moved = np.asarray(transform.apply(Image.fromarray(_PROBE)), np.int16) - _PROBE
    return bool(np.abs(moved).max() <= 1)
