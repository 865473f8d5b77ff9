"""Where a model's weights go, and of which type they are."""

from __future__ import annotations

import torch

from emosym.errors import UserError, unknown

DTYPES = ("float32", "float16", "bfloat16")
"""Types of weights that are known by name."""


DEVICES = ("cpu", "cuda", "mps")
"""Kinds of devices that PyTorch is mostly built for; it knows 20 more by name."""


def parse_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """Return a dtype, given by itself or by its name; float32 for None.

    Raises `UserError` for a name that is not in `DTYPES`, and for integers.
    """
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return getattr(torch, name)


def default_device() -> str:
    """Return the device where none is named: the GPU if there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(device: torch.device | str | None) -> torch.device | str:
    """Return a device that holds tensors; for None `default_device`. Raises `UserError`."""
    if device is None:
        return default_device()
    try:
        torch.zeros(1, device=device).item()  # "meta" makes tensors without values
    except (RuntimeError, AssertionError, TypeError) as error:
        usual = str(device).partition(":")[0] in DEVICES
        raise UserError(
            f"cannot use the device {str(device)!r}",
            got=str(error).partition("\n")[0] if usual else None,
            expected="cpu, cuda, cuda:NUMBER or mps",
            fix="see `emosym doctor`" if usual else "a GPU is 'cuda', one of Apple 'mps'",
        ) from error
    return device
