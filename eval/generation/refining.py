"""Whether rewriting finds better images than drawing as many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from emosym.console import guard
from emosym.console.devices import default_device
from emosym.console.options import (
    DEFAULT_MODEL,
    LAST_SEED,
    AsJson,
    Device,
    GuidanceScale,
    InferenceSteps,
)
from emosym.console.progress import progress
from emosym.console.tables import print_table
from emosym.console.terminal import print_json
from emosym.inference import refine as refining
from emosym.inference.refine import Critic, PromptGenerator
from emosym.inference.refinement import Refinement
from emosym.inference.sweep import axis_values
from emosym.interfaces import Oracle
from emosym.randomness import Draws
from emosym.records import ImageRequest
from eval.metrics import statistics as metrics

if TYPE_CHECKING:
    from eval.generation.measure import EvalRequest

WAYS = ("one", "best_of", "refine")
"""The first image, the best of as many as refining draws, the best of its rounds."""
TITLES = {"one": "the first image", "best_of": "best of as many", "refine": "refine"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def compare(
    painter: PromptGenerator,
    critic: Critic,
    oracle: Oracle,
    requests: Sequence[EvalRequest],
    *,
    rounds: int = refining.ROUNDS,
    images: int = refining.IMAGES,
    seed: int = 0,
    guidance: float | None = None,
    steps: int | None = None,
) -> Iterator[dict[str, float]]:
    """Yield for each request what the ways come to: errors |ΔV| + |ΔA| of the oracle, the judge.

    Both ways draw rounds × images, the first round from the same seeds; no image is near enough to
    stop. Beside the errors: the share of rounds that drew a rewritten prompt, and the judge's mean
    error over the images of the first and of the last round.

    Args:
        painter: what draws.
        critic: what judges and rewrites; it chooses the image of each way.
        oracle: the truth of pixels, which neither way sees.
        requests: with a prompt, valence and arousal, and their subject.
        rounds: of refining.
        images: of a round.
        seed: of the first request's first image; the next request's seeds follow.
        guidance: of the painter; None is its own.
        steps: of the painter; None is its own.
    """
    total = rounds * images
    for place, wanted in enumerate(requests):
        common = {
            "seed": seed + place * total,
            "guidance_scale": guidance,
            "num_inference_steps": steps,
        }
        once = _Once(painter, images)
        refined = refining.refine(
            *(once, critic, wanted.request),
            **common,
            rounds=rounds,
            images=images,
            epsilon=0,
        )
        drawn = refining.best_of(once, critic, wanted.request, total, **common)
        one = refining.best_of(once, critic, wanted.request, 1, **common)
        row: dict[str, float] = {}
        for way, found in zip(WAYS, (one, drawn, refined), strict=True):
            row[f"oracle_{way}"] = _error(oracle, wanted, found)
            row[f"judge_{way}"] = found.best[1].error
        yield row | {
            "rewritten": float(
                np.mean([last.kept is None for last in refined.rounds[:-1]]) if rounds > 1 else 0
            ),
            "first_round": refined.rounds[0].mean_error,
            "last_round": refined.rounds[-1].mean_error,
        }


class _Once:
    """A painter that draws the same request from the same seed once: the ways share a round.

    It draws a round at once. Its sums round otherwise than one image's, of which `refine` takes
    care so that a seed gives its bytes, and which moves no mean.
    """

    def __init__(self, painter: PromptGenerator, images: int) -> None:
        self.check_prompt = painter.check_prompt
        self._painter = painter
        self._images = images
        self._drawn: dict[tuple[ImageRequest, int], Image.Image] = {}

    def generate(
        self,
        requests: Sequence[ImageRequest],
        *,
        seed: int,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
    ) -> list[Image.Image]:
        """Return the image of one request; guidance and steps are the same in every call."""
        (request,) = requests
        if (request, seed) not in self._drawn:
            seeds = range(seed, seed + self._images)
            images = self._painter.generate(
                [request] * len(seeds),
                seed=list(seeds),
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
            )
            self._drawn |= {(request, own): image for own, image in zip(seeds, images, strict=True)}
        return [self._drawn[request, seed]]


def over_plane(prompts: Sequence[EvalRequest], points: int, seed: int) -> list[EvalRequest]:
    """Return each prompt at one of points × points of valence and arousal.

    Which prompt gets which point is drawn; with a multiple of points² prompts each point has as
    many. A prompt that stood at all points would make its requests stand or fall together, and
    intervals over requests too narrow.
    """
    values = axis_values(points)
    grid = [(valence, arousal) for valence in values for arousal in values]
    places = Draws(seed, "over the plane").permutation(len(prompts)).tolist()
    return [
        replace(one, request=replace(one.request, valence=valence, arousal=arousal))
        for one, place in zip(prompts, places, strict=True)
        for valence, arousal in [grid[place % len(grid)]]
    ]


def _error(oracle: Oracle, wanted: EvalRequest, found: Refinement) -> float:
    felt = oracle(found.image, wanted.subject)
    return abs(felt.valence - wanted.request.valence) + abs(felt.arousal - wanted.request.arousal)


@app.command()
def main(
    model: Annotated[
        str, typer.Argument(help="Name in the model zoo, or a model folder.")
    ] = DEFAULT_MODEL,
    prompts: Annotated[
        int, typer.Option(min=1, max=1000, help="Requests at each point, each with a prompt drawn.")
    ] = 4,
    points: Annotated[
        int, typer.Option(min=2, max=100, help="Values of valence, and of arousal.")
    ] = 5,
    rounds: Annotated[int, typer.Option(min=2, max=100, help="Rounds.")] = refining.ROUNDS,
    images: Annotated[int, typer.Option(min=2, max=100, help="Images a round.")] = refining.IMAGES,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Of prompts and images.")] = 0,
    guidance: GuidanceScale = None,
    steps: InferenceSteps = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Refine prompts of AffectWorld all over the plane, against the best of as many images."""
    from emosym.inference.pipeline import EmoSymPipeline, check_sampling

    check_sampling(steps, guidance)
    pipeline = EmoSymPipeline.from_pretrained(model, device=device or default_device())

    from data_tools.affectworld.truth import oracle
    from eval.generation.plane import world_prompts

    requests = over_plane(world_prompts(prompts * points**2, seed), points, seed)
    rows: list[dict[str, float]] = []
    with progress("requests", len(requests)) as show:
        for row in compare(
            *(pipeline, pipeline, oracle, requests),
            rounds=rounds,
            images=images,
            seed=seed,
            guidance=guidance,
            steps=steps,
        ):
            rows.append(row)
            show(len(rows), len(requests))
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for who in ("oracle", "judge"):
        found[f"{who}_gain"] = found[f"{who}_best_of"] - found[f"{who}_refine"]
    scores = {
        name: {"mean": metrics.mean(each), "interval": _interval(each)}
        for name, each in found.items()
    }
    if as_json:
        each = [
            {
                "subject": wanted.subject,
                "prompt": wanted.request.prompt,
                "valence": wanted.request.valence,
                "arousal": wanted.request.arousal,
                **row,
            }
            for wanted, row in zip(requests, rows, strict=True)
        ]
        print_json({"model": model, "requests": len(rows), "seed": seed, **scores, "each": each})
        return
    print_table(
        ("", "oracle", "95 %", "judge", "95 %"),
        [
            (title, *(cell for who in ("oracle", "judge") for cell in _cells(scores, who, way)))
            for way, title in {**TITLES, "gain": "refine gains"}.items()
        ],
        title=f"{len(rows)} requests, {rounds} x {images} images: valence + arousal error",
    )
    print_table(
        ("", "mean", "95 %"),
        [
            ("rounds from a rewritten prompt", *_cells(scores, "", "rewritten")),
            ("judged mean error of the first round", *_cells(scores, "", "first_round")),
            ("judged mean error of the last round", *_cells(scores, "", "last_round")),
        ],
    )


def _interval(values: NDArray) -> tuple[float, float] | None:
    return metrics.bootstrap(metrics.mean, values, seed=0, resamples=500)


def _cells(scores: dict[str, dict], who: str, what: str) -> tuple[str, str]:
    one = scores[f"{who}_{what}" if who else what]
    low, high = one["interval"] or (float("nan"), float("nan"))
    return f"{one['mean']:.3f}", f"{low:.3f} to {high:.3f}"


if __name__ == "__main__":
    guard.run(app, "python -m eval.generation.refining")
