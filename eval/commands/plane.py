"""`python -m eval plane`: score a model on the valence-arousal plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from eval.generation.affect_plane import PlaneScores

PROMPTS = 24
MOST_PROMPTS = 10_000
"""A larger number is a typing error that would fill the memory."""
TITLES = {
    "oracle_v_error": "valence error, oracle",
    "floor_v_error": "  of which the world's own",
    "oracle_a_error": "arousal error, oracle",
    "floor_a_error": "  of which the world's own",
    "oracle_error": "valence + arousal error, oracle",
    "floor_error": "  of which the world's own",
    "judge_v_error": "valence error, judge",
    "judge_a_error": "arousal error, judge",
    "judge_error": "valence + arousal error, judge",
    "subject_accuracy": "subject accuracy",
    "seed_diversity": "diversity of seeds",
    "prompt_diversity": "diversity of prompts",
}


def plane(
    model: Annotated[
        str, typer.Argument(help="Name in the model zoo, or a model folder.")
    ] = DEFAULT_MODEL,
    prompts: Annotated[
        int, typer.Option(min=1, max=MOST_PROMPTS, help="Prompts; the subjects take turns.")
    ] = PROMPTS,
    images: Annotated[
        int, typer.Option(min=1, max=100, help="Images of a prompt at each of the 25 points.")
    ] = 2,
    seed: Annotated[
        int, typer.Option(min=0, max=LAST_SEED, help="Of the prompts; images: SEED, SEED + 1, ...")
    ] = 0,
    guidance_scale: GuidanceScale = None,
    num_inference_steps: InferenceSteps = None,
    judge: Annotated[
        str | None, typer.Option(help="Model that judges the images; default: the model itself.")
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Generate prompts of AffectWorld at 25 points of valence and arousal, and score the images.

    Prompts and noise follow from the seed alone, so two models get the same requests.
    """
    from emosym.inference.inputs import check_sampling
    from emosym.inference.pipeline import EmoSymPipeline

    check_sampling(num_inference_steps, guidance_scale)
    pipeline = EmoSymPipeline.from_pretrained(model, device=device)
    judge_pipeline = EmoSymPipeline.from_pretrained(judge, device=device) if judge else pipeline

    from data_tools.affectworld.truth import oracle
    from eval.generation.affect_plane import evaluate_plane
    from eval.generation.attainable import attainable
    from eval.generation.requests import world_prompts
    from eval.generation.subject import SubjectClassifier

    with progress("prompts", prompts) as show:
        scores = evaluate_plane(
            pipeline,
            world_prompts(prompts, seed),
            judge=judge_pipeline,
            oracle=oracle,
            attainable=attainable,
            classify=SubjectClassifier.load(),
            seeds=range(seed, seed + images),
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            progress=show,
        )
    config = pipeline.model.config
    setting = {
        "model": model,
        "judge": judge or model,
        "seed": seed,
        "guidance": config.guidance if guidance_scale is None else guidance_scale,
        "steps": config.steps if num_inference_steps is None else num_inference_steps,
    }
    if as_json:
        print_json(setting | scores.to_dict())
    else:
        _print(setting, scores)


def _print(setting: dict[str, object], scores: PlaneScores) -> None:
    rows = [
        (title, f"{value:.3f}", _interval(scores.intervals[name]))
        for name, title in TITLES.items()
        if (value := getattr(scores, name)) is not None
    ]
    for axis, along in scores.continuity.items():
        for name, title in CONTINUITY.items():
            if (value := getattr(along.mean, name)) is not None:
                rows.append((f"{axis}: {title}", f"{value:.3f}", _interval(along.intervals[name])))
    about = ", ".join(f"{name} {value}" for name, value in setting.items())
    print_table(
        ("", "mean", "95 %"),
        rows,
        title=f"{scores.prompts} prompts x {len(scores.cells)} points x {scores.seeds}; {about}",
    )


CONTINUITY = {
    "spearman": "Spearman, requested and judged",
    "colour_step": "colour step",
    "embedding_step": "embedding step",
    "unevenness": "unevenness",
}


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
