"""Old names of options: each is refused, and the message and the docs name the new one."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from emosym.config import load_config
from emosym.errors import UserError
from train.phases.registry import train_config
from train.phases.reinforce.config import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
STAGES = {"stages": [{"steps": 1, "cycle": {"compress": 1}}]}


def renamed(cls: type, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (old, new) dotted key of a configuration class and its sections."""
    for old, new in getattr(cls, "RENAMED", {}).items():
        yield path + old, path + new
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from renamed(hints[field.name], f"{path}{field.name}.")


RENAMED = sorted(renamed(train_config()))


def test_there_are_renamed_options():
    assert len(RENAMED) > 50
    assert ("engine.understander.lr", "engine.understander.learning_rate") in RENAMED


@pytest.mark.parametrize(("old", "new"), RENAMED)
def test_an_old_name_is_refused_and_the_new_one_named(old, new):
    with pytest.raises(UserError) as error:
        load_config(train_config(), None, [f"{old}=1"], STAGES)
    assert f"{old}: renamed; got {old.rpartition('.')[2]}=1; use {new}" in str(error.value)


@pytest.mark.parametrize(("old", "new"), RENAMED)
def test_the_new_name_is_an_option(old, new):
    section, _, name = new.rpartition(".")
    config = load_config(train_config(), None, [], STAGES)
    for part in section.split("."):
        if part == "algorithm_options":
            assert any(hasattr(options(), name) for options in OPTIONS.values())
            return
        config = getattr(config, part)
    assert hasattr(config, name)


@pytest.mark.parametrize(("old", "new"), RENAMED)
def test_the_migration_table_has_it(old, new):
    table = (ROOT / "docs" / "migration.md").read_text("utf-8")
    for part in ("understander", "generator", "autoencoder"):
        old, new = (key.replace(f"engine.{part}.", "engine.*.") for key in (old, new))
    assert any(
        line.startswith(f"| `{old}` |") and f"`{new}`" in line for line in table.splitlines()
    ), (old, new)
