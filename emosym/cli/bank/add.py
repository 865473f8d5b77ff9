"""`emosym bank add`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emosym.cli.bank.options import Source, Wait
from emosym.cli.files import MOST_NAMED, expand_images, notice
from emosym.cli.loading import load_pipeline, model_hash
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
from emosym.console.progress import progress
from emosym.console.tables import print_table
from emosym.console.terminal import print_json
from emosym.errors import UserError

if TYPE_CHECKING:
    from emosym.inference.pipeline import EmoSymPipeline
    from memory_bank import Candidate


def add(
    bank: Annotated[Path, typer.Argument(help="Folder of the memory bank; created if missing.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    emotion: Emotion = None,
    valence: Valence = None,
    arousal: Arousal = None,
    source: Annotated[
        Source | None,
        typer.Option(help="Default: synthetic for images of `emosym generate`, else real."),
    ] = None,
    gated: Annotated[
        bool, typer.Option("--gated", help="Apply the admission gates; default: add all.")
    ] = False,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    plugins: Plugins = None,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Add images to a memory bank; on an error none is added.

    Values that no option gives are read from the metadata that `emosym generate` wrote to the file.
    An image that is in the bank already is refused and listed; that is no error. Sheets of images,
    as from `emosym generate --sweep`, are skipped and listed.
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
    embedder = model_hash(model)
    exists = bank.is_file() or (bank.is_dir() and any(bank.iterdir()))
    if exists:  # checked first: an unsuitable bank is an error before any image is embedded
        MemoryBank.open(bank, model_hash=embedder).close()
    pipeline = load_pipeline(model, device)
    candidates = _judged(paths, drafts, pipeline)
    if not exists:
        width = pipeline.model.understander.backbone.width
        MemoryBank.create(bank, width, embedder).close()
    with MemoryBank.open(bank, "a", model_hash=embedder, wait=wait) as store:
        unchecked: dict[str, str] = {}
        if gated:
            ruling = admit(candidates, store, AdmissionPolicy())
            unchecked = ruling.unchecked
            recorded = store.record(ruling.decisions, evict=ruling.evict)
        else:
            recorded = store.add(candidates)
        stats = store.stats()
        came = store.diff(recorded.version - 1, recorded.version).came
    # Ids are given in the order of the decisions.
    ids = {id(one.candidate): new.id for one, new in zip(recorded.admitted, came, strict=True)}
    fates = {id(one.candidate): one for one in (*recorded.admitted, *recorded.refused)}
    records: list[dict[str, Any]] = [
        {
            "image": str(candidate.image),
            "id": ids.get(id(candidate)),
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
                "unchecked": unchecked,
                "images": records,
                "sheets": [str(sheet) for sheet in sheets],
            }
        )
        return
    print_table(
        ("id", "image", "outcome", "emotion", "prob.", "predicted"),
        [
            (
                str(record["id"] or "-"),
                Path(record["image"]).name,
                "added" if record["admitted"] else f"refused: {record['reason']}",
                record["emotion"] or "-",
                f"{record['confidence']:.0%}",
                record["predicted"],
            )
            for record in records
        ],
        title=f"{bank}: version {recorded.version}, {stats['size']} images",
        cut=("image", "outcome"),
    )
    if unchecked:
        lacks = ", ".join(f"{gate} ({why})" for gate, why in unchecked.items())
        print(f"gates not applied in full: {lacks}")
    for sheet in sheets:
        print(f"skipped, as it is a sheet of images: {sheet}")


def _drafts(paths: Sequence[Path], given: dict[str, object]) -> list[Candidate]:
    """Return candidates without predictions; raise UserError for a bad image or value."""
    import numpy as np

    from emosym.inference.png_metadata import read_png_metadata
    from emosym.pictures.loading import UnreadableImage
    from memory_bank import Candidate
    from memory_bank.store.images import read_image

    drafts: list[Candidate] = []
    broken: list[tuple[Path, UnreadableImage]] = []
    with progress("checking images", len(paths)) as show:
        for done, path in enumerate(paths, start=1):
            try:
                read_image(path)
            except UnreadableImage as error:
                broken.append((path, error))
                continue
            fields: dict[str, Any] = {"source": "real"}
            metadata = read_png_metadata(path)
            if metadata is not None:
                fields = {"source": "synthetic", **metadata.request.to_dict()}
                fields |= {"seed": metadata.seed, "model_hash": metadata.model}
            fields |= {key: value for key, value in given.items() if value is not None}
            drafts.append(Candidate(image=path, embedding=np.empty(0), **fields))
            show(done, len(paths))
    if len(broken) == 1:
        raise broken[0][1]
    if broken:
        named = [f"{path} ({error.reason})" for path, error in broken[:MOST_NAMED]]
        more = [f"and {len(broken) - MOST_NAMED} more"] if len(broken) > MOST_NAMED else []
        raise UserError(
            f"{len(broken)} of {len(paths)} files are no images that can be read",
            got=", ".join([*named, *more]),
            fix="replace them, or leave them out; nothing was added",
        )
    return drafts


def _judged(
    paths: Sequence[Path], drafts: Sequence[Candidate], pipeline: EmoSymPipeline
) -> list[Candidate]:
    """Return the candidates with embeddings and predictions of the model."""
    from emosym.pictures.loading import load_image
    from memory_bank import candidate_from

    candidates: list[Candidate] = []
    guessed: list[Path] = []
    known = pipeline.model.training_images
    with progress("understanding", len(drafts)) as show:
        for start in range(0, len(drafts), pipeline.batch_size):
            batch = drafts[start : start + pipeline.batch_size]
            images = [load_image(path) for path in paths[start : start + pipeline.batch_size]]
            seen, vectors = pipeline.recognise(images)
            for draft, image, one, vector in zip(batch, images, seen, vectors, strict=True):
                candidates.append(candidate_from(draft, draft.image, image, one, vector))
                if known is not None and draft.source == "real" and known.unlike(image):
                    guessed.append(paths[len(candidates) - 1])
            show(len(candidates), len(drafts))
    notice("unlike the images that the model was trained on, so predictions are guesses", guessed)
    return candidates
