"""Score a model on the valence-arousal plane: `python -m eval.generation.plane MODEL`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Annotated

import typer

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
from emosym.records import ImageRequest

if TYPE_CHECKING:
    from eval.generation.affect_plane import PlaneScores
    from eval.generation.measure import EvalRequest

PROMPTS = 24
MOST_PROMPTS = 10_000
"""A typing slip beyond it would fill the memory."""
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

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def plane(
    model: Annotated[
        str, typer.Argument(help="Name in the model zoo, or a model folder.")
    ] = DEFAULT_MODEL,
    prompts: Annotated[
        int, typer.Option(min=1, max=MOST_PROMPTS, help="Prompts, all subjects alike.")
    ] = PROMPTS,
    images: Annotated[
        int, typer.Option(min=1, max=100, help="Images of a prompt at each of the 25 points.")
    ] = 2,
    seed: Annotated[
        int, typer.Option(min=0, max=LAST_SEED, help="Of the prompts; images: SEED, SEED + 1, ...")
    ] = 0,
    guidance: GuidanceScale = None,
    steps: InferenceSteps = None,
    judge: Annotated[
        str | None, typer.Option(help="Model that judges the images; default: the model itself.")
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Ask for prompts of AffectWorld at 25 points of valence and arousal, and score the images.

    Sentences and noise follow from the seed alone, so two models are asked the same.
    """
    from emosym.inference.pipeline import EmoSymPipeline, check_sampling

    check_sampling(steps, guidance)
    device = device or default_device()
    pipeline = EmoSymPipeline.from_pretrained(model, device=device)
    judged_by = EmoSymPipeline.from_pretrained(judge, device=device) if judge else pipeline

    from data_tools.affectworld.truth import oracle
    from eval.generation.affect_plane import evaluate_plane
    from eval.generation.attainable import attainable
    from eval.generation.subject import SubjectClassifier

    with progress("prompts", prompts) as show:
        scores = evaluate_plane(
            pipeline,
            world_prompts(prompts, seed),
            judge=judged_by,
            oracle=oracle,
            attainable=attainable,
            classify=SubjectClassifier.load(),
            seeds=range(seed, seed + images),
            guidance=guidance,
            steps=steps,
            progress=show,
        )
    config = pipeline.model.config
    setting = {
        "model": model,
        "judge": judge or model,
        "seed": seed,
        "guidance": config.guidance if guidance is None else guidance,
        "steps": config.steps if steps is None else steps,
    }
    if as_json:
        print_json(setting | scores.to_dict())
    else:
        _print(setting, scores)


def world_prompts(count: int, seed: int) -> list[EvalRequest]:
    """Return neutral prompts of drawn scenes, the subjects in turn; a few are the first of many.

    Each seed begins with the subject after that of the seed before.

    AffectWorld has 2,160 sentences, so a model that was trained on thousands of its pictures has
    met most of them: held out are the points asked of each and the noise, not the words.
    """
    from data_tools.affectworld.scene import SUBJECTS, draw_scene
    from data_tools.affectworld.text import neutral_prompt
    from eval.generation.measure import EvalRequest

    rng = random.Random(f"plane {seed}")
    found: list[EvalRequest] = []
    for place in range(count):
        subject = SUBJECTS[(seed + place) % len(SUBJECTS)]
        prompt = neutral_prompt(draw_scene(rng, subject, 0.5, 0.5))  # light is no word of it
        found.append(EvalRequest(request=ImageRequest(prompt=prompt), subject=subject))
    return found


def _print(setting: dict[str, object], scores: PlaneScores) -> None:
    rows = [
        (title, f"{value:.3f}", _span(scores.intervals[name]))
        for name, title in TITLES.items()
        if (value := getattr(scores, name)) is not None
    ]
    for axis, along in scores.continuity.items():
        for name, title in CONTINUITY.items():
            if (value := getattr(along.mean, name)) is not None:
                rows.append((f"{axis}: {title}", f"{value:.3f}", _span(along.intervals[name])))
    about = ", ".join(f"{name} {value}" for name, value in setting.items())
    print_table(
        ("", "mean", "95 %"),
        rows,
        title=f"{scores.prompts} prompts x {len(scores.cells)} points x {scores.seeds}; {about}",
    )


CONTINUITY = {
    "spearman": "Spearman, asked and judged",
    "colour_step": "colour step",
    "embedding_step": "embedding step",
    "unevenness": "unevenness",
}


def _span(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


if __name__ == "__main__":
    guard.run(app, "python -m eval.generation.plane")
