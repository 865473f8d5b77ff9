"""Limits on what the configurations of a model folder may ask for.

They are far above those of released models. Beyond them a library would allocate terabytes, or loop
for hours, before it notices that the files do not fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch

from emosym.errors import UserError

FIX = "copy or train the model again"
LAYERS = 1000
"""Layers that a configuration may ask for, even if its folder holds fewer tensors."""
GROWTH = 2
"""A model may have so many times the parameters that its files hold (tied ones are stored once)."""
MIN_PIXELS, MAX_PIXELS = 2**22, 2**26
"""Largest `min_pixels` and `max_pixels` of an image processor."""
SIDE = 4096
"""Largest side in pixels of what an image processor resizes to."""
INSERTED = 64
"""Most characters that a tokenizer may put in place of others, or before a text."""
PADDED = 65_536
"""Largest fixed length of a tokenizer's output."""
PATTERNS = (
    # Qwen2 and Qwen3; their next generation; CLIP, also as older files have it; spaces (T5, CLIP).
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]"
    r"|[^\s\p{L}\p{N}]+",
    r"\s+",
    r" {2,}",
    r"[\r\n\t]",
)
"""Regular expressions of the supported tokenizers; another one could take hours on a short text."""

_LAYERS = re.compile(r"(?:^|_)(?:layers|depth)(?:_per_block)?$")


def check_layers(path: Path, config: Any) -> None:
    """Refuse a configuration with more layers than its folder has tensors (`LAYERS` at least).

    Raises:
        UserError: so many layers; weights whose header cannot be read.
    """
    asked = max((count for key, count in _numbers(config) if _LAYERS.search(key)), default=0)
    if asked > LAYERS and asked > len(stored_sizes(path.parent)):
        raise UserError(
            f"{path} asks for more layers than there are weights",
            got=f"{asked:,} layers",
            expected=f"at most {max(LAYERS, len(stored_sizes(path.parent))):,}",
            fix=FIX,
        )


def check_parameters(model: torch.nn.Module, source: Path) -> None:
    """Refuse a model, built without memory on the device `meta`, that is larger than its files."""
    stored = sum(stored_sizes(source))
    if not stored:
        return  # loading says that there are no weights
    asked = sum(parameter.numel() for parameter in model.parameters())
    if asked > GROWTH * stored:
        raise UserError(
            f"the configuration in {source} does not fit its weights",
            got=f"{asked:,} parameters",
            expected=f"about {stored:,}, those of the files",
            fix=FIX,
        )


def stored_sizes(folder: Path) -> list[int]:
    """Return the number of elements of each tensor in a folder, from the headers of its files."""
    sizes = []
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safetensors.safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (no mapping)
                    sizes.append(_product(tensors.get_slice(key).get_shape()))
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(
                f"the model in {folder} cannot be loaded", got=f"{file.name}: {error}", fix=FIX
            ) from error
    return sizes


def check_finite(tensors: Mapping[str, torch.Tensor], source: Path) -> None:
    """Refuse weights that are NaN or infinite."""
    for name, tensor in tensors.items():
        # A sum is not finite if one element is not, and needs no second tensor of that size.
        if tensor.is_floating_point() and not tensor.sum(dtype=torch.float32).isfinite():
            raise UserError(
                f"the weights in {source} are not finite", got=f"NaN or infinity in {name}", fix=FIX
            )


def check_ids(ids: Mapping[str, Any], vocabulary: int, source: Path) -> None:
    """Refuse token ids (an integer, a list of them, or None) outside of the vocabulary."""
    for name, value in ids.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            inside = type(one) is int and 0 <= one < vocabulary
            if one is not None and not inside:
                raise UserError(
                    f"{source}: {name} is not in the vocabulary",
                    got=repr(one)[:40],
                    expected=f"0 to {vocabulary - 1}",
                    fix=FIX,
                )


