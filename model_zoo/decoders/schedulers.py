"""The diffusion process of a decoder, from the scheduler configuration in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler

from emosym.diffusion.processes import Process, RectifiedFlow, VPDiffusion
from emosym.errors import UserError
from emosym.models.model import check_range
from model_zoo.pretrained import user_errors
from model_zoo.received.folder import read_object

FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
DIFFUSION_SCHEDULERS = (
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
"""Schedulers of variance-preserving diffusion. All define the same process, so any of these names
is accepted."""
SCHEDULER_FILE = "scheduler_config.json"


def read_scheduler(folder: Path) -> dict[str, Any]:
    """Return the configuration in a scheduler folder; raise UserError if it cannot be read."""
    return read_object(folder / SCHEDULER_FILE)


def write_scheduler(config: Mapping[str, Any], folder: Path) -> None:
    """Write what `read_scheduler` reads."""
    folder.mkdir(parents=True)
    (folder / SCHEDULER_FILE).write_text(json.dumps(config, indent=2) + "\n")


def process_of(config: Mapping[str, Any]) -> Process:
    """Return the process that a diffusers scheduler configuration defines.

    It takes noise levels, prediction type, shift, offset and last level from the configuration.
    The spacing of time steps belongs to the sampler: `linspace` is replaced by `leading`.

    Raises:
        UserError: a scheduler that is not supported, or a value out of range.
    """
    name = config.get("_class_name")
    if name == FLOW_SCHEDULER:
        for key in ("use_dynamic_shifting", "invert_sigmas", "shift_terminal"):
            if config.get(key):
                raise UserError(f"{SCHEDULER_FILE}: {key} is not supported", got=config[key])
        return RectifiedFlow(_number("shift", config.get("shift", 1.0), 0.01, 100))
    if name not in DIFFUSION_SCHEDULERS:
        raise UserError(
            f"{SCHEDULER_FILE}: unknown scheduler",
            got=name or "no name",
            expected=", ".join((FLOW_SCHEDULER, *DIFFUSION_SCHEDULERS)),
        )
    with user_errors(SCHEDULER_FILE):
        scheduler: Any = DDIMScheduler.from_config({**config, "_class_name": "DDIMScheduler"})
    values = scheduler.config
    for key, choices in (
        ("prediction_type", ("epsilon", "v_prediction")),
        ("timestep_spacing", ("leading", "trailing", "linspace")),
    ):
        if values[key] not in choices:
            raise UserError(
                f"{SCHEDULER_FILE}: {key}", got=values[key], expected=" or ".join(choices)
            )
    levels = scheduler.alphas_cumprod
    return VPDiffusion(
        levels,
        values.prediction_type,
        timestep_spacing="trailing" if values.timestep_spacing == "trailing" else "leading",
        steps_offset=int(_number("steps_offset", values.steps_offset, 0, len(levels) - 1)),
        set_alpha_to_one=bool(values.set_alpha_to_one),
    )


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{SCHEDULER_FILE}: {name}", got=repr(value), expected="a number")
    check_range(f"{SCHEDULER_FILE}: {name}", value, low, high)
    return value
