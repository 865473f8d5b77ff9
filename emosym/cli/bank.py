"""`emosym bank ...`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from emosym.affect import Affect
from emosym.cli.files import SUFFIXES, expand_images
from emosym.cli.loading import identity, load_pipeline
from emosym.cli.options import (
    DEFAULT_MODEL,
    Arousal,
    AsJson,
    Device,
    Emotion,
    Model,
    Valence,
)
from emosym.cli.terminal import print_facts, print_json, print_table, progress, signed
from emosym.errors import UserError

if TYPE_CHECKING:
    from emosym.pipeline import EmoSymPipeline
    from memory_bank import Candidate

app = typer.Typer(help="Keep emotional images and find them again.", no_args_is_help=True)

Bank = Annotated[Path, typer.Argument(help="Folder of the memory bank.")]
Source = Literal["real", "synthetic"]
WANTED = ("valence", "arousal")
"""Keys of a query by affect."""


@app.command()
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
    as_json: AsJson = False,
) -> None:
    """Add images to a memory bank, all of them or (on an error) none.

    What the options do not say about an image, the request that `emosym generate` left in its
    file does. An image that the bank holds already is refused and listed, not an error.
    """
    from memory_bank import AdmissionPolicy, MemoryBank, admit

    paths = expand_images(images)
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
    with MemoryBank.open(bank, "a", model_hash=embedder) as store:
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


@app.command()
def search(
    bank: Bank,
    query: Annotated[
        str, typer.Argument(help="An image file, or affect such as 'valence=1 arousal=-2'.")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="Images to find.")] = 10,
    emotion: Annotated[str | None, typer.Option(help="Only images of this emotion.")] = None,
    source: Annotated[Source | None, typer.Option(help="Only images of this source.")] = None,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Find the images of a memory bank that evoke nearly what an image evokes, or some affect."""
    from emosym.taxonomy import mikels
    from memory_bank import MemoryBank

    emotion = mikels(emotion) if emotion is not None else None
    wanted = _query(query)
    # Affect is compared with what is on record: no model is needed.
    embedder = identity(model) if isinstance(wanted, Path) else None
    with MemoryBank.open(bank, model_hash=embedder) as store:
        if isinstance(wanted, Path):
            vectors = load_pipeline(model, device).embed_images([wanted])
            (hits,) = store.search(vectors, k, emotion=emotion, source=source)
            measure = "cosine"
        else:
            hits = store.search_affect(wanted, k, emotion=emotion, source=source)
            measure = "distance"
        records = [
            {
                "image": str(store.image_path(hit.entry)),
                measure: getattr(hit, measure),
                **asdict(hit.entry),
            }
            for hit in hits
        ]
    if as_json:
        print_json(records)
        return
    print_table(
        (measure, "image", "source", "emotion", "valence", "arousal", "prompt"),
        [
            (
                f"{record[measure]:.3f}",
                record["image"],
                record["source"],
                record["emotion"] or f"{record['predicted']} (predicted)",
                *(
                    signed(record[axis])
                    if record[axis] is not None
                    else f"{signed(record[f'predicted_{axis}'])} (predicted)"
                    for axis in ("valence", "arousal")
                ),
                record["prompt"] or "-",
            )
            for record in records
        ],
        title=f"{len(records)} nearest to {query}",
    )


@app.command()
def stats(bank: Bank, as_json: AsJson = False) -> None:
    """Show a memory bank in numbers."""
    from memory_bank import MemoryBank

    with MemoryBank.open(bank) as store:
        found = store.stats()
    if as_json:
        print_json({"bank": str(bank), **found})
        return
    numbers = {key: value for key, value in found.items() if not isinstance(value, dict)}
    print_facts(numbers, title=str(bank))
    counts, drawn = found["by_emotion"], found["by_emotion_synthetic"]
    print_table(
        ("emotion", "images", "synthetic"),
        [(name, str(count), str(drawn[name])) for name, count in counts.items()],
    )


def _drafts(paths: Sequence[Path], given: dict[str, object]) -> list[Candidate]:
    """Return what is known of each image before the model looks; raise UserError for bad ones."""
    import numpy as np

    from emosym.imprint import read_imprint
    from memory_bank import Candidate
    from memory_bank.images import read_image

    drafts: list[Candidate] = []
    with progress("checking images", len(paths)) as show:
        for done, path in enumerate(paths, start=1):
            read_image(path)
            known: dict[str, object] = {"source": "real"}
            imprint = read_imprint(path)
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
    from memory_bank import contrast, fingerprint

    candidates: list[Candidate] = []
    with progress("understanding", len(drafts)) as show:
        for start in range(0, len(drafts), pipeline.batch_size):
            batch = drafts[start : start + pipeline.batch_size]
            images = [load_image(draft.image) for draft in batch]
            seen, vectors = pipeline.recognise(images)
            for draft, image, one, vector in zip(batch, images, seen, vectors, strict=True):
                candidates.append(
                    replace(
                        draft,
                        embedding=vector,
                        predicted=one.emotion,
                        predicted_valence=one.valence,
                        predicted_arousal=one.arousal,
                        confidence=one.probabilities[draft.emotion or one.emotion],
                        contrast=contrast(image),
                        fingerprint=fingerprint(image),
                    )
                )
            show(len(candidates), len(drafts))
    return candidates


def _query(text: str) -> Path | Affect:
    """Read a query: a file, or `valence=V arousal=A`. Raises UserError for any other."""
    if Path(text).is_file():
        return Path(text)
    if Path(text).suffix.lower() in SUFFIXES:
        raise UserError(f"no such image: {text}", expected="an image file, or affect")
    words = [word.partition("=") for word in re.split(r"[\s,;]+", text.strip())]
    fields = {key: _number(key, value) for key, equals, value in words if equals}
    if set(fields) != set(WANTED) or len(words) != len(WANTED):
        raise UserError(
            "the query says neither an image nor affect",
            got=repr(text),
            expected="an image file, or 'valence=V arousal=A' with numbers in [-3, 3]",
            fix="for one emotion alone add --emotion NAME",
        )
    return Affect(**fields)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(
            f"{name} is not a number", got=repr(text), expected="a number in [-3, 3]"
        ) from None
