"""`emosym doctor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from emosym.console.options import AsJson
from emosym.console.tables import print_table
from emosym.console.terminal import print_json

EXIT_FAIL = 2


def doctor(as_json: AsJson = False) -> None:
    """Check the machine and the installation; the exit code is 2 if something does not work."""
    import model_zoo
    from emosym.cli.diagnosis import diagnose

    checks = diagnose(Path(model_zoo.__file__).parent / "weights")
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        rows = [(check.status, check.name, check.found, check.fix) for check in checks]
        print_table(("", "check", "found", "what to do"), rows)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(EXIT_FAIL)
