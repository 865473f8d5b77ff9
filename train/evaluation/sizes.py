"""Sizes of the evaluation that follow a run's length, and the two-minute look at a preset."""

from __future__ import annotations

from collections.abc import Mapping

from train.config import EvaluateConfig, RunConfig

BOUNDS = {"images": (1, 32, 256), "requests": (4, 8, 64), "grids": (100, 1, 3)}
"""Size -> (steps for each one, fewest, most)."""

SHORT_STEPS = 24
"""Steps of a look, in all stages together."""
SHORT_SIZES = {"images": 32, "requests": 4, "grids": 1, "questions": 8}
SHORT_WORLD = 400
"""Images of a drawn world in a look."""


def resolve_sizes(config: RunConfig) -> list[str]:
    """Replace the sizes that are null by those that follow the number of steps; return their names.

    The saved configuration has numbers, so a resumed run measures what the run began with.
    """
    steps = sum(stage.steps for stage in config.stages)
    derived = [name for name in BOUNDS if getattr(config.evaluate, name) is None]
    for name in derived:
        each, fewest, most = BOUNDS[name]
        setattr(config.evaluate, name, min(max(steps // each, fewest), most))
    return derived


def describe_sizes(evaluate: EvaluateConfig) -> str:
    """Return what an evaluation does and how to change it, in one line."""
    images = f"{evaluate.images} images" + (" with answers" if evaluate.answers else "")
    parts = {
        images: evaluate.images,
        f"{evaluate.requests} requests x {evaluate.per_request} images": evaluate.requests,
        f"{evaluate.grids} grids x 25 images": evaluate.grids,
        f"{evaluate.questions} questions of each task": evaluate.questions,
    }
    whole = ", ".join(text for text, size in parts.items() if size) or "nothing"
    return (
        f"evaluation {'before and after' if evaluate.before else 'after'} training: at most {whole}"
        " (change with evaluate.images=, .requests=, .per_request=, .grids=, .answers=, .before=)"
    )


def shorten(config: RunConfig) -> list[str]:
    """Cut a run to a look of about two minutes with a tiny model; return the changed options.

    Each stage keeps its share of `SHORT_STEPS`, and at least one turn of its cycle, which is
    thinned where it is too long; sizes of batches and models stay.
    """
    changes = []
    total = sum(stage.steps for stage in config.stages)
    for number, stage in enumerate(config.stages):
        cycle = _thinned(stage.cycle, SHORT_STEPS // len(config.stages))
        if cycle != stage.cycle:
            stage.cycle = cycle
            changes.append(f"stages.{number}.cycle={cycle}".replace("'", ""))
        share = round(SHORT_STEPS * stage.steps / total)
        steps = min(stage.steps, max(share, sum(cycle.values())))
        if steps < stage.steps:
            stage.steps = steps
            changes.append(f"stages.{number}.steps={steps}")
    for name, most in SHORT_SIZES.items():
        size = getattr(config.evaluate, name)
        if size is None or size > most:
            setattr(config.evaluate, name, most)
            changes.append(f"evaluate.{name}={most}")
    if config.data.path is None and config.data.world.count > SHORT_WORLD:
        config.data.world.count = SHORT_WORLD
        changes.append(f"data.world.count={SHORT_WORLD}")
    return changes


def _thinned(cycle: Mapping[str, int], most: int) -> dict[str, int]:
    """Return a cycle of about `most` steps in the same proportions; each phase has one at least."""
    turn = sum(cycle.values())
    if turn <= most:
        return dict(cycle)
    return {name: max(1, steps * most // turn) for name, steps in cycle.items()}
