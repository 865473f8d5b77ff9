"""The versions and the machine that a run used."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = (
    "torch",
    "transformers",
    "diffusers",
    "deepspeed",
    "peft",
    "bitsandbytes",
    "flash-attn",
    "faiss-cpu",
    "safetensors",
    "torchmetrics",
    "numpy",
    "pillow",
)


def environment() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that shape a result."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an optional package that is not installed
    return found
