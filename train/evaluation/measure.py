"""Scores of a run before, during and after training. All ranks measure, each its share."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from emosym.config import dump_config
from emosym.console.progress import duration
from emosym.errors import UserError
from emosym.files import write_bytes, write_text
from emosym.inference.pipeline import EmoSymPipeline
from emosym.inference.sheets import sheet_png
from eval.held_out import HeldOut, grids, measure
from eval.reports.comparison import (
    SECTIONS,
    Row,
    check_report,
    number,
    signed,
    tables,
    with_changes,
)
from eval.reports.environment import environment
from eval.reports.report import write_report
from model_zoo import zoo
from model_zoo.run_card import run_card
from train.data.run_data import RunData
from train.distributed import ranks
from train.evaluation.facts import facts
from train.space import space_of, training_images_of
from train.trainer import Look, Trainer

BEFORE = "before.json"
MODEL = "model"
SAMPLES = "samples"
LOOK_IMAGES = 64
"""Images to understand in a look during training, without answers."""
LOOK_REQUESTS = 16
"""Requests to draw in it, one image each."""


def measure_before(trainer: Trainer, data: RunData) -> dict:
    """Evaluate the starting model once, and keep the scores for when the run is resumed."""
    path = trainer.run / BEFORE
    due = trainer.config.evaluate.before and trainer.state.step == 0
    if due and ranks.any_rank(ranks.is_first() and not path.is_file()):
        started = time.monotonic()
        ranks.say("measuring the starting model")
        with _evaluating(trainer):
            scores = _measure(trainer, data).to_dict()
        trainer.state.seconds += time.monotonic() - started
        with ranks.raise_together():
            if ranks.is_first():
                write_text(path, json.dumps(scores))
    ranks.barrier()
    with ranks.raise_once():
        return scores_of(path) if path.is_file() else {}


def look(trainer: Trainer, data: RunData, step: int) -> Look:
    """Measure the model after `step` steps on a few fixed images and requests.

    Random draws of the training are not touched. The images go into `samples/step-XXXXXXX.png`.
    """
    config = trainer.config.evaluate
    with _evaluating(trainer):
        measured = measure(
            EmoSymPipeline(trainer.context.model),
            trainer.context.reference,
            data.samples,
            images=min(config.images or 0, LOOK_IMAGES),
            requests=min(config.requests or 0, LOOK_REQUESTS),
            per_request=1,
            answers=False,
            seed=trainer.config.seed,
            processes=ranks,
        )
    with ranks.raise_together():
        if ranks.is_first() and measured.sheet is not None:
            path = trainer.run / SAMPLES / f"step-{step:07}.png"
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, sheet_png(measured.sheet))
    plain = measured.to_dict()
    scores = {
        name: value
        for section, metrics in SECTIONS.items()
        for name, (_, better) in metrics.items()
        if better is not None and isinstance(value := (plain[section] or {}).get(name), float)
    }
    return scores, measured.sheet


def measure_after(trainer: Trainer, data: RunData, before: dict) -> dict:
    """Save the run's model, evaluate it, and write the report, which is returned."""
    started = time.monotonic()
    config, run = trainer.config, trainer.run
    model = trainer.context.model
    base_card, model.card = model.card, ""
    with trainer.averaged(), _evaluating(trainer):
        for phase in trainer.phases.values():
            model.config = phase.final_model_config(model.config)
        with ranks.raise_together():
            if ranks.is_first():
                model.space = space_of(trainer.context)
                model.training_images = training_images_of(trainer.context)
                zoo.save(model, run / MODEL)
        ranks.say("measuring the trained model")
        after = _measure(trainer, data)
        grid = None
        if config.evaluate.requests:
            count = config.evaluate.grids or 0
            grid = grids(EmoSymPipeline(model), data.samples, count, config.seed, ranks)
    report = _report(trainer, before, after)
    report["wall_seconds"] = trainer.state.seconds + time.monotonic() - started
    figures = {"Generated images: valence grows to the right, arousal upwards": grid}
    figures["Samples"] = after.sheet
    with ranks.raise_together():
        if ranks.is_first():
            write_text(run / MODEL / zoo.CARD, _card(trainer, report, base_card))
            write_report(
                run,
                report,
                title=f"EmoSym run {run.name}",
                figures={name: sheet for name, sheet in figures.items() if sheet is not None},
                config=dump_config(config),
            )
    return report


