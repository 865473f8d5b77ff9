"""One Parquet file, with images in the format of the Hugging Face library `datasets`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emosym.errors import UserError
from emosym.strict_json import read_json
from memory_bank.exchange.items import FIELDS, Item

_ROWS = 64
"""Rows per row group, which are in memory at once."""
_KINDS = dict.fromkeys(FIELDS, pa.string())
_KINDS |= dict.fromkeys(("fingerprint", "seed", "step"), pa.int64())
_KINDS |= dict.fromkeys(
    ("valence", "arousal", "predicted_valence", "predicted_arousal", "confidence", "contrast"),
    pa.float64(),
)
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, items: Iterable[Item]) -> None:
    """Write a Parquet file; `scores` are JSON text, because their names vary."""
    columns = {"image": _IMAGE, **_KINDS, "embedding": pa.list_(pa.float32())}
    features: dict[str, dict[str, Any]] = {
        name: {"dtype": str(kind), "_type": "Value"} for name, kind in _KINDS.items()
    }
    features["image"] = {"_type": "Image"}
    features["embedding"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
    schema = pa.schema(columns, {"huggingface": json.dumps({"info": {"features": features}})})
    with path.open("wb") as file, pq.ParquetWriter(file, schema) as writer:
        rows = map(_row, items)
        while batch := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema))


def read(path: Path) -> Iterator[Item]:
    """Yield items row by row. Raises `UserError` for a file with other contents."""
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for name in names:
                if names.count(name) > 1:
                    raise UserError("a column that occurs twice", got=name)
            for batch in file.iter_batches(_ROWS):
                yield from map(_item, batch.to_pylist())
    except pa.ArrowException as error:
        raise UserError("not a readable Parquet file", got=error) from error


def _row(item: Item) -> dict[str, object]:
    return {
        **item.record,
        "scores": json.dumps(item.record["scores"], allow_nan=False),
        "image": {"bytes": item.image, "path": item.name},
        "embedding": item.vector,
    }


def _item(row: dict[str, Any]) -> Item:
    try:
        image, vector = row.pop("image"), np.array(row.pop("embedding"), np.float32)
        row["scores"] = read_json(row["scores"])
        if not isinstance(image["bytes"], bytes):
            raise ValueError("no bytes in image")
        return Item(row, image["bytes"], vector, str(image["path"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("a row that is no record", got=error) from error
