"""`emosym generate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from emosym.affect.scales import Affect
from emosym.cli.files import check_new, png_or_folder
from emosym.cli.loading import load_pipeline, model_hash
from emosym.console.options import (
    DEFAULT_MODEL,
    MOST_IMAGES,
    MOST_POINTS,
    Arousal,
    AsJson,
    Device,
    Emotion,
    GuidanceScale,
    InferenceSteps,
    Model,
    Seed,
    Valence,
    named_numbers,
)
from emosym.console.progress import progress
from emosym.console.tables import print_table, signed_affect
from emosym.console.terminal import print_json
from emosym.errors import UserError
from emosym.files import write_file
from emosym.records import ImageRequest


def generate(
    out: Annotated[
        Path, typer.Option(help="A .png file, or a folder for files that are named by their seeds.")
    ],
    prompt: Annotated[str, typer.Option(help="What the image shows.")] = "",
    emotion: Emotion = None,
    valence: Valence = None,
    arousal: Arousal = None,
    num_images_per_prompt: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_IMAGES,
            metavar="N",
            help="Images, with the seeds SEED, SEED + 1, ... [1]",
        ),
    ] = None,
    seed: Seed = 0,
    guidance_scale: GuidanceScale = None,
    from_space: Annotated[
        bool, typer.Option("--from-space", help="Sample --emotion from the model's emotion space.")
    ] = False,
    blend: Annotated[
        str | None,
        typer.Option(help="Sample a blend from the model's emotion space, e.g. awe=0.7,fear=0.3."),
    ] = None,
    num_inference_steps: InferenceSteps = None,
    sweep: Annotated[
        Literal["valence", "arousal", "plane"] | None,
        typer.Option(
            metavar="AXIS",
            help="Vary valence, arousal or plane (both) from -3 to 3, with one seed.",
        ),
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(
            min=2, max=MOST_POINTS, metavar="N", help="Points on each axis of a sweep. [5]"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files.")] = False,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Generate images from a prompt, an emotion, valence and arousal, or all of them.

    An emotion implies valence and arousal: those of its word, or with --from-space those of images
    that evoke it. The same request, seed, model and device give the same bytes, for any number of
    images. Each PNG holds its request, which `emosym bank add` reads.

    A sweep is written as one labelled sheet: to --out if that is a .png, else to sheet.png next to
    the single images. The model's judgement of each image is printed. An axis that is not swept
    has the given value, or 0.
    """
    from emosym.inference.inputs import check_sampling, complete

    request = ImageRequest(prompt=prompt, emotion=emotion)
    if sweep is not None:
        for option, given in {
            "--num-images-per-prompt": num_images_per_prompt is not None,
            "--from-space": from_space,
            "--blend": blend is not None,
        }.items():
            if given:
                raise UserError(f"{option} has no effect with --sweep", fix="leave it out")
        from emosym.cli.sweep import generate_sweep

        generate_sweep(
            out,
            request,
            sweep,
            points,
            valence=valence,
            arousal=arousal,
            seed=seed,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            overwrite=overwrite,
            model=model,
            device=device,
            as_json=as_json,
        )
        return
    if points is not None:
        raise UserError("--points has no effect without --sweep", fix="give --sweep")
    count = num_images_per_prompt or 1
    given = valence is not None or arousal is not None
    space = _space(emotion, blend, from_space=from_space, affect_given=given)
    if space is None:
        request = complete(replace(request, affect=Affect.optional(valence, arousal)))
    check_sampling(num_inference_steps, guidance_scale)
    targets = _targets(out, range(seed, seed + count), overwrite)
    pipeline = load_pipeline(model, device)

    from emosym.cli.drawing import draw, warn_untrained

    warn_untrained(pipeline)
    hashed = model_hash(model)
    requests = dict.fromkeys(targets, request)
    with progress("generating", count) as show:
        for done, (image_seed, target) in enumerate(targets.items(), start=1):
            if space is not None:
                (requests[image_seed],) = pipeline.wanted(space, prompt=prompt, seed=image_seed)
            _, png = draw(
                pipeline,
                requests[image_seed],
                image_seed,
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
                model_hash=hashed,
                space=space,
            )
            write_file(target, png)
            show(done, count)
    if as_json:
        blend_of_all = {} if space is None else {"space": space}
        print_json(
            [
                {
                    "image": str(path),
                    **requests[image_seed].to_dict(),
                    "seed": image_seed,
                    **blend_of_all,
                }
                for image_seed, path in targets.items()
            ]
        )
        return
    print_table(
        ("image", "prompt", "emotion", "valence", "arousal", "seed"),
        [
            (
                str(path),
                one.prompt,
                one.emotion or "-",
                *signed_affect(one.affect),
                str(image_seed),
            )
            for image_seed, path in targets.items()
            for one in [requests[image_seed]]
        ],
    )


def _space(
    emotion: str | None, blend: str | None, *, from_space: bool, affect_given: bool
) -> dict[str, float] | None:
    """Return the shares of emotions to sample from the emotion space; None if it is not used.

    Raises:
        UserError: a blend that cannot be parsed, options that exclude each other.
    """
    from emosym.models.emotion_space import blend_shares

    if blend is None and not from_space:
        return None
    if affect_given:
        raise UserError(
            "--valence and --arousal exclude the emotion space",
            fix="leave out --valence and --arousal, or --from-space and --blend",
        )
    if (blend is None) == (emotion is None):
        raise UserError(
            "the emotion space takes one emotion or a blend",
            got="both --emotion and --blend" if blend else "neither --emotion nor --blend",
            expected="--emotion NAME --from-space, or --blend NAME=SHARE,...",
        )
    if emotion is not None:
        return blend_shares({emotion: 1.0})
    weights = named_numbers(blend or "", "the blend", "awe=0.7,fear=0.3")
    return blend_shares(weights)


def _targets(out: Path, seeds: range, overwrite: bool) -> dict[int, Path]:
    """Return the file of each seed; raise UserError if one exists, or if all need a folder."""
    if png_or_folder(out) == "folder":
        targets = {seed: out / f"{seed}.png" for seed in seeds}
    elif len(seeds) == 1:
        targets = {seeds[0]: out}
    else:
        raise UserError(
            f"{len(seeds)} images cannot be written to one file",
            got=f"--out {out}",
            expected="a folder",
        )
    if not overwrite:
        check_new(list(targets.values()))
    return targets
