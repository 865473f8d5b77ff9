"""The model card of a zoo member: how it was trained, sizes, scores and file hashes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from emosym.models.model import EmoSym

NUMBERS = {
    "understanding": ("accuracy", "macro_f1", "v_mae", "a_mae", "v_pearson", "a_pearson"),
    "generation": ("oracle_v_error", "oracle_a_error", "diversity"),
}
"""Section of a report -> the metrics that a card shows. None of them needs a judge, because a base
model is trained from random weights, without a model that could judge it."""


_FRONT_MATTER = re.compile(r"---\r?\n(.*?)\r?\n---(?:\r?\n|$)", re.DOTALL)
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,60}")
_NAMED = re.compile(r"\b(?:Apache-2\.0|MIT|BSD-[23]-Clause|CC0-1\.0|CC-BY(?:-[A-Z]{2})*-[34]\.0)\b")


def card(
    name: str,
    command: str,
    report: Mapping[str, Any],
    model: EmoSym,
    files: Mapping[str, str],
) -> str:
    """Return a model card in Markdown.

    Args:
        name: of the zoo member.
        command: of the training.
        report: `report.json` of the run; the card shows its numbers under `after`.
        model: the model, for the number of parameters of each part.
        files: path -> SHA-256.
    """
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: emosym",
        "---",
        "",
        f"# {name}",
        "",
        "Trained from random weights on AffectWorld, images that this project draws itself. It has"
        " seen no photograph and no person's data, and knows ten drawn subjects. Apache-2.0.",
        "",
        f"- Command: `{command}`",
        f"- Seed: {report['seed']}",
        f"- Time: {report['wall_seconds'] / 60:.0f} minutes",
        f"- Steps: {', '.join(f'{phase} {steps}' for phase, steps in report['phases'].items())}",
        f"- Parameters: {parameters(model)}",
        "- Storage: float16 safetensors",
        "",
        "Held-out images and prompts of its world, V/A in [-3, 3]:",
        "",
        "| metric | value |",
        "|---|---|",
    ]
    for section, names in NUMBERS.items():
        after = report.get(section, {}).get("after", {})
        lines += [f"| {section}: {metric} | {after[metric]:.3f} |" for metric in names]
    lines += ["", "| file | SHA-256 |", "|---|---|"]
    lines += [f"| `{path}` | `{digest}` |" for path, digest in files.items()]
    return "\n".join(lines) + "\n"


def license_of(text: str | None) -> str | None:
    """Return the license that a model card states: in its front matter, or a name in its text."""
    found = _FRONT_MATTER.match(text or "")
    try:
        front: Any = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, ValueError, RecursionError):
        front = None
    stated = front.get("license") if isinstance(front, dict) else None
    if isinstance(stated, str) and _IDENTIFIER.fullmatch(stated):
        return stated
    named = _NAMED.search(text or "")
    return named[0] if named else None


def parameters(model: EmoSym) -> str:
    """Return the number of parameters of each part, in millions."""
    sizes = {
        part: sum(p.numel() for p in getattr(model, part).parameters()) / 1e6
        for part in EmoSym.PARTS
    }
    return ", ".join(f"{part} {size:.2f} M" for part, size in sizes.items())
