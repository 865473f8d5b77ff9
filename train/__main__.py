"""`python -m train run PRESET` and `python -m train resume RUN`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from emosym.console import guard
from emosym.console.options import Plugins
from emosym.errors import UserError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

SAVED = 143
"""Exit code of a run that SIGTERM or Ctrl-C stopped (128 + SIGTERM); its state is saved."""

Overrides = Annotated[list[str] | None, typer.Argument(help="key=value …, over the preset.")]


@app.callback()
def train() -> None:
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
        Path | None, typer.Option(help="New folder of the run; default: runs/PRESET.")
    ] = None,
) -> None:
    """Start a run."""
    from train.run import start

    folder = Path("runs") / preset.stem if run is None else run
    _guarded(folder, lambda: start(preset, folder, data, overrides or []))


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
    from train.run import resume as resume_run

    _guarded(run, lambda: resume_run(run, overrides or [], checkpoint))


def _guarded(run: Path, work: Callable[[], dict[str, Any]]) -> None:
    """Run a command and print its report; errors become one line and an exit code."""
    from emosym.console.terminal import console
    from eval.reports.table import comparison_table
    from train.distributed import ranks
    from train.trainer import Interrupted

    try:
        report = work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:  # no space left or no permission: one line, no traceback
        # Not Path.is_file: it raises where the folder cannot be looked into.
        begun = os.path.isfile(run / "config.yaml")
        advice = (
            f"`make resume RUN={run}`" if begun else "start the run again, or choose another RUN"
        )
        print(f"error: {error}; correct it, then {advice}", file=sys.stderr)
        raise SystemExit(2) from None
    except ranks.OtherRankError:
        raise SystemExit(2) from None
    except Interrupted:
        if ranks.is_first():
            print(f"saved; continue with {ranks.resume_command(run)}", file=sys.stderr)
        raise SystemExit(SAVED) from None
    finally:
        ranks.leave()
    if report:
        screen = console()
        table = comparison_table(report)
        if table.row_count:  # Nothing was measured: no table.
            screen.print(table)
        screen.print(f"{run / 'report.html'}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    guard.run(app, "python -m train")
