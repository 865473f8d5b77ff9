"""`make study-reinforce`: which algorithm of `reinforce` learns most in the same processor time?

Every algorithm trains the shipped model as preset reinforce-tiny does (two steps on real images
after each of reinforcement), at each of a few learning rates, for as many steps as fit into the
same minutes of processor time; a control spends them on real images alone. What it became is asked
for the 25 points of the plane; errors are the oracle's, which trains nothing.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from data_tools.affectworld.truth import oracle
from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from emosym.config import load_config
from emosym.console import guard
from emosym.errors import unknown
from emosym.inference.pipeline import EmoSymPipeline
from emosym.models.model import EmoSym
from eval.generation.affect_plane import evaluate_plane
from eval.generation.attainable import attainable
from eval.generation.plane import world_prompts
from eval.generation.subject import SubjectClassifier
from model_zoo import zoo
from model_zoo.quiet import quiet_libraries
from train.config import TrainConfig
from train.data.run_data import RunData
from train.distributed import ranks
from train.phases.reinforce.algorithms import ALGORITHMS
from train.trainer import Trainer

PRESET = Path(__file__).parents[1] / "train" / "presets" / "tiny" / "reinforce-tiny.yaml"
IMAGES = 3000
START, CONTROL = "start", "generate alone"
JUDGED = {"group": 8}
"""Without a gradient of the judge the images of a prompt are compared: twice the preset's."""
CHANGES: dict[str, dict[str, object]] = {
    **{name: JUDGED for name in ALGORITHMS},
    "nft": {**JUDGED, "window_within": 0.5},
    "direct": {},
}
"""Algorithm -> options in which it departs from the preset. NFT reads no part of the schedule."""
RATES = [1e-4, 4e-4]
PROBE = 2
"""Turns of the phases that tell how long a step takes, after one that warms up."""
COLUMNS = {
    "oracle_error": "error",
    "subject_accuracy": "subject right",
    "seed_diversity": "diversity of seeds",
    "prompt_diversity": "of prompts",
}


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder of results; goes on where it was left.")],
    minutes: Annotated[float, typer.Option(min=0.1, help="Of processor time, each.")] = 5,
    rate: Annotated[list[float], typer.Option(help="Learning rate; may repeat.")] = RATES,
    only: Annotated[
        list[str] | None, typer.Option(help="Algorithm, or the control; may repeat.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=2, help="Prompts at each of the points.")] = 8,
) -> None:
    """Train whatever is not done yet, and print the table."""
    known = [CONTROL, *ALGORITHMS]
    for name in only or ():
        if name not in known:
            raise unknown("algorithm", name, known)
    quiet_libraries()
    ranks.join()
    out.mkdir(parents=True, exist_ok=True)
    done = out / "results.jsonl"
    rows = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    arms = [(START, 0.0)] + [(name, each) for name in only or known for each in rate]
    with tempfile.TemporaryDirectory(prefix="emosym-study-") as name:
        folder = Path(name)
        write_world(folder / "world", IMAGES, 0)
        material = RunData(open_dataset(folder / "world"), [])
        for algorithm, lr in arms:
            key = {"algorithm": algorithm, "rate": lr, "minutes": minutes, "prompts": prompts}
            if any(key.items() <= row.items() for row in rows):
                continue
            model, steps = zoo.load("emosym-tiny"), 0
            if algorithm != START:
                model, steps = trained(folder, material, algorithm, lr, minutes)
            row = key | {"steps": steps} | scores(model, prompts)
            with done.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
            print(json.dumps(row), flush=True)
    print(table(rows))


def trained(
    folder: Path, material: RunData, algorithm: str, rate: float, minutes: float
) -> tuple[EmoSym, int]:
    """Return the model that an algorithm makes of the shipped one in its time, and the steps."""
    probe, turn = _trainer(folder, material, algorithm, rate, 10**4)
    for _ in range(turn):
        probe.step()
    began = time.process_time()
    for _ in range(PROBE * turn):
        probe.step()
    seconds = (time.process_time() - began) / PROBE
    steps = turn * max(1, round(60 * minutes / seconds))
    trainer, _ = _trainer(folder, material, algorithm, rate, steps)
    for _ in range(steps):
        trainer.step()
    return trainer.context.model.eval(), steps


def _trainer(
    folder: Path, material: RunData, algorithm: str, rate: float, steps: int
) -> tuple[Trainer, int]:
    """Return a trainer of the shipped model, and how many steps one turn of its phases has."""
    config = configured(algorithm, rate, steps)
    trainer = Trainer(config, folder, zoo.load("emosym-tiny"), material, "study")
    return trainer, sum(config.stages[0].cycle.values())


def configured(algorithm: str, rate: float, steps: int) -> TrainConfig:
    """Return the preset with an algorithm in it, or with the control."""
    overrides = [f"engine.generator.lr={rate}", "reinforce.patience=0"]
    if algorithm == CONTROL:
        overrides.append(f"stages=[{{steps: {steps}, cycle: {{generate: 1}}}}]")
    else:
        overrides.append(f"stages.0.steps={steps}")
        options = {"algorithm": algorithm, **CHANGES[algorithm]}
        overrides += [f"reinforce.{name}={value}" for name, value in options.items()]
    return load_config(TrainConfig, PRESET, overrides)


def scores(model: EmoSym, prompts: int) -> dict[str, float]:
    """Return what a model's images at the 25 points are like."""
    found = evaluate_plane(
        EmoSymPipeline(model),
        world_prompts(prompts, 0),
        judge=EmoSymPipeline(zoo.load("emosym-tiny")),
        oracle=oracle,
        attainable=attainable,
        classify=SubjectClassifier.load(),
        seeds=range(2),
    ).to_dict()
    return {name: found[name] for name in COLUMNS}


def table(rows: Sequence[dict]) -> str:
    """Return the results as Markdown, the lowest error first."""
    lines = ["| algorithm | lr | steps | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|" + "---|" * (3 + len(COLUMNS)))
    for row in sorted(rows, key=lambda row: row["oracle_error"]):
        rate = f"{row['rate']:.0e}" if row["steps"] else "–"
        cells = [row["algorithm"], rate, str(row["steps"] or "–")]
        cells += [f"{row[name]:.3f}" for name in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    guard.run(app, "python -m benchmarks.reinforce_study")
