"""The model card: what a member's weights are, how they came to be, and what they can do."""

from __future__ import annotations

from collections.abc import Mapping

from emosym.models.model import EmoSym

NUMBERS = {
    "understanding": ("accuracy", "macro_f1", "v_mae", "a_mae", "v_pearson", "a_pearson"),
    "generation": ("oracle_v_error", "oracle_a_error", "diversity"),
}
"""What a card shows of a report, by section: no judge, because a base starts from random weights
and has none."""


def card(name: str, command: str, report: Mapping, model: EmoSym, files: Mapping[str, str]) -> str:
    """Return a model card in Markdown.

    Args:
        name: member of the zoo.
        command: what trained it.
        report: `report.json` of its run; its `after` numbers are shown.
        model: the model, for the sizes of its parts.
        files: file -> SHA-256.
    """
    sizes = {
        part: sum(p.numel() for p in getattr(model, part).parameters()) / 1e6
        for part in EmoSym.PARTS
    }
    lines = [
        f"# {name}",
        "",
        "Trained from random weights on AffectWorld, images that this project draws itself. It has"
        " seen no photograph and no person's data, and knows ten drawn subjects. Apache-2.0.",
        "",
        f"- Command: `{command}`",
        f"- Seed: {report['seed']}",
        f"- Time: {report['wall_seconds'] / 60:.0f} minutes",
        f"- Steps: {', '.join(f'{phase} {steps}' for phase, steps in report['phases'].items())}",
        f"- Parameters: {', '.join(f'{part} {size:.2f} M' for part, size in sizes.items())}",
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
