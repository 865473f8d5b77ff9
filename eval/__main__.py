"""Score a checkpoint on a dataset's test split: `python -m eval MODEL DATA --out RUN`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from emosym.cli import guard
from emosym.errors import UserError

GRIDS = 3
"""Prompts in the valence-arousal grid."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Name in the model zoo, or a checkpoint folder.")],
    data: Annotated[Path, typer.Argument(help="Dataset folder or manifest.")],
    out: Annotated[
        Path, typer.Option(help="New folder for report.json, report.html, samples.png.")
    ],
    count: Annotated[int, typer.Option(min=1, help="Generation requests (held out).")] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    judge: Annotated[
        str | None, typer.Option(help="Model that judges the images; default: the model itself.")
    ] = None,
) -> None:
    """Score a model on the test split and write a report with `after` only."""
    # Here, not above: `--help` must not wait for torch.
    from data_tools.dataset import open_dataset
    from emosym.pipeline import EmoSymPipeline
    from eval.environment import environment
    from eval.held_out import grids, measure
    from eval.report import write_report
    from eval.table import comparison_table

    if out.exists() and any(out.iterdir()):  # a run's own report would be lost
        raise UserError(
            f"{out} is not empty",
            expected="a new folder for the report",
            fix="choose another folder",
        )
    started = time.monotonic()
    samples = open_dataset(data)
    pipeline = EmoSymPipeline.from_pretrained(model)
    found = measure(
        pipeline,
        EmoSymPipeline.from_pretrained(judge) if judge else pipeline,
        samples,
        images=len(samples),
        requests=count,
        per_request=2,
        answers=True,
        seed=seed,
    )
    report = {
        "wall_seconds": time.monotonic() - started,
        "model": model,
        "judge": judge or model,
        "seed": seed,
        "understanding": {"after": found.understanding.to_dict()},
        "generation": {"after": found.generation.to_dict()},
    }
    grid = grids(pipeline, samples, GRIDS, seed)
    write_report(
        out,
        report,
        title=f"{model} on {data.name}",
        samples=found.sheet,
        figures={"Valence and arousal": grid} if grid is not None else {},
        environment=environment(),
    )
    console = Console()
    console.print(comparison_table(report))
    console.print(str(out / "report.html"), soft_wrap=True)


if __name__ == "__main__":
    guard.run(app, "python -m eval")
