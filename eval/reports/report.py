"""The report of a run: report.json for machines, report.html and samples.png for people."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from emosym.console.progress import duration
from emosym.errors import printable
from emosym.files import write_file
from emosym.inference.sheets import stacked
from eval.reports import comparison, curves, scatter

REPORT = "report.json"
TEMPLATE = "report.html.jinja"


def write_report(
    run_dir: Path,
    report: comparison.Report,
    *,
    title: str = "EmoSym run",
    figures: Mapping[str, Image.Image] | None = None,
    config: str = "",
) -> None:
    """Write samples.png, report.html and, last, report.json into `run_dir`, each as a whole.

    `report`: {"wall_seconds", "understanding": {"before", "after"}, "generation": {"before",
    "after"}, "tasks": {"before": {task: {metric: value}}, "after"}, "memory": {...}, "phases":
    {name: steps}, "run": {name: text}, "environment": {name: text}}; "before" and any section may
    be missing. `figures`: caption -> picture, shown in this order; samples.png has them one below
    the other. Curves come from `run_dir/metrics.jsonl` where it exists. The page needs no network
    and no script.

    Raises `ValueError` when `report` holds a NaN or an infinity, `UserError` when a file cannot be
    written; no file is then half-written.
    """
    text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    pictures = figures or {}
    page = _page(
        title=title,
        report=report,
        curves=curves.read_curves(run_dir / "metrics.jsonl"),
        pictures={caption: _data_uri(_png(picture)) for caption, picture in pictures.items()},
        config=config,
    )
    if pictures:
        write_file(run_dir / "samples.png", _png(stacked([*pictures.values()])))
    write_file(run_dir / "report.html", page.encode())
    write_file(run_dir / REPORT, text.encode())


def _page(*, report: comparison.Report, **parts: object) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    templates.filters |= {
        "number": comparison.number,
        "signed": comparison.signed,
        "duration": duration,
    }
    understanding = report.get("understanding") or {}
    tables = comparison.tables(report)
    return templates.get_template(TEMPLATE).render(
        report=report,
        tables=tables,
        compared=[
            section
            for section, rows in tables.items()
            if any(row.before is not None for row in rows)
        ],
        confusions={
            when: scores
            for when in ("before", "after")
            if (scores := understanding.get(when)) and scores.get("confusion")
        },
        scatters=scatter.scatters(understanding),
        marks=comparison.MARKS,
        size=curves,
        plot=scatter,
        **parts,
    )


def _shown(value: object) -> object:
    """Return a text with its control characters escaped, except for line breaks and tabs."""
    if not isinstance(value, str):
        return value
    return type(value)("\n".join(map(printable, value.expandtabs(4).split("\n"))))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
