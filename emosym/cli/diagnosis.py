"""Checks of the machine and the installation; each problem comes with its fix."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement

PYTHON = (3, 11)
MEMORY_GIB = 6
"""Peak memory of the demo."""
DISK_GIB = 5
"""An environment and two runs of the demo."""
_HASHED = re.compile(r"^\| `(.+)` \| `([0-9a-f]{64})` \|$", re.MULTILINE)
"""A table row of a model card: a file and its SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Result of one check. With `warn` something is limited, with `fail` it does not work."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


def diagnose(weights: Path, place: Path = Path()) -> list[Check]:
    """Run all checks; nothing is changed.

    Args:
        weights: folder of the shipped weights, with one folder for each model.
        place: a folder on the disk of the runs.
    """
    return [
        python(sys.version_info[:3]),
        accelerator(),
        *dependencies(_requirements(), metadata.version),
        cores(),
        _room("memory", memory_gib(), MEMORY_GIB, "use smaller batches: the demo may not fit"),
        _room("disk", shutil.disk_usage(place).free / 2**30, DISK_GIB, "free some space"),
        flash_attention(),
        *shipped_weights(weights),
    ]


def python(found: tuple[int, ...]) -> Check:
    """Check the version of Python."""
    version = ".".join(map(str, found))
    if found[:2] < PYTHON:
        return Check(name="python", status="fail", found=version, fix="install 3.11 or newer")
    return Check(name="python", status="ok", found=f"{version} on {platform.system()}")


def accelerator() -> Check:
    """Report the device that torch uses."""
    if not torch.cuda.is_available():
        found = f"torch {torch.__version__}, no GPU: {torch.get_num_threads()} CPU threads"
        return Check(name="accelerator", status="ok", found=found)
    cards = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    names = ", ".join(f"{card.name} ({card.total_memory / 2**30:.0f} GiB)" for card in cards)
    return Check(name="accelerator", status="ok", found=f"torch {torch.__version__}, {names}")


def dependencies(requirements: Iterable[Requirement], version: Callable[[str], str]) -> list[Check]:
    """Compare installed versions with the required ranges.

    Args:
        requirements: those in `setup.cfg`, with extras.
        version: returns the version of a package; raises `PackageNotFoundError` without it.
    """
    return [_dependency(requirement, version) for requirement in requirements]


def _dependency(requirement: Requirement, version: Callable[[str], str]) -> Check:
    name, required = requirement.name, str(requirement.specifier) or "any version"
    optional = requirement.marker is not None and "extra" in str(requirement.marker)
    try:
        found = version(name)
    except metadata.PackageNotFoundError:
        if optional:
            return Check(name=name, status="ok", found="not installed (optional)")
        return Check(name=name, status="fail", found="not installed", fix="run `make setup`")
    if requirement.specifier.contains(found, prereleases=True):
        return Check(name=name, status="ok", found=found)
    fix = f"expected {required}; run `make setup`"
    return Check(name=name, status="warn" if optional else "fail", found=found, fix=fix)


def _requirements() -> list[Requirement]:
    """Return the requirements of the installed package, each once; itself without one."""
    try:
        declared = [Requirement(line) for line in metadata.requires("emosym") or []]
    except metadata.PackageNotFoundError:
        return [Requirement("emosym")]
    return list({(r.name, str(r.specifier)): r for r in declared}.values())


def cores() -> Check:
    """Report the number of CPU cores of this process."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check(name="cores", status="ok", found=f"{usable} usable")


def memory_gib(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> float:
    """Return the memory of the machine, or of the container if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(text) if text.isdigit() else total) / 2**30


def _room(name: str, gib: float, required: float, fix: str) -> Check:
    if gib < required:
        return Check(
            name=name, status="warn", found=f"{gib:.1f} GiB, less than {required}", fix=fix
        )
    return Check(name=name, status="ok", found=f"{gib:.1f} GiB")


def flash_attention() -> Check:
    """Report whether FlashAttention 2 is used, and if not, why."""
    name = "flash attention"
    if not torch.cuda.is_available():
        return Check(name=name, status="ok", found="not used: no GPU (SDPA instead)")
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        found = f"not used: compute capability {major}.{minor}, needs 8.0 (SDPA instead)"
        return Check(name=name, status="ok", found=found)
    try:
        import flash_attn
    except ImportError as error:
        fix = "optional: pip install --no-build-isolation '.[gpu]'"
        return Check(name=name, status="ok", found=f"not used: {error} (SDPA instead)", fix=fix)
    return Check(name=name, status="ok", found=f"flash-attn {flash_attn.__version__}")


def shipped_weights(weights: Path) -> list[Check]:
    """Compare the SHA-256 of the files of every shipped model with its model card, `README.md`."""
    folders = (
        sorted(path for path in weights.iterdir() if path.is_dir()) if weights.is_dir() else []
    )
    if not folders:
        fix = "train them with `make tiny-base`"
        return [Check(name="weights", status="fail", found=f"none in {weights}", fix=fix)]
    return [_weights(folder) for folder in folders]


def _weights(folder: Path) -> Check:
    name = f"weights of {folder.name}"
    restore = "restore the folder (git checkout) or train anew with `make tiny-base`"
    card = folder / "README.md"
    if not card.is_file():
        return Check(name=name, status="fail", found=f"no model card in {folder}", fix=restore)
    expected = dict(_HASHED.findall(card.read_text(encoding="utf-8")))
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path != card and not path.name.startswith(".")
    ]
    hashes = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    changed = sorted({file for file, _ in expected.items() ^ hashes.items()})
    if changed or not files:
        found = f"{', '.join(changed) or 'no files'}: not the hashes of the model card"
        return Check(name=name, status="fail", found=found, fix=restore)
    size = sum(path.stat().st_size for path in files) / 2**20
    return Check(name=name, status="ok", found=f"{len(files)} files, {size:.1f} MiB, hashes agree")
