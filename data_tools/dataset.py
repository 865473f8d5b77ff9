"""Opening and checking a dataset of any known layout, and its statistics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from data_tools.files.paths import has_file
from data_tools.manifest import (
    Check,
    Problem,
    TextCheck,
    read_manifest,
    validate_manifest,
)
from data_tools.questions.build import build_questions, buildable_tasks
from data_tools.sources.registry import SOURCES, read_source
from emosym.errors import UserError
from emosym.records import Sample

MANIFEST = "manifest.jsonl"
"""Name of the manifest in an imported folder."""


def open_dataset(path: Path) -> list[Sample]:
    """Return the samples of a manifest file, an imported folder, or the folder of a public dataset.

    Nothing is written. Images must exist; they are decoded only when used.

    Raises:
        UserError: the path does not exist, its layout is unknown, or one of its rows is invalid.
    """
    if not path.exists():
        raise UserError(f"no dataset at {path}", expected="a folder or a manifest file")
    if not path.is_dir():
        return read_manifest(path)
    if has_file(path / MANIFEST):
        return read_manifest(path / MANIFEST)
    return _read_public(_kind_of(path), path)


def validate_dataset(
    path: Path,
    progress: Callable[[int, int], None] | None = None,
    check_text: TextCheck | None = None,
) -> list[Problem]:
    """Return all problems of a dataset of any layout that `open_dataset` takes.

    Images are decoded completely: a dataset without problems can be trained on.

    Args:
        path: as for `open_dataset`.
        progress: called with (rows done, all rows).
        check_text: applied to prompts.

    Raises:
        UserError: the path does not exist, cannot be read, or has an unknown layout.
    """
    manifest = path / MANIFEST if path.is_dir() else path
    if not path.is_dir() or has_file(manifest):
        return validate_manifest(manifest, progress, check_text)
    samples, quarantined = read_source(_kind_of(path), path)
    problems = [Problem(path, None, row.where, row.reason, row.record) for row in quarantined]
    check = Check(check_text)
    for done, sample in enumerate(samples, start=1):
        for why, usable in check.image(sample.image):
            problems.append(Problem(path, None, "image", why, sample.id, usable))
        record = {"prompt": sample.prompt, "emotional_prompt": sample.emotional_prompt}
        for field, why in check.prompts(record):
            problems.append(Problem(path, None, field, why, sample.id))
        if progress is not None:
            progress(done, len(samples))
    if not samples and not quarantined:
        problems.append(Problem(path, None, "-", "it has no samples"))
    return problems


def _kind_of(path: Path) -> str:
    """Return the key of `SOURCES` for a folder; raise UserError for an unknown layout."""
    for kind, source in SOURCES.items():
        if source.matches(path):
            return kind
    layouts = [f"an imported folder ({MANIFEST})", *(item.layout for item in SOURCES.values())]
    raise UserError(f"{path} has an unknown layout", expected=", or ".join(layouts))


def _read_public(kind: str, path: Path) -> list[Sample]:
    samples, quarantined = read_source(kind, path)
    if quarantined:
        first = quarantined[0]
        raise UserError(
            f"{path} has {len(quarantined)} invalid of {len(samples) + len(quarantined)} rows",
            got=f"{first.where}: {first.reason}",
            fix=f"import it without them, `emosym data import {kind} {path} OUT`, and use OUT",
        )
    if not samples:
        raise UserError(f"{path} has no samples", expected="at least one row in its tables")
    return samples


def dataset_stats(samples: Sequence[Sample]) -> dict[str, object]:
    """Return statistics of a dataset.

    - `samples`, and `splits`: split -> count;
    - `emotions`: split -> emotion -> count;
    - `valence`, `arousal`, `dominance`: count, mean, std (of the population), min and max; absent
      if no sample has a value;
    - `questions`: task -> number of questions that can be built from the samples.
    """
    emotions: dict[str, Counter[str]] = {}
    for sample in samples:
        emotions.setdefault(sample.split, Counter())[sample.emotion or "unlabelled"] += 1
    stats: dict[str, object] = {
        "samples": len(samples),
        "splits": {split: counts.total() for split, counts in emotions.items()},
        "emotions": {split: dict(sorted(counts.items())) for split, counts in emotions.items()},
    }
    for name in ("valence", "arousal", "dominance"):
        values = [value for item in samples if (value := getattr(item, name)) is not None]
        if values:
            mean = math.fsum(values) / len(values)
            variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
            stats[name] = {
                "count": len(values),
                "mean": mean,
                "std": math.sqrt(variance),
                "min": min(values),
                "max": max(values),
            }
    tasks = buildable_tasks()
    counts = Counter(question.task for question in build_questions(samples, tasks, seed=0))
    stats["questions"] = {task: counts[task] for task in tasks}
    return stats
