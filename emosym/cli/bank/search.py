"""`emosym bank search`."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Annotated

import typer

from emosym.affect.scales import Affect
from emosym.cli.bank.options import (
    At,
    Bank,
    Only,
    Sheet,
    filtered,
)
from emosym.cli.bank.printing import check_sheet, print_entries, record_of, write_sheet
from emosym.cli.files import SUFFIXES
from emosym.cli.loading import identity, load_pipeline
from emosym.console.options import DEFAULT_MODEL, AsJson, Device, Model
from emosym.console.terminal import print_json
from emosym.errors import UserError

WANTED = ("valence", "arousal")
"""Keys of a query by affect."""


@filtered
def search(
    bank: Bank,
    query: Annotated[
        str,
        typer.Argument(help="An image file, affect ('valence=1 arousal=-2'), or words of prompts."),
    ],
    only: Only,
    k: Annotated[int, typer.Option("-k", min=1, help="Images to find.")] = 10,
    at: At = None,
    sheet: Sheet = None,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Find images of a memory bank: by what an image evokes, by affect, or by words.

    An image is compared by the cosine of its embedding, affect by its distance to what is on
    record, words with the prompts (BM25; any of the words counts). Only an image needs the model.
    """
    from memory_bank import MemoryBank

    wanted = _query(query)
    check_sheet(sheet)
    embedder = identity(model) if isinstance(wanted, Path) else None
    with MemoryBank.open(bank, model_hash=embedder) as store:
        if at is not None:
            store.reload(at)
        if isinstance(wanted, Path):
            vectors = load_pipeline(model, device).embed_images([wanted])
            (hits,) = store.search(vectors, k, **only)
            measure = "cosine"
        elif isinstance(wanted, Affect):
            hits = store.search_affect(wanted, k, **only)
            measure = "distance"
        else:
            hits = store.search_text(wanted, k, **only)
            measure = "match"
        records = [{measure: getattr(hit, measure), **record_of(store, hit.entry)} for hit in hits]
    if sheet is not None:
        write_sheet(sheet, records, measure)
    if as_json:
        print_json(records)
    else:
        print_entries(records, f"{len(records)} nearest to {query}", measure)


def _query(text: str) -> Path | Affect | str:
    """Read a query: a file, `valence=V arousal=A`, or words. Raises UserError for a mistake."""
    if _is_file(text):
        return Path(text)
    if Path(text).suffix.lower() in SUFFIXES:
        raise UserError(f"no such image: {text}", expected="an image file, affect or words")
    words = [word.partition("=") for word in re.split(r"[\s,;]+", text.strip())]
    if not any(equals for _, equals, _ in words):
        return text
    fields = {key: _number(key, value) for key, equals, value in words if equals}
    if set(fields) != set(WANTED) or len(words) != len(WANTED):
        raise UserError(
            "the query says no affect",
            got=repr(text),
            expected="'valence=V arousal=A' with numbers in [-3, 3]",
            fix="for one emotion alone add --emotion NAME",
        )
    return Affect(**fields)


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
