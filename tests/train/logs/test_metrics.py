"""The rows of a run's metrics: damaged ones, and the memory that they report."""

from __future__ import annotations

import pytest
import torch

from emosym.errors import UserError
from train.logs.metrics import _drop_from, peak_memory_gb


def test_without_a_gpu_the_host_is_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    peaks = peak_memory_gb()
    assert peaks.keys() == {"host_memory_gb"}
    assert 0.05 < peaks["host_memory_gb"] < 1000


def test_on_a_gpu_both_are_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 2_500_000_000)
    peaks = peak_memory_gb()
    assert peaks["gpu_memory_gb"] == 2.5
    assert peaks["host_memory_gb"] > 0.05


@pytest.mark.parametrize("line", [b"\xff\x00", b"{", b"[]", b'{"phase": "compress"}', b""])
def test_a_damaged_row_of_metrics(tmp_path, line):
    """In the middle it is an error; at the end, cut short by a crash, the step is repeated."""
    path, good = tmp_path / "metrics.jsonl", b'{"step": 0}\n'
    path.write_bytes(good + line + b"\n" + b'{"step": 1}\n')
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"jsonl:2: not a row of metrics; .*delete the line"):
        _drop_from(path, 2)
    assert path.read_bytes() == before
    path.write_bytes(good + line)
    _drop_from(path, 2)
    assert path.read_bytes() == good
