"""`python -m eval run`: score a model on a dataset, or on a file of questions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from emosym.console.options import Device, Plugins
from emosym.console.terminal import console
from emosym.errors import UserError

REQUESTS = 64
"""Default number of generation requests."""
GRIDS = 3
"""Prompts in the valence-arousal grid."""


def run(
    model: Annotated[str, typer.Argument(help="Name in the model zoo, or a checkpoint folder.")],
    data: Annotated[
        Path,
        typer.Argument(help="Dataset folder or manifest; or a .json of EEmoDB's, EEmo-Bench's."),
    ],
    out: Annotated[
        Path, typer.Option(help="New folder for report.json, report.html, samples.png.")
    ],
    count: Annotated[
        int | None, typer.Option(min=0, help=f"Generation requests (held out). [{REQUESTS}]")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=0, help="Images to understand (held out); default: all.")
    ] = None,
    grids: Annotated[
        int | None, typer.Option(min=0, help=f"Grids of 25 images over the plane. [{GRIDS}]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    judge: Annotated[
        str | None, typer.Option(help="Model that judges the images; default: the model itself.")
    ] = None,
    tasks: Annotated[
        str, typer.Option(help="Questions to ask, e.g. valence,ranking; of a file default: all.")
    ] = "",
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images of a file of questions.")
    ] = None,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Also parse answers in free text.")
    ] = False,
    answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer to a question.")
    ] = None,
    device: Device = None,
    plugins: Plugins = None,
) -> None:
    """Score a model on the test split or on questions; write a report with `after` only."""
    # Imported here, so that `--help` does not load torch.
    from data_tools.dataset import open_dataset
    from emosym.inference.pipeline import EmoSymPipeline
    from eval.held_out import grids as grid_sheet
    from eval.held_out import measure
    from eval.reports.environment import environment, run_facts
    from eval.reports.report import write_report
    from eval.reports.table import comparison_table
    from eval.tasks.measure import evaluate_tasks
    from eval.tasks.questions import (
        is_question_file,
        named_tasks,
        questions_of_file,
        questions_of_split,
    )

    begun = datetime.now(UTC)
    if out.exists() and any(out.iterdir()):  # the folder may hold the report of a run
        raise UserError(
            f"{out} is not empty",
            expected="a new folder for the report",
            fix="choose another folder",
        )
    started = time.monotonic()
    names = named_tasks(tasks)
    from_file = is_question_file(data)
    if from_file:
        given = {"--count": count, "--samples": samples, "--grids": grids, "--judge": judge}
        _refuse(given, f"{data} is a file of questions")
        questions = questions_of_file(data, images, names)
    else:
        advice = "leave it out; --samples is the number of images"
        _refuse({"--images": images}, f"{data} is a dataset", advice)
        dataset = open_dataset(data)
        questions = questions_of_split(dataset, names, seed, data) if names else []
    if not questions:
        _refuse({"--lenient": lenient, "--answer-tokens": answer_tokens}, "no --tasks to ask")

    pipeline = EmoSymPipeline.from_pretrained(model, device=device)
    sections: dict[str, dict[str, object] | None] = {}
    sheet = grid = None
    if not from_file:
        measured = measure(
            pipeline,
            EmoSymPipeline.from_pretrained(judge, device=device) if judge else pipeline,
            dataset,
            images=len(dataset) if samples is None else samples,
            requests=REQUESTS if count is None else count,
            per_request=2,
            answers=True,
            seed=seed,
        )
        sections, sheet = measured.to_dict(), measured.sheet
        grid = grid_sheet(pipeline, dataset, GRIDS if grids is None else grids, seed)
    if questions:
        scores = evaluate_tasks(
            pipeline, questions, seed=seed, lenient=lenient, max_tokens=answer_tokens
        )
        sections["tasks"] = {task: found.to_dict() for task, found in scores.items()}
    report = {
        "wall_seconds": time.monotonic() - started,
        "model": model,
        "judge": judge or model,
        "seed": seed,
        "run": run_facts(begun),
        "environment": environment(),
        **{section: {"after": scores} for section, scores in sections.items() if scores},
    }
    write_report(
        out,
        report,
        title=f"{model} on {data.name}",
        figures={
            caption: picture
            for caption, picture in (("Valence and arousal", grid), ("Samples", sheet))
            if picture is not None
        },
    )
    screen = console()
    screen.print(comparison_table(report))
    screen.print(str(out / "report.html"), soft_wrap=True, markup=False)


def _refuse(options: Mapping[str, object], reason: str, fix: str = "leave it out") -> None:
    """Raise UserError for the first option that is given and would have no effect."""
    for name, value in options.items():
        if value not in (None, False):
            raise UserError(f"{name} has no effect", got=reason, fix=fix)
