"""The phases of training by name, and the configuration of a run that has a section for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, make_dataclass
from functools import lru_cache
from typing import Any

from emosym.errors import UserError
from emosym.plugins import Registry
from train.config import RunConfig
from train.phases.autoencode import Autoencode
from train.phases.base import Phase
from train.phases.compress import Compress
from train.phases.generate import Generate
from train.phases.instruct import Instruct
from train.phases.reinforce.phase import Reinforce
from train.phases.remember import Remember
from train.phases.verify_grpo import VerifyGrpo
from train.phases.verify_posterior import VerifyPosterior

PHASES: Registry[type[Phase[Any, Any]]] = Registry(
    "phase",
    {
        phase.name: phase
        for phase in (
            Autoencode,
            Compress,
            Instruct,
            VerifyPosterior,
            VerifyGrpo,
            Generate,
            Reinforce,
            Remember,
        )
    },
)
"""Name in a stage's cycle -> class. A run makes one instance of each phase that it uses."""


def train_config() -> type[RunConfig]:
    """Return the class of a run's configuration: `RunConfig` and a section for each phase.

    It is built from the registry, so a phase from a plugin has a section too.

    Raises:
        UserError: a phase whose `name` differs from its registered name, or is the name of another
        section.
    """
    return _train_config(tuple(PHASES.items()))


def sections(config: RunConfig) -> Mapping[str, Any]:
    """Return the section of each phase by the phase's name."""
    return {name: config.section(name) for name in PHASES}


@lru_cache
def _train_config(phases: tuple[tuple[str, type[Phase[Any, Any]]], ...]) -> type[RunConfig]:
    for name, phase in phases:
        if phase.name != name or hasattr(RunConfig, name):
            raise UserError(
                f"the phase {name!r} cannot have a section in a preset",
                got=f"class {phase.__name__} with name = {phase.name!r}",
                expected="the name that it is registered by, and no other section's",
            )

    def check(self: RunConfig) -> None:
        RunConfig.__post_init__(self)
        for name, phase in phases:
            phase.check(self.section(name), self)

    return make_dataclass(
        "TrainConfig",
        [(name, phase.Config, field(default_factory=phase.Config)) for name, phase in phases],
        bases=(RunConfig,),
        namespace={"__post_init__": check, "__doc__": RunConfig.__doc__},
        kw_only=True,
        slots=True,
    )
