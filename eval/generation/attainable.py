"""The least error that a picture like AffectWorld's can have: not all of the plane can be drawn.

A picture's light bounds its affect: the brightness and the saturation in which the world draws a
subject, so that a person still recognises it, do not reach every corner of the plane. The targets
that the world draws are narrower still (`world.RADIUS`): in a corner a model can reach the floor
only beyond what it was shown. One that leaves the light can even go below.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_tools.affectworld.truth import colour_term, subject_term
from data_tools.affectworld.world import BRIGHTNESS, SATURATION
from emosym.affect.scales import PUBLIC

LIGHTS = 301
"""Steps of brightness, and of saturation, that are tried: within 0.02 of the least error."""


def attainable(subject: str, valence: float, arousal: float) -> tuple[float, float]:
    """Return |ΔV| and |ΔA| of the light in which `subject` is nearest (least sum) to a target.

    Target and errors on `affect.PUBLIC`. Raises `UserError` for an unknown subject.
    """
    reached = _affects(subject)
    errors = np.abs(reached - (valence, arousal))
    v_error, a_error = errors[errors.sum(1).argmin()]
    return float(v_error), float(a_error)


@cache
def _affects(subject: str) -> NDArray:
    """Return (valence, arousal) of a subject in all of the world's light, [N, 2]."""
    brightness, saturation = np.meshgrid(
        np.linspace(*BRIGHTNESS, LIGHTS), np.linspace(*SATURATION, LIGHTS)
    )
    valence, arousal, _ = colour_term(brightness.ravel(), saturation.ravel())
    affects = np.stack([valence, arousal], axis=1) + subject_term(subject)
    return affects.clip(PUBLIC.low, PUBLIC.high)
