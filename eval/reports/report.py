"""The report of a run: report.json for machines, report.html and samples.png for people."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from emosym.files import write_file
from eval.reports import comparison, curves

REPORT = "report.json"
TEMPLATE = "report.html.jinja"


def write_report(
    run_dir: Path,
    report: comparison.Report,
    *,
    title: str = "EmoSym run",
    samples: Image.Image | None = None,
    figures: Mapping[str, Image.Image] | None = None,
    config: str = "",
    environment: Mapping[str, str] | None = None,
) -> None:
    """Write samples.png, report.html and, last, report.json into `run_dir`, each as a whole.

    `report`: {"wall_seconds", "understanding": {"before", "after"}, "generation": {"before",
    "after"}, "tasks": {"before": {task: {metric: value}}, "after"}, "memory": {...}, "phases":
    {name: steps}}; "before" and any section may be missing.
    `figures`: caption -> picture, shown in order before `samples`. Curves come from
    `run_dir/metrics.jsonl` where it exists. The page needs no network and no script.

    Raises `ValueError` when `report` holds a NaN or an infinity, `UserError` when a file cannot be
    written; no file is then half-written.
    """
    text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    pictures = dict(figures or {})
    if samples is not None:
        pictures["Samples"] = samples
    page = _page(
        title=title,
        report=report,
        curves=curves.read_curves(run_dir / "metrics.jsonl"),
        pictures={caption: _data_uri(_png(picture)) for caption, picture in pictures.items()},
        config=config,
        environment=environment or {},
    )
    if samples is not None:
        write_file(run_dir / "samples.png", _png(samples))
    write_file(run_dir / "report.html", page.encode())
    write_file(run_dir / REPORT, text.encode())


def _page(*, report: comparison.Report, **parts: object) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"number": comparison.number, "signed": comparison.signed}
    understanding = report.get("understanding") or {}
    return templates.get_template(TEMPLATE).render(
        report=report,
        tables=comparison.tables(report),
        confusions={
            when: scores
            for when in ("before", "after")
            if (scores := understanding.get(when)) and scores.get("confusion")
        },
        marks=comparison.MARKS,
        size=curves,
        **parts,
    )


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