def scores_of(path: Path) -> dict:
    """Read before.json or report.json.

    Raises:
        UserError: a file that cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_bytes())
        if path.name == BEFORE:
            check_report({section: {"before": scores} for section, scores in found.items()})
        else:
            check_report(found)
    except (OSError, ValueError, AttributeError, RecursionError, UserError) as error:
        raise UserError(
            f"{path} cannot be read",
            got=error,
            fix="put it back, or delete it to continue without the scores in it",
        ) from error
    return found


@contextlib.contextmanager
def _evaluating(trainer: Trainer) -> Iterator[None]:
    """Switch dropout off meanwhile, and leave the random state of training as it was."""
    model = trainer.context.model
    cuda = [trainer.context.device] if trainer.context.device.type == "cuda" else []
    model.eval()
    with torch.random.fork_rng(devices=cuda):
        yield
    model.train()


def _measure(trainer: Trainer, data: RunData) -> HeldOut:
    config = trainer.config.evaluate
    return measure(
        EmoSymPipeline(trainer.context.model),
        trainer.context.reference,
        data.samples,
        images=config.images or 0,
        requests=config.requests or 0,
        per_request=config.per_request,
        answers=config.answers,
        seed=trainer.config.seed,
        questions=data.held_out(config.questions),
        processes=ranks,
    )


def _report(trainer: Trainer, before: dict, after: HeldOut) -> dict:
    report: dict = {
        "seed": trainer.config.seed,
        "run": facts(trainer.run),
        "environment": environment(),
    }
    for section, value in after.to_dict().items():
        report[section] = {
            name: measured
            for name, measured in (("before", before.get(section)), ("after", value))
            if measured is not None
        }
    if trainer.context.memory.bank is not None:
        report["memory"] = trainer.context.memory.stats()
    report["phases"] = trainer.schedule.totals()
    report["model"] = trainer.config.model
    return with_changes(report)


def _card(trainer: Trainer, report: dict, base_card: str) -> str:
    """Return the card of the run's model."""
    config = trainer.config
    world = f"AffectWorld, {config.data.world.count} images, seed {config.data.world.seed}"
    files = config.data.instructions
    shown = [row for rows in tables(report).values() for row in rows]
    about = report["run"] | report["environment"]
    names = ("command", "started", "ranks", "commit", "machine", "device", "python", "torch")
    known = {name.capitalize(): about[name] for name in names if name in about}
    return run_card(
        trainer.run.name,
        trainer.context.model,
        base=Path(config.model).name + (" (random weights)" if config.from_scratch else ""),
        base_card=base_card,
        data=Path(config.data.path).name
        if config.data.path
        else world
        if config.data.world.count
        else Path(files.train or "").name,
        steps=report["phases"],
        facts=known
        | {"Seed": str(config.seed), "Time": f"{duration(report['wall_seconds'])} in all"},
        scores=[_cells(row) for row in shown],
        metrics={row.name: round(row.after, 4) for row in shown if row.after is not None},
    )


def _cells(row: Row) -> tuple[str, ...]:
    def interval(pair: tuple[float, float] | None, written: Callable[[float], str]) -> str:
        return f" [{written(pair[0])}, {written(pair[1])}]" if pair else ""

    change = signed(row.change)
    if row.change is not None:
        change += interval(row.change_interval, signed)
    return (
        row.title,
        number(row.before) + interval(row.before_interval, number),
        number(row.after) + interval(row.after_interval, number),
        change,
        row.verdict or "",
    )
