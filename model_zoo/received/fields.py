"""Check of single fields of a model folder's configurations, before a library reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emosym.errors import UserError
from model_zoo.received.limits import FIX

REFUSED = {
    "fast_tokenizer_files": "remove the entry: the tokenizer is read from tokenizer.json",
    "quantization_config": "use the weights before quantization: no quantized model is supported",
    "compression_config": "use the weights before quantization: no quantized model is supported",
}
"""Key that may not be set -> what to do."""
RANGES = {
    "image_mean": (-1e3, 1e3),
    "image_std": (1e-3, 1e3),
    "rescale_factor": (1e-6, 1.0),
    "scaling_factor": (1e-3, 1e3),
    "shift_factor": (-1e3, 1e3),
}
"""Key of an image processor or autoencoder -> range of its numbers (one, or one a channel)."""
LABELS = 2**16
"""Most classes of a configuration; transformers builds two dictionaries of that size."""
POSITIONS = 2**28
"""Most numbers of a denoiser's table of positions, which is computed before weights are read."""


def check_fields(path: Path, config: Any) -> None:
    """Refuse values that fill the memory, name other files, or make every output useless.

    Args:
        path: file of the configuration.
        config: its content; keys are checked at any depth.

    Raises:
        UserError: a key of `REFUSED`; a number outside of `RANGES`; more than `LABELS` classes; a
            table of more than `POSITIONS` numbers.
    """
    for fields in _objects(config):
        for key, value in fields.items():
            if value is None:
                continue
            plain = key.lstrip("_")
            if plain in REFUSED:
                raise UserError(
                    f"{path}: {key} is not supported", got=str(value)[:80], fix=REFUSED[plain]
                )
            if plain in RANGES:
                low, high = RANGES[plain]
                numbers = value if isinstance(value, list) else [value]
                if not all(_is_number(one) and low <= one <= high for one in numbers):
                    raise UserError(
                        f"{path}: {key}", got=str(value)[:80], expected=f"{low:g} to {high:g}"
                    )
            if plain in ("num_labels", "id2label", "label2id"):
                count = len(value) if isinstance(value, dict | list) else value
                if type(count) is not int or not 0 <= count <= LABELS:
                    raise UserError(
                        f"{path}: {key}", got=str(count)[:80], expected=f"0 to {LABELS:,} classes"
                    )
        if "pos_embed_max_size" in fields or fields.get("_class_name") == "SD3Transformer2DModel":
            _check_positions(path, fields)


def _check_positions(path: Path, fields: dict[str, Any]) -> None:
    """Check the table [side, side, heads x width] of SD3; absent fields have diffusers' values."""
    side = fields.get("pos_embed_max_size", 96)
    heads = fields.get("num_attention_heads", 18)
    width = fields.get("attention_head_dim", 64)
    sizes = all(type(size) is int and size > 0 for size in (side, heads, width))
    if not sizes or side * side * heads * width > POSITIONS:
        raise UserError(
            f"{path}: the table of positions of pos_embed_max_size, num_attention_heads and "
            "attention_head_dim",
            got=f"{side}, {heads} and {width}"[:120],
            expected=f"positive integers, side x side x heads x width at most {POSITIONS:,}",
            fix=FIX,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a value, at any depth."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for inner in value if isinstance(value, list) else ():
        yield from _objects(inner)
