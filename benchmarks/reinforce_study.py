"""`make study-reinforce`: which algorithm of `reinforce` learns most in the same processor time?

Every algorithm trains the shipped model with preset reinforce-tiny (two steps on real images after
each step of reinforcement), at several learning rates, for as many steps as take the same processor
time; a control trains only on real images. The resulting models generate images for 25 points of
the valence-arousal plane, which are evaluated by AffectWorld's ground truth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.results import Results, Row, markdown
from benchmarks.trainer import seconds_of_cycle
from data_tools.affectworld.truth import oracle
from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from emosym.config import load_config
from emosym.console import guard
from emosym.diffusion.transitions import TRANSITIONS
from emosym.errors import unknown
from emosym.inference.pipeline import EmoSymPipeline
from emosym.models.model import EmoSym
from eval.generation.affect_plane import evaluate_plane
from eval.generation.attainable import attainable
from eval.generation.requests import world_prompts
from eval.generation.subject import SubjectClassifier
from model_zoo import zoo
from model_zoo.quiet import quiet_libraries
from train.config import RunConfig
from train.data.run_data import RunData
from train.distributed import ranks
from train.phases.registry import train_config
from train.phases.reinforce.algorithms import ALGORITHMS
from train.trainer import Trainer

PRESET = Path(__file__).parents[1] / "train" / "presets" / "tiny" / "reinforce-tiny.yaml"
IMAGES = 3000
START, CONTROL = "start", "generate alone"
JUDGED: dict[str, object] = {"num_images_per_prompt": 8}
"""Options of algorithms that compare the images of a prompt: twice the preset's group."""
CHANGES: dict[str, dict[str, object]] = {
    **{name: JUDGED for name in ALGORITHMS},
    "nft": JUDGED,
    "direct": {},
}
"""Algorithm -> options in which it differs from the preset, beside the algorithm's own."""
RATES = [1e-4, 4e-4]
PROBE = 2
"""Cycles of the phases that are timed to estimate the seconds of a step, after one to warm up."""
COLUMNS = {
    "oracle_error": "error",
    "subject_accuracy": "subject right",
    "seed_diversity": "diversity of seeds",
    "prompt_diversity": "of prompts",
}


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder of results; an old one is continued.")],
    minutes: Annotated[float, typer.Option(min=0.1, help="Processor time of each training.")] = 5,
    rate: Annotated[list[float], typer.Option(help="Learning rate; repeatable.")] = RATES,
    only: Annotated[
        list[str] | None, typer.Option(help="Algorithm, or the control; repeatable.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=2, help="Prompts for each point.")] = 8,
) -> None:
    """Train all combinations without a result, and print the table."""
    known = [CONTROL, *ALGORITHMS]
    for name in only or ():
        if name not in known:
            raise unknown("algorithm", name, known)
    quiet_libraries()
    ranks.join()
    results = Results(out)
    arms = [(START, 0.0)] + [(name, each) for name in only or known for each in rate]
    with tempfile.TemporaryDirectory(prefix="emosym-study-") as name:
        folder = Path(name)
        write_world(folder / "world", IMAGES, 0)
        data = RunData(open_dataset(folder / "world"), [])
        for algorithm, lr in arms:
            key = {"algorithm": algorithm, "rate": lr, "minutes": minutes, "prompts": prompts}
            if results.has(key):
                continue
            model, steps = zoo.load("emosym-tiny"), 0
            if algorithm != START:
                model, steps = trained(folder, data, algorithm, lr, minutes)
            results.add(key | {"steps": steps} | scores(model, prompts))
    print(table(results.rows))


def trained(
    folder: Path, data: RunData, algorithm: str, rate: float, minutes: float
) -> tuple[EmoSym, int]:
    """Train the shipped model for some minutes of processor time; return it and the steps."""
    probe = _trainer(folder, data, algorithm, rate, 10**4)
    cycle = sum(probe.config.stages[0].cycle.values())
    steps = cycle * max(1, round(60 * minutes / seconds_of_cycle(probe, PROBE)))
    trainer = _trainer(folder, data, algorithm, rate, steps)
    for _ in range(steps):
        trainer.step()
    return trainer.context.model.eval(), steps


def _trainer(folder: Path, data: RunData, algorithm: str, rate: float, steps: int) -> Trainer:
    """Return a trainer of the shipped model."""
    config = configured(algorithm, rate, steps)
    return Trainer(config, folder, zoo.load("emosym-tiny"), data, "study")


def configured(algorithm: str, rate: float, steps: int) -> RunConfig:
    """Return the configuration of an algorithm, or of the control."""
    overrides = [f"engine.generator.learning_rate={rate}", "reinforce.patience=0"]
    if algorithm == CONTROL:
        overrides.append(f"stages=[{{steps: {steps}, cycle: {{generate: 1}}}}]")
    else:
        overrides.append(f"stages.0.steps={steps}")
        overrides += [f"reinforce.{name}={value}" for name, value in CHANGES[algorithm].items()]
        if algorithm != "direct":  # the preset's algorithm, whose options others do not have
            overrides += [f"reinforce.algorithm={algorithm}", "reinforce.algorithm_options={}"]
        if algorithm in TRANSITIONS:  # the preset's β is for the distance of outputs
            options = "{sde_window_range: 0.75, kl_type: output}"
            overrides.append(f"reinforce.algorithm_options={options}")
    return load_config(train_config(), PRESET, overrides)


def scores(model: EmoSym, prompts: int) -> dict[str, float]:
    """Return the scores `COLUMNS` of a model's images for the 25 points."""
    evaluation = evaluate_plane(
        EmoSymPipeline(model),
        world_prompts(prompts, 0),
        judge=EmoSymPipeline(zoo.load("emosym-tiny")),
        oracle=oracle,
        attainable=attainable,
        classify=SubjectClassifier.load(),
        seeds=range(2),
    )
    return {name: getattr(evaluation, name) for name in COLUMNS}


def table(rows: Sequence[Row]) -> str:
    """Return the results as a Markdown table, the lowest error first."""
    lines = []
    for row in sorted(rows, key=lambda row: row["oracle_error"]):
        rate = f"{row['rate']:.0e}" if row["steps"] else "–"
        cells = [row["algorithm"], rate, str(row["steps"] or "–")]
        lines.append([*cells, *(f"{row[name]:.3f}" for name in COLUMNS)])
    return markdown(["algorithm", "lr", "steps", *COLUMNS.values()], lines)


if __name__ == "__main__":
    guard.run(app, "python -m benchmarks.reinforce_study")
