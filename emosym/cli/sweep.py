"""`emosym generate --sweep`: one request along an axis of affect, or across the plane."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from PIL import Image

from emosym.cli.drawing import draw
from emosym.cli.files import check_new, png_or_folder
from emosym.cli.loading import identity, load_pipeline
from emosym.console.terminal import print_json, print_table, progress, signed
from emosym.files import write_file
from emosym.inference.continuity import Continuity, small_pixels
from emosym.inference.pipeline import check_sampling, complete
from emosym.inference.sheets import affect_sheet, caption, sheet_png
from emosym.inference.sweep import POINTS, Axis, Over, sweep
from emosym.records import ImageRequest

SHEET = "sheet.png"
"""Name of the sheet in a folder."""


def generate_sweep(
    out: Path,
    asked: ImageRequest,
    over: Over,
    points: int | None,
    *,
    seed: int,
    guidance: float | None,
    steps: int | None,
    overwrite: bool,
    model: str,
    device: str | None,
    as_json: bool,
) -> None:
    """Draw, judge and write a sweep, all of it or (on an error) nothing.

    Each image has the bytes that `emosym generate` gives its request and seed.
    """
    swept = sweep(over, points or POINTS, valence=asked.valence, arousal=asked.arousal)
    requests = [complete(request) for request in swept.requests(asked)]
    check_sampling(steps, guidance)
    folder = out if png_or_folder(out) == "folder" else None
    sheet = out if folder is None else folder / SHEET
    files = [] if folder is None else [folder / _name(request) for request in requests]
    if not overwrite:
        check_new([sheet, *files])
    pipeline = load_pipeline(model, device)
    maker = identity(model)
    drawn: list[tuple[Image.Image, bytes]] = []
    with progress("generating", len(requests)) as show:
        for request in requests:
            drawn.append(draw(pipeline, request, seed, guidance=guidance, steps=steps, maker=maker))
            show(len(drawn), len(requests))
    images = [image for image, _ in drawn]
    judged, embeddings = pipeline.recognise(images)
    found = swept.continuity(judged, small_pixels(images), embeddings)

    for file, (_, png) in zip(files, drawn, strict=bool(files)):
        write_file(file, png)
    title = caption(ImageRequest(prompt=requests[0].prompt, emotion=requests[0].emotion))
    across, up = swept.labels
    write_file(sheet, sheet_png(affect_sheet(images, title.replace("\n", ", "), across, up)))

    records = [
        {
            "image": str(files[place]) if files else None,
            **asdict(request),
            "seed": seed,
            "judged_valence": one.valence,
            "judged_arousal": one.arousal,
            "judged_emotion": one.emotion,
        }
        for place, (request, one) in enumerate(zip(requests, judged, strict=True))
    ]
    if as_json:
        continuity = {axis: asdict(measured) for axis, measured in found.items()}
        print_json({"sheet": str(sheet), "images": records, "continuity": continuity})
        return
    print_table(
        ("image", "valence", "judged", "arousal", "judged"),
        [
            (
                record["image"] or "-",
                *(
                    signed(record[key])
                    for axis in ("valence", "arousal")
                    for key in (axis, f"judged_{axis}")
                ),
            )
            for record in records
        ],
        title=str(sheet),
    )
    _print_continuity(found)


def _print_continuity(found: dict[Axis, Continuity]) -> None:
    print_table(
        ("along", "Spearman, asked and judged", "colour step", "embedding step", "unevenness"),
        [
            (
                axis,
                f"{one.spearman:+.2f}",
                f"{one.colour_step:.3f}",
                f"{one.embedding_step:.3f}",
                "-" if one.unevenness is None else f"{one.unevenness:.2f}",
            )
            for axis, one in found.items()
        ],
    )


def _name(request: ImageRequest) -> str:
    return f"valence{request.valence:+.2f}_arousal{request.arousal:+.2f}.png"
