"""The parts of the symbiosis study at a size of seconds; tests assert on what comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.symbiosis.gradient import GradientPart
from benchmarks.symbiosis.study import Part, Study
from benchmarks.symbiosis.tokens import TokensPart
from benchmarks.symbiosis.understander import UnderstanderPart
from benchmarks.symbiosis_study import run_part
from model_zoo import zoo

OVERRIDES = (
    "engine.understander.warmup_steps=0",
    "engine.generator.warmup_steps=0",
    "compress.batch_size=4",
    "verify_posterior.batch_size=4",
    "verify_grpo.batch_size=2",
    "verify_grpo.num_generations=2",
    "verify_grpo.max_completion_length=6",
    "generate.batch_size=4",
    "generate.influence_steps=0",
)


class Understander(UnderstanderPart):
    """The arms that differ in kind."""

    arms = ("random, frozen", "+ knowledge", "+ knowledge, RL")


class Tokens(TokensPart):
    """No reasoning token, new ones, and those of the start."""

    arms = ("K = 0, knowledge", "K = 1", "K = 4, knowledge")


PARTS: dict[str, Part] = {
    "understander": Understander(lessons=((2, 1e-3), (2, 1e-3)), generate_steps=4),
    "gradient": GradientPart(labels=8, start_steps=(1, 1), compress_steps=3, generates=2, timed=2),
    "tokens": Tokens(compress_steps=1, generate_steps=3),
}


def study(folder: Path, model: Path, name: str) -> dict[str, Any]:
    """Run a part, again, and again with its last row lost; return what is left of each."""
    part = PARTS[name]
    made = Study(folder=folder, model=str(model), images=64, drawn=8, overrides=OVERRIDES)
    found: dict[str, Any] = {"tables": [], "rows": [], "files": []}
    for lost in (0, 0, 1):
        path = folder / "results.jsonl"
        if lost:
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:-lost]))
        found["tables"].append(run_part(part, made, 1))
        found["rows"].append([json.loads(line) for line in path.read_text().splitlines()])
        found["files"].append(trained(folder))
    return found


def trained(folder: Path) -> dict[str, int]:
    """Return when each file of a run was written: path -> nanoseconds."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.glob("*/**/*")
        if path.is_file()
    }


def weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    """Return the weights of a part of a model folder."""
    return dict(getattr(zoo.load(folder), part).state_dict())


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the distance of two sets of weights; 0 means equal in every bit."""
    squares = [(one[name].double() - other[name].double()).square().sum() for name in one]
    return float(torch.stack(squares).sum().sqrt())
