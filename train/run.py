"""A training run: load the preset and data, evaluate, train, evaluate again, write the report."""

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

from emosym.config import dump_config, load_config, top_level_keys
from emosym.errors import UserError
from emosym.files import check_own, write_text
from emosym.inference.pipeline import EmoSymPipeline
from emosym.models.model import EmoSym
from eval.held_out import HeldOut, grids, measure
from eval.reports.comparison import check_report
from eval.reports.environment import environment
from eval.reports.report import REPORT, write_report
from memory_bank.store.lock import WriterLock
from model_zoo import zoo
from train.changes import check_changes
from train.config import RunConfig
from train.data.base_texts import base_texts
from train.data.run_data import RunData, load_run_data
from train.distributed import engines, ranks
from train.finished import CONFIG, MODEL
from train.phases.registry import PHASES, train_config
from train.sizes import check_sizes
from train.space import space_of
from train.texts import check_texts
from train.trainer import Trainer

LOCK = "run.lock"
BEFORE = "before.json"
CORPUS_TEXTS = 20_000
"""Texts from which a tokenizer is trained when a run starts from scratch."""


def start(preset: Path, run: Path, dataset: str | None, overrides: Sequence[str]) -> dict:
    """Start a run in a new folder, train to the end, and return the report.

    Raises:
        UserError: bad preset, data or sizes; a folder that is already a run.
    """
    with ranks.raise_once():
        given = [] if dataset is None else [f"data.path={dataset}"]
        config = load_config(train_config(), preset, [*overrides, *given])
        _resolve_paths(config)
        if run.exists() and any(run.iterdir()):
            raise UserError(
                f"{run} is not empty",
                expected="a new folder for the run",
                fix=f"continue it with `make resume RUN={run}`, or choose another RUN",
            )
    # No rank writes into the folder before all ranks have checked it.
    ranks.join()
    ranks.barrier()
    with _locked(run):
        trainer, data = _begin(config, run)
        return _finish(trainer, data)


def resume(run: Path, overrides: Sequence[str], checkpoint: str | None = None) -> dict:
    """Continue a run from its last checkpoint, exactly as if it had not stopped.

    Args:
        run: folder of the run.
        overrides: changed options, `key=value`.
        checkpoint: name of an earlier checkpoint to continue from; later ones are set aside.

    Raises:
        UserError: no run there, or a run that is still running; a link in its folder; an option
            that cannot change; a damaged checkpoint or memory bank.
    """
    with ranks.raise_once():
        if not (run / CONFIG).is_file():
            raise UserError(
                f"{run} is not a run folder",
                got=f"no {CONFIG} in it",
                expected="RUN=<folder of a run>",
            )
        for entry in sorted(run.iterdir()):
            check_own(entry)  # all of them may be written to
        _check_sections(run / CONFIG)
        config = load_config(train_config(), run / CONFIG, overrides)
        saved = load_config(train_config(), run / CONFIG)
        check_changes(saved, config, measured=(run / BEFORE).is_file())
    ranks.join()
    with _locked(run):
        with ranks.raise_once():
            trainer, data = _set_up(config, run)
        trainer.restore(checkpoint)
        step, total = trainer.state.step, len(trainer.schedule)
        _print(f"{run} continues at step {step} of {total}")
        with ranks.raise_together():
            if ranks.is_first():
                if (run / REPORT).exists():  # of an earlier end
                    (run / REPORT).replace(run / f"{REPORT}.superseded")
                if overrides:
                    write_text(run / CONFIG, dump_config(config))
        return _finish(trainer, data)


def _check_sections(path: Path) -> None:
    """Refuse the configuration of a run that has a section of a phase that is not registered."""
    known = {field.name for field in dataclasses.fields(train_config())}
    strange = [key for key in top_level_keys(path) if key not in known]
    if strange:
        raise UserError(
            f"{path}: no phase is named {', '.join(map(str, strange))}",
            fix="give the run's plugins again (--plugin FILE.py), or correct the file",
        )


def _resolve_paths(config: RunConfig) -> None:
    """Make paths absolute: a run may be resumed from another working folder."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().resolve())

    if config.model not in zoo.members():
        config.model = str(Path(config.model).expanduser().resolve())
    config.data.path = absolute(config.data.path)
    files = config.data.instructions
    files.train, files.test, files.images = map(absolute, (files.train, files.test, files.images))
    for name, phase in PHASES.items():
        phase.resolve_paths(config.section(name))


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Lock a run's folder against other processes; create it if it does not exist."""
    with ranks.raise_together():
        if ranks.is_first():
            run.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(run / LOCK, f"the run {run}", "choose another RUN")
    try:
        yield
    finally:
        if ranks.is_first():
            lock.release()


