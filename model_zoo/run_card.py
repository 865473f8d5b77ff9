"""The model card of a run's model, with the front matter of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import yaml

from emosym.errors import printable
from emosym.models.model import EmoSym
from model_zoo.card import license_of, parameters

COLUMNS = ("metric", "before", "after", "change", "verdict")


def run_card(
    name: str,
    model: EmoSym,
    *,
    base: str,
    base_card: str,
    data: str,
    steps: Mapping[str, int],
    facts: Mapping[str, str],
    scores: Sequence[Sequence[str]],
    metrics: Mapping[str, float],
) -> str:
    """Return a model card in Markdown. Texts from outside cannot add markup or front matter.

    Args:
        name: of the model.
        model: the model, for the number of parameters of each part.
        base: the model that the run started from, and how.
        base_card: its card; the license is taken from it.
        data: what it was trained on.
        steps: phase -> steps.
        facts: more lines, name -> text: the command, when, on what.
        scores: rows of a table with `COLUMNS`.
        metrics: numbers for the hub, name -> value after training.
    """
    license_name = (license_of(base_card) or "unknown").lower()
    front = {
        "license": license_name,
        "library_name": "emosym",
        "base_model": printable(base),
        "tags": ["emotion-recognition", "emotional-image-generation", "emosym"],
        "model-index": [
            {
                "name": printable(name),
                "results": [
                    {
                        "task": {"type": "other", "name": "held-out images and prompts"},
                        "dataset": {"type": "other", "name": printable(data)},
                        "metrics": [{"type": key, "value": metrics[key]} for key in metrics],
                    }
                ],
            }
        ],
    }
    known = {"Base model": base, "Data": data, **facts}
    known["Steps"] = ", ".join(f"{phase} {count}" for phase, count in steps.items())
    known["Parameters"] = parameters(model)
    known["License"] = {"unknown": "unknown: that of the base model is not known"}.get(
        license_name, f"{license_name}, as the base model; the data may have terms of its own"
    )
    lines = ["---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(), "---", ""]
    lines += [f"# {_plain(name)}", "", "An EmoSym model: it recognises the emotion that an image"]
    lines += ["evokes, and generates images that evoke a wanted one.", ""]
    lines += [f"- {_plain(key)}: {_code(value)}" for key, value in known.items()]
    if scores:
        lines += ["", "Held-out images and prompts, V/A in [-3, 3]. Brackets hold 95 % intervals,"]
        lines += ["that of a change paired by item; unsure: it contains 0.", ""]
        lines += [_row(COLUMNS), _row(["---"] * len(COLUMNS)), *map(_row, scores)]
    lines += ["", "```python", "from emosym import EmoSymPipeline", ""]
    lines += ['pipeline = EmoSymPipeline.from_pretrained("path/to/this/folder")', "```"]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _code(text: str) -> str:
    return f"`{printable(text).replace('`', chr(39))}`"


def _plain(text: str) -> str:
    """Return a text without control characters and without characters of markup."""
    return re.sub(r"([\\`*_<>\[\]|#])", r"\\\1", printable(text))
