"""A training run: load the preset and data, evaluate, train, evaluate again, write the report."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from emosym.config import dump_config, load_config, top_level_keys
from emosym.errors import UserError, printable
from emosym.files import check_own, remove_all_leftovers, write_text
from emosym.models.model import EmoSym
from eval.reports.report import REPORT
from memory_bank.store.lock import WriterLock
from model_zoo import catalogue, zoo
from train.changes import check_changes
from train.config import RunConfig
from train.data.base_texts import base_texts
from train.data.run_data import RunData, load_run_data
from train.distributed import engines, ranks
from train.evaluation.facts import note_start
from train.evaluation.measure import BEFORE, look, measure_after, measure_before
from train.evaluation.sizes import describe_sizes, resolve_sizes, shorten
from train.logs.trackers import check_trackers
from train.paths import CONFIG, LOCK, check_run, check_start
from train.phases.registry import PHASES, train_config
from train.schedule import check_sizes
from train.texts import check_texts
from train.trainer import Trainer

CORPUS_TEXTS = 20_000
"""Texts from which a tokenizer is trained when a run starts from scratch."""


def start(
    preset: Path, run: Path, dataset: str | None, overrides: Sequence[str], *, short: bool = False
) -> dict:
    """Start a run in a new folder, train to the end, and return the report.

    Args:
        preset: file of the configuration.
        run: folder of the run.
        dataset: manifest or dataset folder, in place of the preset's.
        overrides: changed options, `key=value`.
        short: cut the run to a look of about two minutes (`train.evaluation.sizes.shorten`).

    Raises:
        UserError: bad preset, data or sizes; a folder that is already a run.
    """
    with ranks.raise_once():
        check_start(preset, run, dataset)
        given = [] if dataset is None else [f"data.path={dataset}"]
        config = load_config(train_config(), preset, [*overrides, *given])
        _resolve_paths(config)
        cut = shorten(config) if short else []
        resolve_sizes(config)
        check_trackers(config.report_to)
    # No rank writes into the folder before all ranks have checked it.
    ranks.join()
    ranks.barrier()
    if cut:
        ranks.say(f"a short look, not the preset's run: {', '.join(cut)}")
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
        check_run(run)
        for entry in sorted(run.iterdir()):
            check_own(entry)  # all of them may be written to
        _check_sections(run / CONFIG)
        config = load_config(train_config(), run / CONFIG, overrides)
        saved = load_config(train_config(), run / CONFIG)
        check_trackers(config.report_to)
        resolve_sizes(saved)
        resolve_sizes(config)
        check_changes(saved, config, measured=(run / BEFORE).is_file())
    ranks.join()
    with _locked(run):
        with ranks.raise_once():
            trainer, data = _set_up(config, run)
        trainer.restore(checkpoint)
        step, total = trainer.state.step, len(trainer.schedule)
        ranks.say(f"{run} continues after step {step} of {total}")
        with ranks.raise_together():
            if ranks.is_first():
                note_start(run)
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

    if config.model not in catalogue.members():
        config.model = str(Path(config.model).expanduser().resolve())
    config.data.path = absolute(config.data.path)
    files = config.data.instructions
    files.train, files.test, files.images = map(absolute, (files.train, files.test, files.images))
    for name, phase in PHASES.items():
        phase.resolve_paths(config.section(name))


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Lock a run's folder against other processes; create it, or remove what crashes left in it."""
    with ranks.raise_together():
        if ranks.is_first():
            run.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(run / LOCK, f"the run {run}", "choose another RUN")
            remove_all_leftovers(run)
    try:
        yield
    finally:
        if ranks.is_first():
            lock.release()


def _begin(config: RunConfig, run: Path) -> tuple[Trainer, RunData]:
    """Make the trainer of a new run; if that fails, the run's folder is removed."""
    started = time.monotonic()
    with ranks.raise_together():
        if ranks.is_first() and (run / CONFIG).exists():
            raise UserError(f"another process started a run in {run}", fix="choose another RUN")
    try:
        with ranks.raise_together():
            if ranks.is_first():
                # Before the world is drawn, so that a run that is killed meanwhile can be resumed.
                write_text(run / CONFIG, dump_config(config))
                note_start(run)
        with ranks.raise_once():
            trainer, data = _set_up(config, run)
            trainer.restore()
    except (UserError, OSError, ranks.OtherRankError):
        if ranks.is_first():
            shutil.rmtree(run, ignore_errors=True)
        raise
    trainer.state.seconds = time.monotonic() - started
    return trainer, data


def _set_up(config: RunConfig, run: Path) -> tuple[Trainer, RunData]:
    """Make a run's trainer; sizes and model are checked before a world is drawn."""
    check_sizes(config)
    ranks.say(describe_sizes(config.evaluate))
    ranks.say(f"loading the model {printable(config.model)}")
    model, fingerprint = _starting_model(config)
    data = load_run_data(config, run)
    model.generator.denoiser.truncate_prompts = config.data.long_prompts == "truncate"
    texts = check_texts(config, model, data.samples, data.questions)
    for notice in texts.notices:
        ranks.say(notice)
    trainer = Trainer(config, run, model, data, fingerprint)
    if config.data.long_prompts == "truncate":
        trainer.data_metrics["truncated_prompts"] = texts.truncated_prompts
    for phase in trainer.phases.values():
        for notice in phase.notices():
            ranks.say(notice)
    return trainer, data


def _finish(trainer: Trainer, data: RunData) -> dict:
    try:
        before = measure_before(trainer, data)
        trainer.train(partial(look, trainer, data))
        report = measure_after(trainer, data, before)
        ranks.barrier()
        return report
    finally:
        trainer.close()


def _starting_model(config: RunConfig) -> tuple[EmoSym, str]:
    if config.from_scratch:
        model = zoo.build(config.model, base_texts(CORPUS_TEXTS, config.seed), config.seed)
        return model, f"from-scratch-{config.model}-{config.seed}"
    folder = catalogue.folder_of(config.model)
    return zoo.load(folder, engines.precision(config.engine)), zoo.fingerprint(folder)
