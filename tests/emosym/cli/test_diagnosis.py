from __future__ import annotations

import hashlib
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from emosym.cli import diagnosis as doctor

VERSIONS = {"torch": "2.13.0+cpu", "einops": "0.7.0", "flash-attn": "2.1"}


def version(name: str) -> str:
    if name not in VERSIONS:
        raise PackageNotFoundError(name)
    return VERSIONS[name]


def dependency(line: str) -> doctor.Check:
    return doctor.dependencies([Requirement(line)], version)[0]


def member(folder: Path, *, card: str | None = None) -> Path:
    """Write a zoo member with one weight file; its card holds the true hash unless given."""
    (folder / "heart").mkdir(parents=True)
    (folder / "heart" / "a.safetensors").write_bytes(b"weights")
    true = f"| `heart/a.safetensors` | `{hashlib.sha256(b'weights').hexdigest()}` |"
    (folder / "README.md").write_text(true if card is None else card)
    return folder


@pytest.mark.parametrize(
    ("line", "status", "found"),
    [
        ("torch>=2.8", "ok", "2.13.0+cpu"),
        ("einops>=0.8", "fail", "0.7.0"),
        ("faiss-cpu>=1.15", "fail", "not installed"),
        ("flash-attn>=2.8; extra == 'gpu'", "warn", "2.1"),
        ("ruff>=0.17; extra == 'dev'", "ok", "not installed (optional)"),
    ],
)
def test_versions_are_compared_with_what_is_declared(line, status, found):
    check = dependency(line)
    assert (check.status, check.found) == (status, found)
    assert bool(check.fix) == (status != "ok")


def test_the_fix_names_the_expected_range():
    assert dependency("einops>=0.8").fix == "expected >=0.8; run `make setup`"


def test_an_old_python_fails():
    assert doctor.python((3, 10, 9)).status == "fail"
    assert doctor.python((3, 11, 0)).status == "ok"
    assert doctor.python((4, 0, 0)).status == "ok"


def test_a_container_limit_counts_when_it_is_below_the_machine(tmp_path):
    limit = tmp_path / "memory.max"
    machine = doctor.memory_gib(limit)
    assert machine > 0.1
    limit.write_text("max\n")
    assert doctor.memory_gib(limit) == machine
    limit.write_text(f"{2**26}\n")
    assert doctor.memory_gib(limit) == 2**-4


def test_shipped_weights_are_checked_against_their_card(tmp_path):
    assert doctor.shipped_weights(tmp_path / "none")[0].fix == "train them with `make tiny-base`"
    good = member(tmp_path / "good")
    bad = member(tmp_path / "stale", card="no hash here")
    (member(tmp_path / "uncarded") / "README.md").unlink()
    shutil.rmtree(member(tmp_path / "void") / "heart")
    checks = {check.name: check for check in doctor.shipped_weights(tmp_path)}
    assert {name: check.status for name, check in checks.items()} == {
        "weights of good": "ok",
        "weights of stale": "fail",
        "weights of uncarded": "fail",
        "weights of void": "fail",
    }
    assert "1 files, 0.0 MiB, hashes agree" in checks["weights of good"].found
    assert (
        "heart/a.safetensors: not the hashes of the model card"
        in checks[f"weights of {bad.name}"].found
    )
    assert "no model card" in checks["weights of uncarded"].found
    assert "heart/a.safetensors: not the hashes" in checks["weights of void"].found
    for path, data in (("heart/a.safetensors", b"weightz"), ("emosym.json", b"{}")):
        shutil.rmtree(good)
        (member(good) / path).write_bytes(data)
        (check,) = [c for c in doctor.shipped_weights(tmp_path) if c.name == "weights of good"]
        assert (check.status, check.found) == ("fail", f"{path}: not the hashes of the model card")


def test_the_whole_diagnosis_on_this_machine(tmp_path):
    member(tmp_path / "tiny")
    checks = doctor.diagnose(tmp_path, tmp_path)
    names = [check.name for check in checks]
    assert len(names) == len(set(names))
    assert {"python", "accelerator", "cores", "memory", "disk"} <= set(names)
    by_name = {check.name: check for check in checks}
    assert by_name["python"].status == "ok"
    assert by_name["weights of tiny"].status == "ok"
    assert torch.__version__ in by_name["accelerator"].found
    assert all(check.fix for check in checks if check.status != "ok")
