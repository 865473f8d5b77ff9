"""Score a checkpoint on a dataset's test split: `python -m eval MODEL DATA --out RUN`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.console import Console

from emosym.errors import UserError

SHEET = 32
"""Images in samples.png."""


def main(
    model: Annotated[str, typer.Argument(help="Name in the model zoo, or a checkpoint folder.")],
    data: Annotated[Path, typer.Argument(help="Dataset folder or manifest.")],
    out: Annotated[
        Path, typer.Option(help="Run folder for report.json, report.html, samples.png.")
    ],
    count: Annotated[int, typer.Option(min=1, help="Generation requests (held out).")] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    judge: Annotated[
        str | None, typer.Option(help="Model that judges the images; default: the model itself.")
    ] = None,
) -> None:
    """Score a model on the test split and write a report with `after` only."""
    try:
        _evaluate(model, data, out, count, seed, judge)
    except UserError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


def _evaluate(
    name: str, data: Path, out: Path, count: int, seed: int, judge_name: str | None
) -> None:
    # Here, not above: `--help` must not wait for torch.
    from data_tools.affectworld.truth import oracle
    from data_tools.dataset import open_dataset
    from emosym.answers import parse
    from emosym.pipeline import EmoSymPipeline
    from eval.environment import environment
    from eval.generation import EvalRequest, evaluate_generation, requests_from
    from eval.grid import affect_grids, caption, contact_sheet
    from eval.report import write_report
    from eval.table import comparison_table
    from eval.understanding import evaluate_understanding

    started = time.monotonic()
    samples = open_dataset(data)
    held_out = [sample for sample in samples if sample.split == "test"]
    requests = requests_from(samples, count, seed)
    model = EmoSymPipeline.from_pretrained(name)
    judge = EmoSymPipeline.from_pretrained(judge_name) if judge_name else model

    understanding = evaluate_understanding(
        model,
        held_out,
        train=[sample for sample in samples if sample.split == "train"],
        parse=lambda text: answer if (answer := parse(text)).well_formed else None,
        seed=seed,
    )
    sheet: list[tuple[Image.Image, str]] = []

    def show(wanted: EvalRequest, images: list[Image.Image]) -> None:
        if len(sheet) < SHEET:
            sheet.append((images[0], caption(wanted.request)))

    generation = evaluate_generation(
        model,
        requests,
        judge=judge,
        # Only AffectWorld's truth can be recomputed from pixels.
        oracle=oracle if all(sample.source == "affectworld" for sample in held_out) else None,
        seed=seed,
        show=show,
    )
    report = {
        "wall_seconds": time.monotonic() - started,
        "model": name,
        "judge": judge_name or name,
        "seed": seed,
        "understanding": {"after": understanding.to_dict()},
        "generation": {"after": generation.to_dict()},
    }
    prompts = list(dict.fromkeys(wanted.request.prompt for wanted in requests))[:3]
    write_report(
        out,
        report,
        title=f"{name} on {data.name}",
        samples=contact_sheet(*zip(*sheet, strict=True)),
        figures={"Valence and arousal": affect_grids(model, prompts, seed)},
        environment=environment(),
    )
    console = Console()
    console.print(comparison_table(report))
    console.print(str(out / "report.html"), soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
