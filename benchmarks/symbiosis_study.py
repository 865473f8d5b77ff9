"""`make study-symbiosis`: do understanding and drawing help each other?

Three parts, each with arms that train from the same random understander and the same decoder, which
is the shipped one with a new conditioner (preset symbiosis-tiny):

- `understander`: does what `compress` and the two `verify` phases teach the understander help to
  draw from its state?
- `gradient`: does the generator's loss, which `generate.update_understander` lets through the
  state, improve understanding where labels are few?
- `tokens`: how many reasoning tokens does drawing from the state need, with the knowledge text or
  without?

A part has a folder of its own, with all of its trainings, so that two can run beside each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.results import Results
from benchmarks.symbiosis.gradient import GradientPart
from benchmarks.symbiosis.study import Part, Study
from benchmarks.symbiosis.summary import plot, table
from benchmarks.symbiosis.tokens import TokensPart
from benchmarks.symbiosis.understander import UnderstanderPart
from emosym.console import guard
from emosym.errors import unknown
from emosym.files import write_bytes, write_text
from model_zoo.quiet import quiet_libraries
from train.distributed import ranks

PARTS: dict[str, Part] = {
    part.name: part for part in (UnderstanderPart(), GradientPart(), TokensPart())
}
ALL = "all"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder of the study; an old one is continued.")],
    part: Annotated[str, typer.Option(help=f"One of {', '.join(PARTS)}, or {ALL}.")] = ALL,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 .. N - 1.")] = 3,
) -> None:
    """Run what has no result yet of one part or of all, and print a table for each."""
    if part not in (*PARTS, ALL):
        raise unknown("part", part, (*PARTS, ALL))
    quiet_libraries()
    ranks.join()
    for name in PARTS if part == ALL else (part,):
        print(run_part(PARTS[name], Study(folder=out / name), seeds))


def run_part(part: Part, study: Study, seeds: int) -> str:
    """Run the arms and seeds without a result; write and return the table, and write the plot."""
    results = Results(study.folder)
    study.prepare(seeds)
    for seed in range(seeds):
        for arm in part.arms:
            key = {"arm": arm, "seed": seed}
            if not results.has(key):
                results.add(key | part.measure(study, arm, seed))
    text = f"{part.question}\n\n{table(part, results.rows)}\n"
    write_text(study.folder / "table.md", text)
    write_bytes(study.folder / "plot.png", plot(part, results.rows))
    return text


if __name__ == "__main__":
    guard.run(app, "python -m benchmarks.symbiosis_study")
