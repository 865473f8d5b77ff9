"""`emosym generate --sweep`: one request at several values of valence, arousal or both."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from PIL import Image

from emosym.cli.drawing import draw, warn_untrained
from emosym.cli.files import check_new, png_or_folder
from emosym.cli.loading import load_pipeline, model_hash
from emosym.console.progress import progress
from emosym.console.tables import print_table, signed_affect
from emosym.console.terminal import print_json
from emosym.diffusion.guidance import Scale
from emosym.files import write_file
from emosym.inference.continuity import Continuity, small_pixels
from emosym.inference.inputs import check_sampling, complete
from emosym.inference.sheets import affect_sheet, caption, sheet_png
from emosym.inference.sweep import POINTS, Axis, Over, sweep
from emosym.records import ImageRequest

SHEET = "sheet.png"
"""Name of the sheet in a folder."""


def generate_sweep(
    out: Path,
    request: ImageRequest,
    over: Over,
    points: int | None,
    *,
    valence: float | None,
    arousal: float | None,
    seed: int,
    guidance_scale: Scale | None,
    num_inference_steps: int | None,
    overwrite: bool,
    model: str,
    device: str | None,
    as_json: bool,
) -> None:
    """Generate, judge and write a sweep; on an error nothing is written.

    `valence` and `arousal` are the values of an axis that is not swept, see `inference.sweep`.
    Each image has the same bytes as from `emosym generate` with its request and seed.
    """
    swept = sweep(over, points or POINTS, valence=valence, arousal=arousal)
    requests = [complete(one) for one in swept.requests(request)]
    check_sampling(num_inference_steps, guidance_scale)
    folder = out if png_or_folder(out) == "folder" else None
    sheet = out if folder is None else folder / SHEET
    files = [] if folder is None else [folder / _name(one) for one in requests]
    if not overwrite:
        check_new([sheet, *files])
    pipeline = load_pipeline(model, device)
    warn_untrained(pipeline)
    hashed = model_hash(model)
    drawn: list[tuple[Image.Image, bytes]] = []
    with progress("generating", len(requests)) as show:
        for one in requests:
            drawn.append(
                draw(
                    pipeline,
                    one,
                    seed,
                    guidance_scale=guidance_scale,
                    num_inference_steps=num_inference_steps,
                    model_hash=hashed,
                )
            )
            show(len(drawn), len(requests))
    images = [image for image, _ in drawn]
    judged, embeddings = pipeline.recognise(images)
    measured = swept.continuity(judged, small_pixels(images), embeddings)

    for file, (_, png) in zip(files, drawn, strict=bool(files)):
        write_file(file, png)
    title = caption(ImageRequest(prompt=requests[0].prompt, emotion=requests[0].emotion))
    across, up = swept.labels
    write_file(sheet, sheet_png(affect_sheet(images, title.replace("\n", ", "), across, up)))

    if as_json:
        continuity = {axis: asdict(measures) for axis, measures in measured.items()}
        records = [
            {
                "image": str(files[index]) if files else None,
                **one.to_dict(),
                "seed": seed,
                "judged_valence": judgement.affect.valence,
                "judged_arousal": judgement.affect.arousal,
                "judged_emotion": judgement.emotion,
            }
            for index, (one, judgement) in enumerate(zip(requests, judged, strict=True))
        ]
        print_json({"sheet": str(sheet), "images": records, "continuity": continuity})
        return
    print_table(
        ("image", "valence", "judged", "arousal", "judged"),
        [
            (
                str(files[index]) if files else "-",
                requested[0],
                predicted[0],
                requested[1],
                predicted[1],
            )
            for index, (one, judgement) in enumerate(zip(requests, judged, strict=True))
            for requested, predicted in [
                (signed_affect(one.affect), signed_affect(judgement.affect))
            ]
        ],
        title=str(sheet),
    )
    _print_continuity(measured)


def _print_continuity(measured: dict[Axis, Continuity]) -> None:
    print_table(
        ("along", "Spearman, requested and judged", "colour step", "embedding step", "unevenness"),
        [
            (
                axis,
                f"{one.spearman:+.2f}",
                f"{one.colour_step:.3f}",
                f"{one.embedding_step:.3f}",
                "-" if one.unevenness is None else f"{one.unevenness:.2f}",
            )
            for axis, one in measured.items()
        ],
    )


def _name(request: ImageRequest) -> str:
    if request.affect is None:
        raise ValueError("a request of a sweep has an affect")
    valence, arousal = request.affect.coordinates
    return f"valence{valence:+.2f}_arousal{arousal:+.2f}.png"
