"""`python -m eval influence`: what a model's images follow, one source exchanged at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emosym.console.options import LAST_SEED, AsJson, Device, GuidanceScale, InferenceSteps
from emosym.console.tables import print_table
from emosym.console.terminal import print_json
from emosym.errors import UserError

if TYPE_CHECKING:
    from eval.generation.influence import InfluenceScores, Row

IMAGES = 96


def influence(
    model: Annotated[str, typer.Argument(help="Name in the model zoo, or a model folder.")],
    data: Annotated[Path, typer.Argument(help="Dataset folder or manifest.")],
    images: Annotated[int, typer.Option(min=2, help="Held-out images to draw again.")] = IMAGES,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Of images and noise.")] = 0,
    guidance_scale: GuidanceScale = None,
    num_inference_steps: InferenceSteps = None,
    judge: Annotated[
        str | None, typer.Option(help="Model that judges the images; default: the model itself.")
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Exchange states, valence and arousal, or the prompt for another image's, and score again.

    Attributes are read in pictures of AffectWorld only.
    """
    # Imported here, so that `--help` does not load torch.
    from data_tools.affectworld.truth import oracle
    from data_tools.affectworld.world import SOURCE, subject_of
    from data_tools.dataset import open_dataset
    from emosym.inference.inputs import check_sampling
    from emosym.inference.pipeline import EmoSymPipeline
    from eval.generation.attributes import AttributeReader
    from eval.generation.influence import evaluate_influence
    from eval.generation.requests import held_out

    check_sampling(num_inference_steps, guidance_scale)
    samples = held_out(open_dataset(data), images, seed)
    drawn = all(sample.source == SOURCE for sample in samples)
    if not samples:
        raise UserError(
            f"{data} has no image to draw again",
            expected="images of split 'test' with a label, valence and arousal",
        )
    pipeline = EmoSymPipeline.from_pretrained(model, device=device)
    scores = evaluate_influence(
        pipeline,
        samples,
        judge=EmoSymPipeline.from_pretrained(judge, device=device) if judge else pipeline,
        read=AttributeReader.load() if drawn else None,
        oracle=oracle if drawn else None,
        subject_of=subject_of,
        guidance_scale=guidance_scale,
        num_inference_steps=num_inference_steps,
        seed=seed,
    )
    setting = {"model": model, "judge": judge or model, "seed": seed}
    if as_json:
        print_json(setting | scores.to_dict())
    else:
        _print(setting, scores)


def _print(setting: dict[str, object], scores: InfluenceScores) -> None:
    about = ", ".join(f"{name} {value}" for name, value in setting.items())
    print_table(
        ("exchanged", "picture changes", "label seen", "r valence", "r arousal"),
        [
            (
                row.exchanged,
                _number(row.change),
                _label(row),
                _number(row.r_valence),
                _number(row.r_arousal),
            )
            for row in scores.rows
        ],
        title=f"{scores.images} images; {about}",
    )
    names = list(scores.rows[0].above_chance)
    if names:
        print_table(
            ("agreement above chance", *(name.replace("_", " ") for name in names)),
            [(row.exchanged, *(_above(row, name) for name in names)) for row in scores.rows],
        )
    if scores.plane_r_valence is not None and scores.plane_r_arousal is not None:
        print_table(
            ("25 points under the states of images", "r valence", "r arousal"),
            [("oracle", _number(scores.plane_r_valence), _number(scores.plane_r_arousal))],
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _label(row: Row) -> str:
    interval = row.intervals["label"]
    return f"{row.label:.3f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def _above(row: Row, name: str) -> str:
    """Return the mean, with an asterisk where its interval lies above 0."""
    interval = row.intervals[name]
    return f"{row.above_chance[name]:+.2f}" + ("*" if interval and interval[0] > 0 else "")
