"""The versions and the machine that a run used."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
    """Return the machine, the commit, and the versions of Python and of the main packages."""
    commit = source_commit()
    found = {
        **({"commit": commit} if commit else {}),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "device": (
            f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
            if torch.cuda.is_available()
            else "cpu"
        ),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an optional package that is not installed
    return found


def run_facts(started: datetime) -> dict[str, str]:
    """Return the command of this process and when it started, for a report."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = sys.argv[:1] if module is None else ["python", "-m", module.name]
    words = [word.removesuffix(".__main__") for word in program] + sys.argv[1:]
    return {
        "command": shlex.join(words),
        "started": started.strftime("%Y-%m-%d %H:%M UTC"),
    }


def source_commit() -> str:
    """Return the commit of the checkout that runs, with "+" if files of it are changed.

    Without a checkout or git it is empty.
    """
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        # A repository may name programs that git starts (core.fsmonitor); these are switched off.
        command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != folder.parents[1]:
            return ""  # installed below someone else's repository
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
