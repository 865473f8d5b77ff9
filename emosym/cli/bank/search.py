"""`emosym bank search`."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from emosym.affect.scales import Affect
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
from emosym.console.terminal import print_json
from emosym.errors import UserError
from emosym.pictures.formats import SUFFIXES

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
    with the prompts by BM25 (a prompt need not have all of them). Only an image needs the model.
    """
    from memory_bank import MemoryBank

    target = _parse_query(query)
    check_sheet(sheet)
    embedder = model_hash(model) if isinstance(target, Path) else None
    with MemoryBank.open(bank, model_hash=embedder) as store:
        if at is not None:
            store.reload(at)
        if isinstance(target, Path):
            vectors = load_pipeline(model, device).embed_images([target])
            hits: Sequence[Any] = store.search(vectors, k, **filters)[0]
            measure = "cosine"
        elif isinstance(target, Affect):
            hits = store.search_affect(target, k, **filters)
            measure = "distance"
        else:
            hits = store.search_text(target, k, **filters)
            measure = "match"
        records = [{measure: getattr(hit, measure), **record_of(store, hit.entry)} for hit in hits]
    if sheet is not None:
        write_sheet(sheet, records, measure)
    if as_json:
        print_json(records)
    else:
        print_entries(records, f"{len(records)} nearest to {query}", measure)


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
