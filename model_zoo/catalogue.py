"""The members of the model zoo by name, and the folders of models; nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from emosym.errors import UserError, unknown

ROOT = Path(__file__).parent
CONFIG = "emosym.json"
"""The configuration of a model, which makes a folder a model folder."""


def members() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


def preset(name: str) -> dict[str, Any]:
    """Return the preset of a member as plain data; raise UserError for an unknown name."""
    if name not in members():
        raise unknown("model", name, members())
    return yaml.safe_load((ROOT / "presets" / f"{name}.yaml").read_text())


def is_model(name_or_path: str | Path) -> bool:
    """Return whether this is a member of the zoo, or a model folder."""
    return str(name_or_path) in members() or (Path(name_or_path) / CONFIG).is_file()


def folder_of(name_or_path: str | Path) -> Path:
    """Return the folder of a member's shipped weights, or the given model folder.

    Raises:
        UserError: an unknown name, a member without weights, or not a model folder.
    """
    path = Path(name_or_path)
    if str(name_or_path) in members():
        path = ROOT / "weights" / str(name_or_path)
        if not (path / CONFIG).is_file():
            raise UserError(
                f"the weights of {name_or_path} are not in this installation",
                got=f"no {path}",
                fix=f"train them with `{preset(path.name)['train']}`",
            )
    elif not path.exists() and path.parent == Path():
        raise unknown("model", name_or_path, members())
    if not (path / CONFIG).is_file():
        raise UserError(
            f"{path} is not a model folder",
            expected=f"a folder with {CONFIG}, or one of {', '.join(members())}",
            fix="a run's model is in its folder `model`; of a Qwen-VL backbone make one with"
            " `emosym zoo compose FOLDER --backbone NAME`",
        )
    return path
