"""`python -m train run PRESET` and `python -m train resume RUN`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from emosym.console import guard
from emosym.console.options import Plugins, Version
from emosym.errors import UserError, in_words
from train.paths import CONFIG, check_run, check_start

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Overrides = Annotated[list[str] | None, typer.Argument(help="key=value …, over the preset.")]


@app.callback()
def train(version: Version = False) -> None:
    """Train one model by one schedule of phases."""
    from model_zoo.quiet import quiet_libraries

    quiet_libraries()


@app.command()
def run(
    preset: Annotated[Path, typer.Argument(help="YAML preset, e.g. train/presets/demo.yaml.")],
    overrides: Overrides = None,
    plugins: Plugins = None,
    data: Annotated[str | None, typer.Option(help="Manifest or dataset folder.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="New folder of the run; default: runs/PRESET[-short].")
    ] = None,
    short: Annotated[
        bool,
        typer.Option(
            "--short", help="A look of about two minutes: few steps, small world and evaluation."
        ),
    ] = False,
) -> None:
    """Start a run."""
    name = preset.stem + ("-short" if short else "")
    folder = Path("runs") / name if run is None else run
    _check(folder, lambda: check_start(preset, folder, data))

    def work() -> dict[str, Any]:
        from train.run import start

        return start(preset, folder, data, overrides or [], short=short)

    _guarded(folder, work)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    overrides: Overrides = None,
    plugins: Plugins = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="An earlier checkpoint, e.g. step-0000020; default: the last one."),
    ] = None,
) -> None:
    """Continue a run from its last checkpoint."""
    _check(run, lambda: check_run(run))

    from train.finished import stored_report

    stored = None if overrides or checkpoint else stored_report(run)
    if stored is not None:
        if _is_first():
            print(f"{run} is finished; this is its report", file=sys.stderr)
            _show(run, stored)
        return

    def work() -> dict[str, Any]:
        from train.run import resume

        return resume(run, overrides or [], checkpoint)

    _guarded(run, work)


def _check(run: Path, check: Callable[[], None]) -> None:
    """Check paths before imports that take seconds; one rank of a machine reports an error."""
    try:
        check()
    except (UserError, OSError) as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {_problem(run, error)}", file=sys.stderr)
        raise SystemExit(2) from None


def _guarded(run: Path, work: Callable[[], dict[str, Any]]) -> None:
    """Run a command and print its report; errors and signals become one line and an exit code."""
    from train.stopping import Stopped, stoppable

    try:
        with stoppable():
            report = _reported(run, work)
    except Stopped as stopped:
        if _is_first():
            print(f"stopped; {_kept(run)}", file=sys.stderr)
        raise SystemExit(128 + stopped.number) from None
    if report:
        _show(run, report)


def _reported(run: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    from train.distributed import ranks
    from train.distributed.launcher import resume_command
    from train.trainer import Interrupted

    try:
        return work()
    except (UserError, OSError) as error:
        problem = _problem(run, error)
    except ranks.OtherRankError:
        raise SystemExit(2) from None
    except Interrupted as interrupted:
        if ranks.is_first():
            print(f"saved; continue with {resume_command(run)}", file=sys.stderr)
        raise SystemExit(128 + interrupted.number) from None
    except RuntimeError as error:
        if not ranks.lost_peer(error):
            raise
        if os.environ["LOCAL_RANK"] != "0":
            raise SystemExit(2) from None
        problem = UserError("another rank stopped, which may have said why", fix=_kept(run))
    finally:
        ranks.leave()
    print(f"error: {problem}", file=sys.stderr)
    raise SystemExit(2)


def _problem(run: Path, error: UserError | OSError) -> UserError:
    """Return an error as one line: also one of the system, as no space left or no permission."""
    if isinstance(error, UserError):
        return error
    # Not Path.is_file: it raises where the folder cannot be looked into.
    begun = os.path.isfile(run / CONFIG)
    advice = f"`make resume RUN={run}`" if begun else "start the run again, or choose another RUN"
    return UserError(f"{in_words(error)}; correct it, then {advice}")


def _kept(run: Path) -> str:
    """Return what is kept of a run that was stopped, and how to continue it."""
    from train.checkpoints.files import list_checkpoints
    from train.distributed.launcher import resume_command

    if not os.path.isfile(run / CONFIG):
        return "nothing was written; start the run again"
    saved = list_checkpoints(run / "checkpoints")
    kept = f"{saved[-1].name} is kept" if saved else "the run is before its first checkpoint"
    return f"{kept}; continue with {resume_command(run)}"


def _is_first() -> bool:
    """Return whether this process prints for all ranks, also before they have joined."""
    return os.environ.get("RANK", "0") == "0"


def _show(run: Path, report: dict[str, Any]) -> None:
    """Print the scores of a report, and where the whole is."""
    from emosym.console.terminal import console
    from eval.reports.table import comparison_table

    screen = console()
    table = comparison_table(report)
    if table.row_count:  # Nothing was measured: no table.
        screen.print(table)
    screen.print(f"{run / 'report.html'}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    guard.run(app, "python -m train")
