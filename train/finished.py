"""The report of a run that is finished, read without loading anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from emosym.errors import UserError
from emosym.files import check_own
from emosym.strict_json import read_json
from eval.reports.comparison import check_report
from eval.reports.report import REPORT
from train.checkpoints.files import name_of
from train.paths import CONFIG

MODEL = "model"
CHECKPOINTS = "checkpoints"


def stored_report(run: Path) -> Any:
    """Return the report of a run whose stages are all done; None for any other folder.

    What is wrong with a run is told by `resume`, which reads all of it.
    """
    try:
        for name in (CONFIG, MODEL, REPORT):
            check_own(run / name)
        stages = yaml.safe_load((run / CONFIG).read_bytes())["stages"]
        last = name_of(sum(stage["steps"] for stage in stages))
        check_own(run / CHECKPOINTS / last)
        report: Any = read_json((run / REPORT).read_bytes())
        check_report(report)
    except (OSError, UserError, yaml.YAMLError, ValueError, LookupError, TypeError):
        return None
    except (AttributeError, RecursionError):
        return None
    return report
