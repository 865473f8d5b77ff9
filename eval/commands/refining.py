"""`python -m eval refining`: compare refining with generating as many images of one request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

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

SOURCES = ("oracle", "judge")
TITLES = {
    "one": "the first image",
    "best_of": "best of as many",
    "refine": "refine by words",
    "refine_state": "refine by the state",
    "refine_both": "refine by both",
    "gain": "words gain",
    "gain_state": "the state gains",
    "gain_both": "both gain",
}
LAST = {"": "words", "_state": "the state", "_both": "both"}


def refining(
    model: Annotated[
        str, typer.Argument(help="Name in the model zoo, or a model folder.")
    ] = DEFAULT_MODEL,
    prompts: Annotated[
        int, typer.Option(min=1, max=1000, help="Requests at each point, each with its own prompt.")
    ] = 4,
    points: Annotated[
        int, typer.Option(min=2, max=100, help="Values of valence, and of arousal.")
    ] = 5,
    rounds: Annotated[
        int | None, typer.Option(min=2, max=100, help="Rounds; default: as `emosym refine`.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=2, max=100, help="Images a round; default: the same.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Of prompts and images.")] = 0,
    guidance_scale: GuidanceScale = None,
    num_inference_steps: InferenceSteps = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Compare refining with the best of as many images, all over the affect plane.

    A gain is the error of the best of as many less that of refining, request by request.
    """
    import numpy as np

    from emosym.inference.inputs import check_sampling
    from emosym.inference.pipeline import EmoSymPipeline
    from emosym.inference.refine import IMAGES, ROUNDS

    check_sampling(num_inference_steps, guidance_scale)
    rounds, images = rounds or ROUNDS, images or IMAGES
    pipeline = EmoSymPipeline.from_pretrained(model, device=device)

    from data_tools.affectworld.truth import oracle
    from emosym.tasks import metrics
    from eval.generation.refining import FEEDBACKS, compare
    from eval.generation.requests import over_plane, world_prompts
    from eval.generation.subject import SubjectClassifier

    requests = over_plane(world_prompts(prompts * points**2, seed), points, seed)
    rows: list[dict[str, float]] = []
    with progress("requests", len(requests)) as show:
        for row in compare(
            pipeline,
            pipeline,
            oracle,
            requests,
            rounds=rounds,
            images=images,
            seed=seed,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            classify=SubjectClassifier.load(),
        ):
            rows.append(row)
            show(len(rows), len(requests))
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for source in SOURCES:
        for suffix in FEEDBACKS:
            refined = columns[f"{source}_refine{suffix}"]
            columns[f"{source}_gain{suffix}"] = columns[f"{source}_best_of"] - refined
    scores = {
        name: {
            "mean": metrics.mean(each),
            "interval": metrics.bootstrap(metrics.mean, each, seed=0, resamples=500),
        }
        for name, each in columns.items()
    }
    if as_json:
        each = [
            {
                "subject": wanted.subject,
                "prompt": request["prompt"],
                "valence": request["valence"],
                "arousal": request["arousal"],
                **row,
            }
            for wanted, row in zip(requests, rows, strict=True)
            for request in [wanted.request.to_dict()]
        ]
        print_json({"model": model, "requests": len(rows), "seed": seed, **scores, "each": each})
        return
    print_table(
        ("", "oracle", "95 %", "judge", "95 %"),
        [
            (title, *(cell for source in SOURCES for cell in _cells(scores[f"{source}_{way}"])))
            for way, title in TITLES.items()
        ],
        title=f"{len(rows)} requests, {rounds} x {images} images: valence + arousal error",
    )
    print_table(
        ("", "mean", "95 %"),
        [
            ("rounds with a rewritten prompt", *_cells(scores["rewritten"])),
            ("judged mean error of the first round", *_cells(scores["first_round"])),
            *(
                (f"... of the last round, {title}", *_cells(scores[f"last_round{suffix}"]))
                for suffix, title in LAST.items()
            ),
            *(
                (f"images that show the subject, {title}", *_cells(scores[f"subject_{way}"]))
                for way, title in TITLES.items()
                if f"subject_{way}" in scores
            ),
        ],
    )


def _cells(score: Mapping[str, Any]) -> tuple[str, str]:
    low, high = score["interval"] or (float("nan"), float("nan"))
    return f"{score['mean']:.3f}", f"{low:.3f} to {high:.3f}"
