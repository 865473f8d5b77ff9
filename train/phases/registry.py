"""The phases of training by name, and the configuration of a run that has a section for each."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import field, is_dataclass, make_dataclass
from functools import lru_cache
from typing import Any, get_args

from emosym.config import load_config
from emosym.errors import UserError
from emosym.models.model import EmoSym
from emosym.plugins import Registry
from train.config import RunConfig
from train.data.dataset import Kind
from train.phases.autoencode import Autoencode
from train.phases.base import SECTIONS, Phase
from train.phases.compress import Compress
from train.phases.generate import Generate
from train.phases.instruct import Instruct
from train.phases.reinforce.phase import Reinforce
from train.phases.remember import Remember
from train.phases.verify_grpo import VerifyGrpo
from train.phases.verify_posterior import VerifyPosterior


def check_phase(name: str, phase: Any) -> None:
    """Raise UserError for what cannot be the phase of a name, or cannot have its section."""
    what = f"the phase {name!r}"
    if not isinstance(phase, type) or not issubclass(phase, Phase):
        raise UserError(f"{what} is not a phase", got=repr(phase), expected="a subclass of Phase")
    taken = hasattr(RunConfig, name) or name == "extends"
    if getattr(phase, "name", None) != name or taken or not _is_key(name):
        raise UserError(
            f"{what} cannot have a section in a preset",
            got=f"class {phase.__name__} with name = {getattr(phase, 'name', None)!r}",
            expected="an identifier, the name that it is registered by, and no other section's",
        )
    _check_config(what, getattr(phase, "Config", None), learns=bool(phase.owns))
    for attribute, got, known in (
        ("owns", phase.owns, EmoSym.PARTS),
        ("needs", phase.needs, ("start", *SECTIONS)),
        ("batch_kind", (phase.batch_kind,), get_args(Kind)),
    ):
        if not isinstance(got, (tuple, list, frozenset, set)) or not set(got) <= set(known):
            raise UserError(
                f"{attribute} of {what}", got=repr(got), expected=f"some of {', '.join(known)}"
            )
    if phase.loss is Phase.loss and (phase.owns or phase.act is Phase.act):
        method = "loss" if phase.owns else "loss or act"
        raise UserError(f"{what} has no {method}", fix=f"define {method} in {phase.__name__}")


def _is_key(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def _check_config(what: str, config: object, *, learns: bool) -> None:
    """Raise UserError for a class that cannot be the section of a phase."""
    expected = "a dataclass whose fields have types of YAML and defaults"
    if not isinstance(config, type) or not is_dataclass(config):
        raise UserError(f"Config of {what} is no dataclass", got=repr(config), expected=expected)
    try:
        defaults: object = load_config(config, None)
    except Exception as error:  # OmegaConf and typing raise a dozen kinds for bad annotations
        first = str(error).partition("\n")[0]
        raise UserError(
            f"Config of {what} cannot be a section of a preset", got=first, expected=expected
        ) from error
    if learns and not hasattr(defaults, "batch_size"):
        raise UserError(f"Config of {what} has no batch_size", fix="add it: the items of a step")


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
    check_phase,
)
"""Name in a stage's cycle -> class. A run makes one instance of each phase that it uses."""


def train_config() -> type[RunConfig]:
    """Return the class of a run's configuration: `RunConfig` and a section for each phase.

    It is built from the registry, so a phase from a plugin has a section too.

    Raises:
        UserError: a phase that `check_phase` refuses.
    """
    return _train_config(tuple(PHASES.items()))


def sections(config: RunConfig) -> Mapping[str, Any]:
    """Return the section of each phase by the phase's name."""
    return {name: config.section(name) for name in PHASES}


@lru_cache
def _train_config(phases: tuple[tuple[str, type[Phase[Any, Any]]], ...]) -> type[RunConfig]:
    for name, phase in phases:
        check_phase(name, phase)

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
