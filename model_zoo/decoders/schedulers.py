"""What a decoder's outputs mean, from the scheduler file that comes with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler

from emosym.diffusion.processes import Process, RectifiedFlow, VPDiffusion
from emosym.errors import UserError
from emosym.models.model import check_range
from model_zoo.pretrained import reading

FLOW = "FlowMatchEulerDiscreteScheduler"
DIFFUSION = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
"""Samplers of one and the same process; which one a file names is not a matter of the model."""
FILE = "scheduler_config.json"


def read_scheduler(folder: Path) -> dict[str, Any]:
    """Return what a scheduler folder says; raise UserError where it cannot be read."""
    with reading(folder):
        config = json.loads((folder / FILE).read_text())
        if not isinstance(config, dict):
            raise ValueError(f"{FILE} is no mapping")
    return config


def write_scheduler(config: Mapping[str, Any], folder: Path) -> None:
    """Write what `read_scheduler` reads."""
    folder.mkdir(parents=True)
    (folder / FILE).write_text(json.dumps(config, indent=2) + "\n")


def process_of(config: Mapping[str, Any]) -> Process:
    """Return the process of a scheduler's configuration, in the keys of diffusers.

    Noise levels, prediction, shift, offset and the last level count. How a sampler spaces its
    steps is not a matter of the model: `linspace` is read as `leading`, others as they are.

    Raises:
        UserError: a process that is not supported, a value out of range.
    """
    name = config.get("_class_name")
    if name == FLOW:
        for key in ("use_dynamic_shifting", "invert_sigmas", "shift_terminal"):
            if config.get(key):
                raise UserError(f"{FILE}: {key} is not supported", got=config[key])
        return RectifiedFlow(_number("shift", config.get("shift", 1.0), 0.01, 100))
    if name not in DIFFUSION:
        raise UserError(
            f"{FILE}: an unknown scheduler",
            got=name or "no name",
            expected=", ".join((FLOW, *DIFFUSION)),
        )
    with reading(FILE):
        known = DDIMScheduler.from_config({**config, "_class_name": "DDIMScheduler"})
    said = known.config
    for key, choices in (
        ("prediction_type", ("epsilon", "v_prediction")),
        ("timestep_spacing", ("leading", "trailing", "linspace")),
    ):
        if said[key] not in choices:
            raise UserError(f"{FILE}: {key}", got=said[key], expected=" or ".join(choices))
    return VPDiffusion(
        known.alphas_cumprod,
        said.prediction_type,
        timestep_spacing="trailing" if said.timestep_spacing == "trailing" else "leading",
        steps_offset=int(
            _number("steps_offset", said.steps_offset, 0, len(known.alphas_cumprod) - 1)
        ),
        set_alpha_to_one=bool(said.set_alpha_to_one),
    )


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{FILE}: {name}", got=repr(value), expected="a number")
    check_range(f"{FILE}: {name}", value, low, high)
    return value
