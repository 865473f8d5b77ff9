"""A run from its preset to its report: the folder, the data, before, training, after."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from emosym.config import dump_config, load_config
from emosym.errors import UserError
from emosym.files import write_text
from emosym.inference.pipeline import EmoSymPipeline
from emosym.models.model import DECODER, EmoSym
from eval.held_out import HeldOut, grids, measure
from eval.reports.comparison import SECTIONS
from eval.reports.environment import environment
from eval.reports.report import REPORT, write_report
from memory_bank.store.lock import WriterLock
from model_zoo import zoo
from model_zoo.text.text_encoders import SENTENCE
from train.changes import check_changes
from train.config import TrainConfig
from train.data.base_texts import base_texts
from train.data.run_data import RunData, load_run_data
from train.distributed import engines, ranks
from train.space import space_of
from train.texts import check_texts
from train.trainer import Trainer, check_sizes

CONFIG = "config.yaml"
LOCK = "run.lock"
BEFORE = "before.json"
MODEL = "model"
CORPUS_TEXTS = 20_000
"""Texts from which a tokenizer is trained when a run starts from scratch."""


def start(preset: Path, run: Path, data: str | None, overrides: Sequence[str]) -> dict:
    """Start a run in a new folder and bring it to its report.

    Raises:
        UserError: bad preset, data or sizes; a folder that is already a run.
    """
    with ranks.raise_once():
        config = load_config(TrainConfig, preset, overrides)
        if data is not None:
            config.data.path = data
        _fix_paths(config)
        if run.exists() and any(run.iterdir()):
            raise UserError(
                f"{run} is not empty",
                expected="a new folder for the run",
                fix=f"continue it with `make resume RUN={run}`, or choose another RUN",
            )
    # Ranks meet after all have looked at the folder and before one of them writes into it.
    ranks.join()
    ranks.barrier()
    with _alone(run):
        trainer, material = _begin(config, run)
        return _finish(trainer, material)


def resume(run: Path, overrides: Sequence[str]) -> dict:
    """Continue a run from its last checkpoint, exactly as if it had not stopped.

    Raises:
        UserError: no run there, or one that is running; a change it cannot take; a checkpoint or
            a bank that is not what was saved.
    """
    with ranks.raise_once():
        if not (run / CONFIG).is_file():
            raise UserError(
                f"{run} is not a run folder",
                got=f"no {CONFIG} in it",
                expected="RUN=<folder of a run>",
            )
        config = load_config(TrainConfig, run / CONFIG, overrides)
        kept = load_config(TrainConfig, run / CONFIG)
        check_changes(kept, config, measured=(run / BEFORE).is_file())
    ranks.join()
    with _alone(run):
        with ranks.raise_once():
            trainer, material = _set_up(config, run)
        trainer.restore()
        step, total = trainer.state.step, len(trainer.schedule)
        whole = (run / REPORT).is_file() and (run / MODEL).is_dir()
        if step == total and whole and not overrides:
            trainer.close()
            _tell(f"{run} is finished; this is its report")
            return _scores_of(run / REPORT) if ranks.is_first() else {}
        _tell(f"{run} goes on at step {step} of {total}")
        if overrides and ranks.is_first():
            write_text(run / CONFIG, dump_config(config))
        ranks.barrier()
        return _finish(trainer, material)


def _fix_paths(config: TrainConfig) -> None:
    """Make paths absolute: a run may go on from another working folder."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().resolve())

    if config.model not in zoo.members():
        config.model = absolute(config.model)
    encoder = config.compress.knowledge_encoder
    if encoder not in (None, DECODER, SENTENCE) and Path(encoder).expanduser().is_dir():
        config.compress.knowledge_encoder = absolute(encoder)
    config.data.path = absolute(config.data.path)
    config.remember.generated = absolute(config.remember.generated)
    files = config.data.instructions
    files.train, files.test, files.images = map(absolute, (files.train, files.test, files.images))


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder, which is made if need be."""
    with ranks.raise_together():
        if ranks.is_first():
            run.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(run / LOCK, f"the run {run}", "choose another RUN")
    try:
        yield
    finally:
        if ranks.is_first():
            lock.release()


def _begin(config: TrainConfig, run: Path) -> tuple[Trainer, RunData]:
    """Make the run's trainer; a run that cannot begin leaves nothing."""
    started = time.monotonic()
    with ranks.raise_together():
        if ranks.is_first():
            if (run / CONFIG).exists():
                raise UserError(f"another process started a run in {run}", fix="choose another RUN")
            # First of all, so that a run that is killed while its world is drawn can be resumed.
            write_text(run / CONFIG, dump_config(config))
    try:
        with ranks.raise_once():
            trainer, material = _set_up(config, run)
            trainer.restore()
    except UserError:
        if ranks.is_first():
            shutil.rmtree(run, ignore_errors=True)  # it never began
        raise
    trainer.state.seconds = time.monotonic() - started
    return trainer, material


