"""What a model folder holds, read from its configurations and headers; no weights are loaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import safetensors

from model_zoo import zoo
from model_zoo.pretrained import user_errors
from model_zoo.received.folder import read_object


def parts(folder: Path) -> list[dict[str, Any]]:
    """Return each part of a model that has weights: name, architecture, parameters, dtype.

    Raises:
        UserError: a file that cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        inside = file.parent.relative_to(folder)
        name = str(inside) if inside.parts else file.stem
        part = found.setdefault(
            name, {"name": name, "architecture": None, "parameters": 0, "dtype": ""}
        )
        config = file.parent / "config.json"
        if inside.parts and config.is_file():
            part["architecture"] = _architecture(read_object(config))
        with user_errors(file), safetensors.safe_open(file, "pt") as tensors:
            slices = [tensors.get_slice(key) for key in tensors.keys()]  # noqa: SIM118 (no mapping)
        part["parameters"] += sum(math.prod(one.get_shape()) for one in slices)
        dtypes = {*part["dtype"].split(", "), *(one.get_dtype() for one in slices)} - {""}
        part["dtype"] = ", ".join(sorted(dtypes))
    return list(found.values())


def card(folder: Path) -> str | None:
    """Return the text of a folder's model card; None where it has none."""
    path = folder / zoo.CARD
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _architecture(config: dict[str, Any]) -> str | None:
    """Return the class of a part, as transformers and diffusers name it."""
    names = config.get("architectures") or [config.get("_class_name")]
    return str(names[0]) if isinstance(names, list) and names and names[0] else None
