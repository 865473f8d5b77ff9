"""The diffusion process of a decoder, from the scheduler configuration in its folder."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DDIMScheduler

from emosym.diffusion.processes import (
    FlowSpacing,
    PredictionType,
    Process,
    RectifiedFlow,
    TimestepSpacing,
    VPDiffusion,
)
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
UNSUPPORTED = (
    "use_dynamic_shifting",
    "invert_sigmas",
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
)
"""Options of the flow scheduler that change its noise levels; none may be set."""


def read_scheduler(folder: Path) -> dict[str, Any]:
    """Return the configuration in a scheduler folder; raise UserError if it cannot be read."""
    return read_object(folder / SCHEDULER_FILE)


def write_scheduler(config: Mapping[str, Any], folder: Path) -> None:
    """Write what `read_scheduler` reads."""
    folder.mkdir(parents=True)
    (folder / SCHEDULER_FILE).write_text(json.dumps(config, indent=2) + "\n")


def process_of(config: Mapping[str, Any]) -> Process:
    """Return the process that a diffusers scheduler configuration defines.

    It takes noise levels, prediction type, shift, and the times of samplers: `timestep_spacing`,
    `steps_offset` and the last level. What the configuration leaves out is the default of the class
    that it names, so that these are the times of the decoder's own pipeline. The step from one time
    to the next is always that of DDIM, or Euler's of a flow.
    `timestep_spacing` of a flow is `linspace`, or `trailing` as in Flux's pipeline.

    Raises:
        UserError: a scheduler that is not supported, or a value out of range.
    """
    name = config.get("_class_name")
    if name == FLOW_SCHEDULER:
        for key in UNSUPPORTED:
            if config.get(key):
                raise UserError(f"{SCHEDULER_FILE}: {key} is not supported", got=config[key])
        spacing = config.get("timestep_spacing", "linspace")
        _check_choice("timestep_spacing", spacing, typing.get_args(FlowSpacing))
        return RectifiedFlow(
            _number("shift", config.get("shift", 1.0), 0.01, 100), spacing, _train_steps(config)
        )
    if name not in DIFFUSION_SCHEDULERS:
        raise UserError(
            f"{SCHEDULER_FILE}: unknown scheduler",
            got=name or "no name",
            expected=", ".join((FLOW_SCHEDULER, *DIFFUSION_SCHEDULERS)),
        )
    _train_steps(config)
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(getattr(diffusers, name)).parameters.items()
    }
    stated = defaults | dict(config)
    with user_errors(SCHEDULER_FILE):
        scheduler: Any = DDIMScheduler.from_config({**config, "_class_name": "DDIMScheduler"})
    values = scheduler.config
    spacing = stated["timestep_spacing"]
    _check_choice("prediction_type", values.prediction_type, typing.get_args(PredictionType))
    _check_choice("timestep_spacing", spacing, typing.get_args(TimestepSpacing))
    if "set_alpha_to_one" in defaults:
        ends_clean = bool(stated["set_alpha_to_one"])
    else:
        ends_clean = stated.get("final_sigmas_type", "zero") != "sigma_min"
    levels = scheduler.alphas_cumprod
    return VPDiffusion(
        levels,
        values.prediction_type,
        timestep_spacing=spacing,
        steps_offset=int(_number("steps_offset", stated["steps_offset"], 0, len(levels) - 1)),
        set_alpha_to_one=ends_clean,
    )


def _train_steps(config: Mapping[str, Any]) -> int:
    """Return the number of noise levels of training."""
    return int(_number("num_train_timesteps", config.get("num_train_timesteps", 1000), 1, 100_000))


def _check_choice(key: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{SCHEDULER_FILE}: {key}", got=value, expected=" or ".join(choices))


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{SCHEDULER_FILE}: {name}", got=repr(value), expected="a number")
    check_range(f"{SCHEDULER_FILE}: {name}", value, low, high)
    return value