def check_special(config: Any, source: Path) -> None:
    """Refuse a language model whose special tokens are outside of its vocabulary."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(config, name, None) for name in names}
    check_ids(ids, config.vocab_size, source / "config.json")


def check_pixels(smallest: Any, largest: Any, source: object) -> None:
    """Refuse a range of an image's pixels that no memory holds, or that is empty."""
    numbers = all(type(value) is int for value in (smallest, largest))
    if not numbers or not 1 <= smallest <= min(largest, MIN_PIXELS) or largest > MAX_PIXELS:
        raise UserError(
            f"{source}: the minimum and maximum of an image's pixels",
            got=f"{smallest} and {largest}",
            expected=f"1 to {MIN_PIXELS:,}, and from there to {MAX_PIXELS:,}",
        )


def check_sides(sides: Mapping[str, Any], source: Path) -> None:
    """Refuse sides of an image, in pixels, that are no integers from 1 to `SIDE`."""
    for name, value in sides.items():
        if value is not None and not (type(value) is int and 1 <= value <= SIDE):
            raise UserError(f"{source}: {name}", got=value, expected=f"1 to {SIDE}")


def check_tokenizer(path: Path) -> None:
    """Refuse a tokenizer.json that could take hours, or fill the memory, with a short text.

    Raises:
        UserError: an unknown regular expression; long insertions, also of several steps together;
            a large fixed length.
    """
    try:
        tokenizer = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read", got=error, fix=FIX) from error
    if not isinstance(tokenizer, dict):
        raise UserError(f"{path} is not a JSON object", fix=FIX)
    tokenizer = {key: value for key, value in tokenizer.items() if key != "model"}
    for key, value in _leaves(tokenizer):
        if key == "Regex" and value not in PATTERNS:
            raise UserError(
                f"{path} has a regular expression that no supported tokenizer has",
                got=repr(value)[:80],
                fix="use the tokenizer.json that was released with the model",
            )
        if key in ("content", "prepend", "replacement") and len(str(value)) > INSERTED:
            raise UserError(f"{path} inserts long texts", got=f"{len(str(value)):,} characters")
        is_length = key in ("Fixed", "pad_to_multiple_of", "max_length", "stride")
        if is_length and isinstance(value, int) and not 0 <= value <= PADDED:
            raise UserError(f"{path}: {key}", got=value, expected=f"0 to {PADDED}")
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (growth := _growth(tokenizer.get(part), part == "decoder")) > INSERTED:
            raise UserError(
                f"{path} makes texts too long",
                got=f"its {part} up to {growth:,} times",
                expected=f"at most {INSERTED}",
                fix=FIX,
            )


def _growth(value: Any, decodes: bool) -> int:
    """Return how many times longer the steps of a tokenizer's part, at any depth, make a text.

    More than `INSERTED` is not followed further.
    """
    growth = 1
    if isinstance(value, dict):
        growth, value = _factor(value, decodes), list(value.values())
    for inner in value if isinstance(value, list) else ():
        if growth > INSERTED:
            break
        growth *= _growth(inner, decodes)
    return growth


def _factor(step: dict[str, Any], decodes: bool) -> int:
    """Return how many times longer one step of a tokenizer makes a text; at least 1."""
    match step.get("type"):
        case "Replace":
            # An empty pattern is found between all characters, and keeps them.
            kept = step.get("pattern") == {"String": ""}
            return max(1, len(str(step.get("content", ""))) + kept)
        case "ByteLevel" if not decodes:
            return 2  # a byte becomes a character of up to two
        case "TemplateProcessing":
            pieces = [step.get("single"), step.get("pair")]
            special = step.get("special_tokens")
            tokens = special.values() if isinstance(special, dict) else ()
            ids = [token.get("ids") for token in tokens if isinstance(token, dict)]
            return _longest(pieces) * _longest(ids)
    return 1


def _longest(values: list[Any]) -> int:
    return max((len(value) for value in values if isinstance(value, list | str)), default=1) or 1


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value


def _numbers(value: Any) -> Iterator[tuple[str, int]]:
    return ((key, leaf) for key, leaf in _leaves(value) if type(leaf) is int)


def _product(shape: list[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
