"""The rows of a run's metrics: damaged ones, and the memory that they report."""

from __future__ import annotations

import pytest
import torch

from emosym.errors import UserError
from train.logs import metrics
from train.logs.metrics import TimeLeft, _drop_from, line, peak_memory_gb


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


def test_the_line_of_a_step_has_units_the_learning_rate_and_the_time_left():
    shown = line(
        {"loss": 0.53219, "reward": 0.4, "grad_norm": 9.0},
        31.42,
        {"understander": 5e-4, "generator": 1.2e-3},
        {"host_memory_gb": 1.234, "gpu_memory_gb": 70.06},
        3725.4,
    )
    assert shown == (
        "loss 0.532  reward 0.400  lr 5.0e-04 1.2e-03  31.4 samples/s"
        "  host 1.2 GB  gpu 70.1 GB  1:02:05 left"
    )
    assert line({}, 2.0, {}, {}, 5) == "2 samples/s  0:05 left", "a phase without weights"


def test_the_time_left_knows_that_phases_differ(monkeypatch):
    """Ten steps of 1 s are done, and one of 10 s; ten of each are left, and five of a third."""

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(metrics, "time", clock)
    left = TimeLeft(["compress"] * 20 + ["generate"] * 11 + ["remember"] * 5)
    for _ in range(10):
        clock.now += 1
        left.done("compress")
    assert left.left() == pytest.approx(10 + 11 + 5), "what has not run takes the mean"
    clock.now += 10
    left.done("generate")
    assert left.left() == pytest.approx(10 + 100 + 5 * 20 / 11)
    clock.now += 1000
    left.skip(1000)  # an evaluation
    clock.now += 1
    left.done("compress")
    assert left.left() == pytest.approx(9 + 100 + 5 * 21 / 12)
