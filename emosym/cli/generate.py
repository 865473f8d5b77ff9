"""`emosym generate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emosym.cli.files import SUFFIXES, write_file
from emosym.cli.loading import identity, load_pipeline
from emosym.cli.options import (
    DEFAULT_MODEL,
    LAST_SEED,
    MOST_IMAGES,
    Arousal,
    AsJson,
    Device,
    Emotion,
    Model,
    Valence,
)
from emosym.cli.terminal import print_json, print_table, progress, signed
from emosym.errors import UserError
from emosym.records import ImageRequest

if TYPE_CHECKING:
    from PIL import Image

    from emosym.pipeline import EmoSymPipeline


def generate(
    out: Annotated[
        Path, typer.Option(help="A .png file, or a folder: its files are named by their seeds.")
    ],
    prompt: Annotated[str, typer.Option(help="What the image shows.")] = "",
    emotion: Emotion = None,
    valence: Valence = None,
    arousal: Arousal = None,
    count: Annotated[
        int, typer.Option(min=1, max=MOST_IMAGES, help="Images, from seeds SEED, SEED + 1, ...")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Seed of the first image.")] = 0,
    guidance: Annotated[
        float | None, typer.Option(help="How hard to follow the request; default: the model's.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps; default: the model's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files.")] = False,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Generate images from a prompt, an emotion, valence and arousal, or all of them.

    An emotion alone brings its own valence and arousal. The same request, seed, model and device
    give the same bytes, however many images are asked for. Each PNG carries its request, so that
    `emosym bank add` knows what it should evoke.
    """
    from emosym.pipeline import check_sampling, complete

    request = complete(
        ImageRequest(prompt=prompt, emotion=emotion, valence=valence, arousal=arousal)
    )
    check_sampling(steps, guidance)
    targets = _targets(out, range(seed, seed + count), overwrite)
    pipeline = load_pipeline(model, device)

    maker = identity(model)
    with progress("generating", count) as show:
        for done, (own, target) in enumerate(targets.items(), start=1):
            # One at a time: in a larger batch sums round otherwise, and bytes would differ.
            (image,) = pipeline.generate([request], seed=own, guidance=guidance, steps=steps)
            write_file(target, png_of(image, request, own, pipeline, guidance, steps, maker))
            show(done, count)
    records = [
        {"image": str(path), **asdict(request), "seed": own} for own, path in targets.items()
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


def png_of(
    image: Image.Image,
    request: ImageRequest,
    seed: int,
    pipeline: EmoSymPipeline,
    guidance: float | None,
    steps: int | None,
    maker: str,
) -> bytes:
    """Return the PNG file of an image that the model `maker` drew, with its imprint."""
    from emosym.imprint import Imprint, to_png

    config = pipeline.model.config
    imprint = Imprint(
        request=request,
        seed=seed,
        guidance=config.guidance if guidance is None else guidance,
        steps=config.steps if steps is None else steps,
        model=maker,
    )
    return to_png(image, imprint)


def _targets(out: Path, seeds: range, overwrite: bool) -> dict[int, Path]:
    """Return the file of each seed; raise UserError where one cannot or may not be written."""
    suffix = out.suffix.lower()
    if suffix == ".png" and not out.is_dir():
        if len(seeds) > 1:
            raise UserError(
                f"{len(seeds)} images do not fit into one file",
                got=f"--out {out}",
                expected="a folder",
            )
        targets = {seeds[0]: out}
    elif suffix in SUFFIXES - {".png"}:
        raise UserError(
            "images are written as PNG",
            got=f"--out {out}",
            expected=f"{out.with_suffix('.png')}, or a folder",
        )
    else:
        targets = {own: out / f"{own}.png" for own in seeds}
    taken = [path for path in targets.values() if path.exists()]
    if taken and not overwrite:
        raise UserError(
            f"{taken[0]} exists",
            got=f"{len(taken)} of {len(targets)} files that exist" if len(targets) > 1 else None,
            fix="give another --out, or --overwrite",
        )
    return targets
