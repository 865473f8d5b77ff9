"""The memory that a run reports: of the host, and of the GPU where there is one."""

from __future__ import annotations

import torch

from train.logs import peak_memory_gb


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