def _begin(config: RunConfig, run: Path) -> tuple[Trainer, RunData]:
    """Make the trainer of a new run; if that fails, the run's folder is removed."""
    started = time.monotonic()
    with ranks.raise_together():
        if ranks.is_first():
            if (run / CONFIG).exists():
                raise UserError(f"another process started a run in {run}", fix="choose another RUN")
            # Before the world is drawn, so that a run that is killed meanwhile can be resumed.
            write_text(run / CONFIG, dump_config(config))
    try:
        with ranks.raise_once():
            trainer, data = _set_up(config, run)
            trainer.restore()
    except UserError:
        if ranks.is_first():
            shutil.rmtree(run, ignore_errors=True)
        raise
    trainer.state.seconds = time.monotonic() - started
    return trainer, data


def _set_up(config: RunConfig, run: Path) -> tuple[Trainer, RunData]:
    """Make a run's trainer; sizes and model are checked before a world is drawn."""
    check_sizes(config)
    model, fingerprint = _starting_model(config)
    data = load_run_data(config, run)
    check_texts(config, model, data.samples, data.questions)
    trainer = Trainer(config, run, model, data, fingerprint)
    for phase in trainer.phases.values():
        for notice in phase.notices():
            _print(notice)
    return trainer, data


def _finish(trainer: Trainer, data: RunData) -> dict:
    try:
        before = _before(trainer, data)
        trainer.train()
        started = time.monotonic()
        report: dict = {}
        if ranks.is_first():
            with trainer.averaged():
                report = _save_and_report(trainer, data, before, started)
        ranks.barrier()
        return report
    finally:
        trainer.close()


def _save_and_report(trainer: Trainer, data: RunData, before: dict, started: float) -> dict:
    """Write the run's model and its report; return the report."""
    config, run = trainer.config, trainer.run
    _print("measuring the trained model")
    model = trainer.context.model.eval()
    for phase in trainer.phases.values():
        model.config = phase.final_model_config(model.config)
    model.space = space_of(trainer.context)
    zoo.save(model, run / MODEL)
    after = _measure(trainer, data)
    report = _report(trainer, before, after, time.monotonic() - started)
    pictures = {}
    sheet = grids(EmoSymPipeline(model), data.samples, config.evaluate.grids, config.seed)
    if sheet is not None and config.evaluate.requests:
        pictures["Generated images: valence grows to the right, arousal upwards"] = sheet
    report["wall_seconds"] = trainer.state.seconds + time.monotonic() - started
    write_report(
        run,
        report,
        title=f"EmoSym run {run.name}",
        samples=_stack(sheet, after.sheet),
        figures=pictures,
        config=dump_config(config),
        environment=environment(),
    )
    return report


def _before(trainer: Trainer, data: RunData) -> dict:
    """Evaluate the starting model once, and keep the scores for when the run is resumed."""
    path = trainer.run / BEFORE
    due = trainer.config.evaluate.before and trainer.state.step == 0
    if ranks.is_first() and due and not path.is_file():
        started = time.monotonic()
        _print("measuring the starting model")
        trainer.context.model.eval()
        scores = _measure(trainer, data).to_dict()
        trainer.context.model.train()
        trainer.state.seconds += time.monotonic() - started
        write_text(path, json.dumps(scores))
    # All ranks must pass here, whether or not they found the file.
    ranks.barrier()
    with ranks.raise_once():
        return _scores_of(path) if path.is_file() else {}


def _scores_of(path: Path) -> dict:
    """Read before.json or report.json."""
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


def _measure(trainer: Trainer, data: RunData) -> HeldOut:
    config = trainer.config.evaluate
    model = EmoSymPipeline(trainer.context.model)
    return measure(
        model,
        trainer.context.reference,
        data.samples,
        images=config.images,
        requests=config.requests,
        per_request=config.per_request,
        answers=config.answers,
        seed=trainer.config.seed,
        questions=data.held_out(config.questions),
    )


def _report(trainer: Trainer, before: dict, after: HeldOut, seconds: float) -> dict:
    scores = after.to_dict()
    report: dict = {"wall_seconds": trainer.state.seconds + seconds, "seed": trainer.config.seed}
    for section, value in scores.items():
        report[section] = {
            name: measured
            for name, measured in (("before", before.get(section)), ("after", value))
            if measured is not None
        }
    report["memory"] = trainer.context.memory.stats()
    report["phases"] = trainer.schedule.totals()
    report["model"] = trainer.config.model
    return report


def _starting_model(config: RunConfig) -> tuple[EmoSym, str]:
    if config.from_scratch:
        model = zoo.build(config.model, base_texts(CORPUS_TEXTS, config.seed), config.seed)
        return model, f"from-scratch-{config.model}-{config.seed}"
    folder = zoo.folder_of(config.model)
    return zoo.load(folder, engines.precision(config.engine)), zoo.fingerprint(folder)


def _stack(upper: Image.Image | None, lower: Image.Image | None) -> Image.Image | None:
    if upper is None or lower is None:
        return upper or lower
    sheet = Image.new("RGB", (max(upper.width, lower.width), upper.height + lower.height), "white")
    sheet.paste(upper, (0, 0))
    sheet.paste(lower, (0, upper.height))
    return sheet


def _print(text: str) -> None:
    """Print a line for the user, once."""
    if ranks.is_first():
        print(text, file=sys.stderr, flush=True)