def _set_up(config: TrainConfig, run: Path) -> tuple[Trainer, RunData]:
    """Make a run's trainer; what can be wrong is found before a world is drawn."""
    check_sizes(config)
    model, fingerprint = _starting_model(config)
    material = load_run_data(config, run)
    check_texts(config, model, material.samples, material.questions)
    trainer = Trainer(config, run, model, material, fingerprint)
    if "verify_grpo" in trainer.phases and not model.understander.backbone.shares_prefix:
        _tell(
            f"verify_grpo reads each prompt {config.verify_grpo.group} times, once for each answer:"
            " engine.gradient_checkpointing keeps no cache to share"
        )
    return trainer, material


def _finish(trainer: Trainer, material: RunData) -> dict:
    try:
        before = _before(trainer, material)
        trainer.train()
        begun = time.monotonic()
        report: dict = {}
        if ranks.is_first():
            with trainer.averaged():
                report = _leave(trainer, material, before, begun)
        ranks.barrier()
        return report
    finally:
        trainer.close()


def _leave(trainer: Trainer, material: RunData, before: dict, begun: float) -> dict:
    """Write the run's model and the report on it; return the report."""
    config, run = trainer.config, trainer.run
    _tell("measuring the trained model")
    model = trainer.context.model.eval()
    if "reinforce" in trainer.phases:  # it is made for the guidance that it was trained at
        model.config = dataclasses.replace(model.config, guidance=config.reinforce.guidance)
    model.space = space_of(trainer.context)
    zoo.save(model, run / MODEL)
    after = _measure(trainer, material)
    report = _report(trainer, before, after, time.monotonic() - begun)
    pictures = {}
    sheet = grids(EmoSymPipeline(model), material.samples, config.evaluate.grids, config.seed)
    if sheet is not None and config.evaluate.requests:
        pictures["Generated images: valence grows to the right, arousal upwards"] = sheet
    report["wall_seconds"] = trainer.state.seconds + time.monotonic() - begun
    write_report(
        run,
        report,
        title=f"EmoSym run {run.name}",
        samples=_below(sheet, after.sheet),
        figures=pictures,
        config=dump_config(config),
        environment=environment(),
    )
    return report


def _before(trainer: Trainer, material: RunData) -> dict:
    """Measure the starting model once, and remember it so that a resumed run need not."""
    path = trainer.run / BEFORE
    due = trainer.config.evaluate.before and trainer.state.step == 0
    if ranks.is_first() and due and not path.is_file():
        begun = time.monotonic()
        _tell("measuring the starting model")
        trainer.context.model.eval()
        found = _measure(trainer, material).to_dict()
        trainer.context.model.train()
        trainer.state.seconds += time.monotonic() - begun
        write_text(path, json.dumps(found))
    # Every rank comes by here, whenever it looked for the file.
    ranks.barrier()
    with ranks.raise_once():
        return _scores_of(path) if path.is_file() else {}


def _scores_of(path: Path) -> dict:
    """Read before.json or report.json."""
    try:
        found = json.loads(path.read_bytes())
        if not all(isinstance(found.get(name) or {}, dict) for name in SECTIONS):
            raise ValueError(f"{' or '.join(SECTIONS)} is no mapping")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read",
            got=error,
            fix="put it back, or delete it to go on without what was measured then",
        ) from error
    return found


def _measure(trainer: Trainer, material: RunData) -> HeldOut:
    config = trainer.config.evaluate
    model = EmoSymPipeline(trainer.context.model)
    return measure(
        model,
        trainer.context.reference,
        material.samples,
        images=config.images,
        requests=config.requests,
        per_request=config.per_request,
        answers=config.answers,
        seed=trainer.config.seed,
        questions=material.held_out(config.questions),
    )


def _report(trainer: Trainer, before: dict, after: HeldOut, seconds: float) -> dict:
    scores = after.to_dict()
    report: dict = {"wall_seconds": trainer.state.seconds + seconds, "seed": trainer.config.seed}
    for section, value in scores.items():
        report[section] = {
            name: found
            for name, found in (("before", before.get(section)), ("after", value))
            if found is not None
        }
    report["memory"] = trainer.context.memory.stats()
    report["phases"] = trainer.schedule.totals()
    report["model"] = trainer.config.model
    return report


def _starting_model(config: TrainConfig) -> tuple[EmoSym, str]:
    if config.from_scratch:
        model = zoo.build(config.model, base_texts(CORPUS_TEXTS, config.seed), config.seed)
        return model, f"from-scratch-{config.model}-{config.seed}"
    folder = zoo.folder_of(config.model)
    return zoo.load(folder, engines.precision(config.engine)), zoo.fingerprint(folder)


def _below(upper: Image.Image | None, lower: Image.Image | None) -> Image.Image | None:
    if upper is None or lower is None:
        return upper or lower
    sheet = Image.new("RGB", (max(upper.width, lower.width), upper.height + lower.height), "white")
    sheet.paste(upper, (0, 0))
    sheet.paste(lower, (0, upper.height))
    return sheet


def _tell(what: str) -> None:
    """Say what takes long, or what is not as one would think."""
    if ranks.is_first():
        print(what, file=sys.stderr, flush=True)
