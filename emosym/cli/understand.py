"""`emosym understand`."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from emosym.cli.files import expand_images
from emosym.cli.loading import load_pipeline
from emosym.cli.options import DEFAULT_MODEL, AsJson, Device, Model
from emosym.cli.terminal import print_json, print_passage, progress, signed
from emosym.errors import UserError

TAGS = re.compile(r"(\s*</?(think|answer)>\s*)+")
"""What divides an answer for the parser; people get a line for each part."""


def understand(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Say which emotion each image evokes, with valence and arousal from -3 to 3.

    Every image is checked first: with a broken one nothing is printed but its name.
    """
    paths = expand_images(images)
    check_all(paths)
    pipeline = load_pipeline(model, device)
    records: list[dict[str, object]] = []
    with progress("understanding", len(paths)) as show:
        for start in range(0, len(paths), pipeline.batch_size):
            batch = paths[start : start + pipeline.batch_size]
            for path, found in zip(batch, pipeline.understand(batch), strict=True):
                records.append({"image": str(path), **asdict(found)})
            show(len(records), len(paths))
    if as_json:
        print_json(records)
        return
    for record in records:
        share = record["probabilities"][record["emotion"]]
        affect = f"valence {signed(record['valence'])}, arousal {signed(record['arousal'])}"
        print_passage(
            f"{record['image']}: {record['emotion']} {share:.0%}, {affect}",
            TAGS.sub("\n", record["answer"]).strip(),
        )


def check_all(paths: list[Path]) -> None:
    """Decode every image; raise one UserError that names those that cannot be read."""
    from data_tools.images import check_image
    from data_tools.quarantine import Broken

    broken: list[str] = []
    with progress("checking images", len(paths)) as show:
        for done, path in enumerate(paths, start=1):
            try:
                check_image(path)
            except Broken as reason:
                broken.append(f"{path}: {reason}")
            show(done, len(paths))
    if broken:
        raise UserError(
            f"cannot read {len(broken)} of {len(paths)} images",
            got=", ".join(broken[:3]) + (", ..." if len(broken) > 3 else ""),
            expected="whole image files (JPEG, PNG, ...)",
            fix="replace them or leave them out",
        )
