"""Score a model on a dataset or on questions: `python -m eval MODEL DATA --out RUN`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from emosym.errors import UserError

REQUESTS = 64
"""Generation requests where nothing else is said."""
GRIDS = 3
"""Prompts in the valence-arousal grid."""


def main(
    model: Annotated[str, typer.Argument(help="Name in the model zoo, or a checkpoint folder.")],
    data: Annotated[
        Path,
        typer.Argument(help="Dataset folder or manifest; or a .json of EEmoDB's, EEmo-Bench's."),
    ],
    out: Annotated[
        Path, typer.Option(help="Run folder for report.json, report.html, samples.png.")
    ],
    count: Annotated[
        int | None, typer.Option(min=1, help=f"Generation requests (held out). [{REQUESTS}]")
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
        bool, typer.Option("--lenient", help="Read answers in free words too.")
    ] = False,
    answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer to a question.")
    ] = None,
) -> None:
    """Score a model on the test split or on questions; write a report with `after` only."""
    try:
        _evaluate(model, data, out, count, seed, judge, tasks, images, lenient, answer_tokens)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error


def _evaluate(
    name: str,
    data: Path,
    out: Path,
    count: int | None,
    seed: int,
    judge_name: str | None,
    listed: str,
    images: Path | None,
    lenient: bool,
    answer_tokens: int | None,
) -> None:
    # Here, not above: `--help` must not wait for torch.
    from model_zoo.noise import hush

    hush()
    from data_tools.dataset import open_dataset
    from emosym.pipeline import EmoSymPipeline
    from eval.asked import is_question_file, named_tasks, questions_of_file, questions_of_split
    from eval.environment import environment
    from eval.held_out import grids, measure
    from eval.report import write_report
    from eval.table import comparison_table
    from eval.tasks import evaluate_tasks

    started = time.monotonic()
    tasks = named_tasks(listed)
    from_file = is_question_file(data)
    if from_file:
        _refuse({"--count": count, "--judge": judge_name}, f"{data} is a file of questions")
        questions = questions_of_file(data, images, tasks)
    else:
        _refuse({"--images": images}, f"{data} is a dataset")
        samples = open_dataset(data)
        questions = questions_of_split(samples, tasks, seed, data) if tasks else []
    if not questions:
        _refuse({"--lenient": lenient, "--answer-tokens": answer_tokens}, "no --tasks to ask")

    model = EmoSymPipeline.from_pretrained(name)
    judge = EmoSymPipeline.from_pretrained(judge_name) if judge_name else model
    sections, sheet, grid = {}, None, None
    if not from_file:
        found = measure(
            model,
            judge,
            samples,
            images=len(samples),
            requests=count or REQUESTS,
            per_request=2,
            answers=True,
            seed=seed,
        )
        sections, sheet = found.to_dict(), found.sheet
        grid = grids(model, samples, GRIDS, seed)
    if questions:
        scores = evaluate_tasks(
            model, questions, seed=seed, lenient=lenient, max_tokens=answer_tokens
        )
        sections["tasks"] = {task: found.to_dict() for task, found in scores.items()}
    report = {
        "wall_seconds": time.monotonic() - started,
        "model": name,
        "judge": judge_name or name,
        "seed": seed,
        **{section: {"after": part} for section, part in sections.items() if part},
    }
    write_report(
        out,
        report,
        title=f"{name} on {data.name}",
        samples=sheet,
        figures={"Valence and arousal": grid} if grid is not None else {},
        environment=environment(),
    )
    console = Console()
    console.print(comparison_table(report))
    console.print(str(out / "report.html"), soft_wrap=True)


def _refuse(options: dict[str, object], reason: str) -> None:
    """Raise UserError for the first option that is given and would change nothing."""
    for name, value in options.items():
        if value:
            raise UserError(f"{name} has nothing to act on", got=reason, fix="leave it out")


if __name__ == "__main__":
    typer.run(main)
