"""The least error of AffectWorld's pictures, which cannot reach all points of the plane.

AffectWorld limits brightness and saturation, so that a person still recognises the subject; this
limits the affect of its pictures. Its training targets are narrower still (`world.RADIUS`), so a
model reaches the least error in a corner only by extrapolation. A model whose images leave
AffectWorld's range of light can have a smaller error.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_tools.affectworld.truth import colour_term, subject_term
from data_tools.affectworld.world import BRIGHTNESS, SATURATION
from emosym.affect.scales import PUBLIC, Affect

LIGHTS = 301
"""Grid points of brightness, and of saturation: within 0.02 of the least error."""


def attainable(subject: str, target: Affect) -> tuple[float, float]:
    """Return |ΔV| and |ΔA| in the light that brings `subject` nearest (least sum) to a target.

    Target and errors are on `PUBLIC`.

    Raises:
        UserError: an unknown subject.
    """
    errors = np.abs(_affects(subject) - target.coordinates)
    v_error, a_error = errors[errors.sum(1).argmin()]
    return float(v_error), float(a_error)


@cache
def _affects(subject: str) -> NDArray:
    """Return (valence, arousal) of a subject in every light of the world, [N, 2]."""
    brightness, saturation = np.meshgrid(
        np.linspace(*BRIGHTNESS, LIGHTS), np.linspace(*SATURATION, LIGHTS)
    )
    valence, arousal, _ = colour_term(brightness.ravel(), saturation.ravel())
    affects = np.stack([valence, arousal], axis=1) + subject_term(subject)
    return affects.clip(PUBLIC.low, PUBLIC.high)
