"""The device of a command."""

from __future__ import annotations


def default_device() -> str:
    """Return the device for a command without `--device`: the GPU if there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
