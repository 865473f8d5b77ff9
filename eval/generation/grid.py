"""A contact sheet of one prompt across the valence–arousal plane."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from emosym.diffusion.guidance import Scale
from emosym.inference.sheets import CELL, affect_sheet
from emosym.inference.sweep import Sweep, axis_values
from emosym.interfaces import EmotionModel
from emosym.records import ImageRequest

VALUES = axis_values(5)
"""-3, -1.5, 0, 1.5, 3 on `PUBLIC`. Ref: arXiv 2501.05710 (EmotiCrafter), section 4.2."""


def affect_grid(
    model: EmotionModel,
    prompt: str,
    seed: int,
    *,
    values: Sequence[float] = VALUES,
    guidance_scale: Scale | None = None,
    num_inference_steps: int | None = None,
    cell: int = CELL,
) -> Image.Image:
    """Return a labelled grid of one prompt: valence grows to the right, arousal grows upwards.

    The noise is the same in all cells; only the requested affect differs.
    """
    sweep = Sweep(valences=tuple(sorted(values)), arousals=tuple(sorted(values)))
    requests = sweep.requests(ImageRequest(prompt=prompt))
    images = model.generate(
        requests,
        seed=[seed] * len(requests),
        guidance_scale=guidance_scale,
        num_inference_steps=num_inference_steps,
    )
    across, up = sweep.labels
    return affect_sheet(images, prompt, across, up, cell=cell)
