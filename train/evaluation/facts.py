"""What is known of a run beside its configuration: its commands, when, on what."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emosym.errors import UserError
from emosym.files import write_text
from emosym.strict_json import BadJson, read_json
from eval.reports.environment import environment, run_facts
from train.distributed import ranks

FACTS = "run.json"


def note_start(run: Path) -> None:
    """Add this process's command, time, commit and ranks to the run's `run.json`."""
    begun = {**run_facts(datetime.now(UTC)), "ranks": str(ranks.size())}
    begun |= {name: value for name, value in environment().items() if name == "commit"}
    write_text(run / FACTS, json.dumps([*starts(run), begun], indent=2) + "\n")


def starts(run: Path) -> list[dict[str, str]]:
    """Return what `note_start` wrote, one entry for each start; empty without the file.

    Raises:
        UserError: a file that holds something else.
    """
    path = run / FACTS
    if not path.is_file():
        return []
    try:
        found: Any = read_json(path.read_bytes())
    except (OSError, BadJson) as error:
        raise _damaged(path, error) from error
    if not isinstance(found, list):
        raise _damaged(path, type(found).__name__)
    for entry in found:
        texts = isinstance(entry, dict) and all(isinstance(v, str) for v in entry.values())
        if not texts:
            raise _damaged(path, repr(entry))
    return found


def facts(run: Path) -> dict[str, str]:
    """Return the facts of a run for its report; of several starts, how the first one began."""
    begun = starts(run)
    if not begun:
        return {}
    times = [entry["started"] for entry in begun[1:] if "started" in entry]
    return begun[0] | ({"resumed": ", ".join(times)} if times else {})


def _damaged(path: Path, got: object) -> UserError:
    return UserError(
        f"{path} cannot be read",
        got=got,
        expected="the starts of the run",
        fix="put it back, or delete it",
    )
