"""`emosym generate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from emosym.cli.files import check_new, png_or_folder
from emosym.cli.loading import identity, load_pipeline
from emosym.console.options import (
    DEFAULT_MODEL,
    LAST_SEED,
    MOST_IMAGES,
    MOST_POINTS,
    Arousal,
    AsJson,
    Device,
    Emotion,
    Model,
    Valence,
)
from emosym.console.terminal import print_json, print_table, progress, signed
from emosym.errors import UserError
from emosym.files import write_file
from emosym.records import ImageRequest


def generate(
    out: Annotated[
        Path, typer.Option(help="A .png file, or a folder: its files are named by their seeds.")
    ],
    prompt: Annotated[str, typer.Option(help="What the image shows.")] = "",
    emotion: Emotion = None,
    valence: Valence = None,
    arousal: Arousal = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_IMAGES, help="Images, from seeds SEED, SEED + 1, ... [1]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Seed of the first image.")] = 0,
    guidance: Annotated[
        float | None, typer.Option(help="How hard to follow the request; default: the model's.")
    ] = None,
    from_space: Annotated[
        bool, typer.Option("--from-space", help="Draw --emotion from the model's emotion space.")
    ] = False,
    blend: Annotated[
        str | None,
        typer.Option(help="Draw a blend from the model's emotion space, e.g. awe=0.7,fear=0.3"),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps; default: the model's.")] = None,
    sweep: Annotated[
        Literal["valence", "arousal", "plane"] | None,
        typer.Option(help="The same request and seed from -3 to 3 along an axis, or all over."),
    ] = None,
    points: Annotated[
        int | None, typer.Option(min=2, max=MOST_POINTS, help="Points on an axis of a sweep. [5]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files.")] = False,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Generate images from a prompt, an emotion, valence and arousal, or all of them.

    An emotion alone brings its own valence and arousal: those of its word, or of images that evoke
    it where it is drawn from the emotion space. The same request, seed, model and device give the
    same bytes, however many images are asked for. Each PNG carries its request, so that `emosym
    bank add` knows what it should evoke.

    A sweep is written as one labelled sheet: to --out itself if that is a .png, else as sheet.png
    beside the single images. It also says how the model judges them. An axis that is not swept
    stays as given, or at 0.
    """
    from emosym.inference.pipeline import check_sampling, complete

    request = ImageRequest(prompt=prompt, emotion=emotion, valence=valence, arousal=arousal)
    if sweep is not None:
        for option, given in {
            "--count": count is not None,
            "--from-space": from_space,
            "--blend": blend is not None,
        }.items():
            if given:
                raise UserError(
                    f"{option} has nothing to act on", got="--sweep", fix="leave it out"
                )
        from emosym.cli.sweep import generate_sweep

        generate_sweep(
            out,
            request,
            sweep,
            points,
            seed=seed,
            guidance=guidance,
            steps=steps,
            overwrite=overwrite,
            model=model,
            device=device,
            as_json=as_json,
        )
        return
    if points is not None:
        raise UserError("--points has nothing to act on", got="no --sweep", fix="give --sweep")
    count = count or 1
    space = _space(request, blend, from_space=from_space)
    if space is None:
        request = complete(request)
    check_sampling(steps, guidance)
    targets = _targets(out, range(seed, seed + count), overwrite)
    pipeline = load_pipeline(model, device)

    from emosym.cli.drawing import draw

    maker = identity(model)
    requests = dict.fromkeys(targets, request)
    with progress("generating", count) as show:
        for done, (own, target) in enumerate(targets.items(), start=1):
            if space is not None:
                (requests[own],) = pipeline.wanted(space, prompt=prompt, seed=own)
            _, png = draw(
                pipeline,
                requests[own],
                own,
                guidance=guidance,
                steps=steps,
                maker=maker,
                space=space,
            )
            write_file(target, png)
            show(done, count)
    drawn = {} if space is None else {"space": space}
    records = [
        {"image": str(path), **asdict(requests[own]), "seed": own, **drawn}
        for own, path in targets.items()
    ]
    if as_json:
        print_json(records)
        return
    print_table(
        ("image", "prompt", "emotion", "valence", "arousal", "seed"),
        [
            (
                record["image"],
                record["prompt"],
                record["emotion"] or "-",
                signed(record["valence"]),
                signed(record["arousal"]),
                str(record["seed"]),
            )
            for record in records
        ],
    )


def _space(
    request: ImageRequest, blend: str | None, *, from_space: bool
) -> dict[str, float] | None:
    """Return the shares of emotions to draw from the emotion space; None for a request in words.

    Raises:
        UserError: a blend that is none, options that do not go together.
    """
    from emosym.models.emotion_space import blend_shares

    if blend is None and not from_space:
        return None
    if request.valence is not None or request.arousal is not None:
        raise UserError(
            "valence and arousal come from the emotion space",
            fix="leave out --valence and --arousal, or --from-space and --blend",
        )
    if (blend is None) == (request.emotion is None):
        raise UserError(
            "the emotion space is asked for one emotion or for a blend",
            got="both --emotion and --blend" if blend else "neither --emotion nor --blend",
            expected="--emotion NAME --from-space, or --blend NAME=SHARE,...",
        )
    if blend is None:
        return blend_shares({request.emotion: 1.0})
    weights: dict[str, float] = {}
    for part in blend.split(","):
        name, _, weight = (word.strip() for word in part.partition("="))
        try:
            value = float(weight)
        except ValueError:
            raise UserError(
                "a blend that cannot be read",
                got=repr(part),
                expected="awe=0.7,fear=0.3 and the like",
            ) from None
        if name in weights:
            raise UserError(f"{name} comes twice in a blend")
        weights[name] = value
    return blend_shares(weights)


def _targets(out: Path, seeds: range, overwrite: bool) -> dict[int, Path]:
    """Return the file of each seed; raise UserError where one cannot or may not be written."""
    if png_or_folder(out) == "folder":
        targets = {own: out / f"{own}.png" for own in seeds}
    elif len(seeds) == 1:
        targets = {seeds[0]: out}
    else:
        raise UserError(
            f"{len(seeds)} images do not fit into one file",
            got=f"--out {out}",
            expected="a folder",
        )
    if not overwrite:
        check_new(list(targets.values()))
    return targets
