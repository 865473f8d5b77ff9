"""`emosym bank add`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emosym.cli.bank.options import Source, Wait
from emosym.cli.files import expand_images
from emosym.cli.loading import identity, load_pipeline
from emosym.console.options import (
    DEFAULT_MODEL,
    Arousal,
    AsJson,
    Device,
    Emotion,
    Model,
    Plugins,
    Valence,
)
from emosym.console.terminal import print_json, print_table, progress
from emosym.errors import UserError

if TYPE_CHECKING:
    from emosym.inference.pipeline import EmoSymPipeline
    from memory_bank import Candidate


def add(
    bank: Annotated[Path, typer.Argument(help="Folder of the memory bank; made when missing.")],
    images: Annotated[list[Path], typer.Argument(help="PNG or JPEG files, or folders of them.")],
    emotion: Emotion = None,
    valence: Valence = None,
    arousal: Arousal = None,
    source: Annotated[
        Source | None,
        typer.Option(help="Default: synthetic for what `emosym generate` made, else real."),
    ] = None,
    gated: Annotated[
        bool, typer.Option("--gated", help="Ask the admission gates; default: keep all.")
    ] = False,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    plugins: Plugins = None,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Add images to a memory bank, all of them or (on an error) none.

    What the options do not say about an image, the request that `emosym generate` left in its
    file does. An image that the bank holds already is refused and listed, not an error. Sheets of
    images, as `emosym generate --sweep` leaves them, are left out and listed.
    """
    from emosym.inference.sheets import is_sheet
    from memory_bank import AdmissionPolicy, MemoryBank, admit

    found = expand_images(images)
    sheets = [path for path in found if is_sheet(path)]
    paths = [path for path in found if path not in sheets]
    if not paths:
        raise UserError("nothing to add", got=f"only sheets of images, such as {sheets[0]}")
    drafts = _drafts(
        paths, {"emotion": emotion, "valence": valence, "arousal": arousal, "source": source}
    )
    embedder = identity(model)
    exists = bank.is_file() or (bank.is_dir() and any(bank.iterdir()))
    if exists:  # a wrong bank is told before the long work
        MemoryBank.open(bank, model_hash=embedder).close()
    pipeline = load_pipeline(model, device)
    candidates = _judged(drafts, pipeline)
    if not exists:
        width = pipeline.model.understander.backbone.width
        MemoryBank.create(bank, width, embedder).close()
    with MemoryBank.open(bank, "a", model_hash=embedder, wait=wait) as store:
        if gated:
            ruling = admit(candidates, store, AdmissionPolicy())
            recorded = store.record(ruling.decisions, evict=ruling.evict)
        else:
            recorded = store.add(candidates)
        stats = store.stats()
    fates = {id(one.candidate): one for one in (*recorded.admitted, *recorded.refused)}
    records = [
        {
            "image": str(candidate.image),
            "admitted": fates[id(candidate)].admitted,
            "reason": fates[id(candidate)].reason,
            "emotion": candidate.emotion,
            "predicted": candidate.predicted,
            "confidence": candidate.confidence,
        }
        for candidate in candidates
    ]
    if as_json:
        print_json(
            {
                "bank": str(bank),
                "version": recorded.version,
                "size": stats["size"],
                "admitted": len(recorded.admitted),
                "refused": len(recorded.refused),
                "images": records,
                "sheets": [str(sheet) for sheet in sheets],
            }
        )
        return
    print_table(
        ("image", "", "why", "emotion", "its probability", "judged"),
        [
            (
                record["image"],
                "kept" if record["admitted"] else "refused",
                record["reason"],
                record["emotion"] or "-",
                f"{record['confidence']:.0%}",
                record["predicted"],
            )
            for record in records
        ],
        title=f"{bank}: version {recorded.version}, {stats['size']} images",
    )
    for sheet in sheets:
        print(f"left out, as it is a sheet of images: {sheet}")


def _drafts(paths: Sequence[Path], given: dict[str, object]) -> list[Candidate]:
    """Return what is known of each image before the model looks; raise UserError for bad ones."""
    import numpy as np

    from emosym.inference.png_metadata import read_png_metadata
    from memory_bank import Candidate
    from memory_bank.store.images import read_image

    drafts: list[Candidate] = []
    with progress("checking images", len(paths)) as show:
        for done, path in enumerate(paths, start=1):
            read_image(path)
            known: dict[str, object] = {"source": "real"}
            imprint = read_png_metadata(path)
            if imprint is not None:
                known = {"source": "synthetic", **asdict(imprint.request)}
                known |= {"seed": imprint.seed, "model_hash": imprint.model}
            known |= {key: value for key, value in given.items() if value is not None}
            drafts.append(Candidate(image=path, embedding=np.empty(0), **known))
            show(done, len(paths))
    return drafts


def _judged(drafts: Sequence[Candidate], pipeline: EmoSymPipeline) -> list[Candidate]:
    """Return the candidates with embeddings and the model's own view of them."""
    from data_tools.images import load_image
    from memory_bank import candidate_from

    candidates: list[Candidate] = []
    with progress("understanding", len(drafts)) as show:
        for start in range(0, len(drafts), pipeline.batch_size):
            batch = drafts[start : start + pipeline.batch_size]
            images = [load_image(draft.image) for draft in batch]
            seen, vectors = pipeline.recognise(images)
            for draft, image, one, vector in zip(batch, images, seen, vectors, strict=True):
                candidates.append(candidate_from(draft, draft.image, image, one, vector))
            show(len(candidates), len(drafts))
    return candidates
