"""Runs that stop before the first step, after the last one, or because a rank has ended."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from emosym.errors import UserError
from tests.train import probes
from tests.train.probes import compress
from tests.train.processes import Training, refused, train, train_in_ranks
from train.finished import stored_report
from train.stopping import Stopped, stoppable


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_step(tmp_path, preset, number):
    """One line says what is kept and how to continue, and that works."""
    run = tmp_path / "run"
    stopped = Training(["run", preset(**compress(2)), "--run", run])
    stopped.wait_for((run / "config.yaml").exists)
    stopped.signal(number)
    assert stopped.wait().code == 128 + number
    assert stopped.err.splitlines()[-1] == (
        f"stopped; the run is before its first checkpoint; continue with `make resume RUN={run}`"
    )
    assert stopped.errors == []
    assert not (run / "checkpoints").exists()
    again = train("resume", run)
    assert again.code == 0, again.err
    assert [row["step"] for row in probes.rows(run)] == [0, 1]


def test_a_signal_after_the_last_step(tmp_path, preset):
    run = tmp_path / "run"
    evaluate = {"before": False, "images": 16, "requests": 64, "grids": 3}
    stopped = Training(["run", preset(**compress(2, evaluate=evaluate)), "--run", run])
    stopped.wait_for((run / "checkpoints" / "step-0000002").exists)
    stopped.signal(signal.SIGINT)
    assert stopped.wait().code == 130, stopped.err
    assert stopped.err.splitlines()[-1] in (
        f"stopped; step-0000002 is kept; continue with `make resume RUN={run}`",
        f"saved; continue with `make resume RUN={run}`",  # the loop had not ended yet
    )
    assert not (run / "report.json").exists()
    assert train("resume", run).code == 0
    assert (run / "report.json").exists()


def test_nothing_is_kept_of_a_run_that_had_not_begun(tmp_path, preset):
    run = tmp_path / "run"
    stopped = Training(["run", preset(**compress(2)), "--run", run], before=interrupt_at_once)
    assert stopped.wait().code == 130
    assert stopped.err == "stopped; nothing was written; start the run again\n"
    assert not run.exists()


def interrupt_at_once() -> None:
    """Send Ctrl-C to this process when it asks for the preset."""
    import train.run

    def start(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    train.run.start = start


def test_a_second_signal_ends_the_process_at_once():
    before = signal.getsignal(signal.SIGINT)
    during = []
    with pytest.raises(Stopped) as caught:
        stop(during)
    assert during == [signal.SIG_DFL, signal.SIG_DFL]
    assert caught.value.number == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) == before


def stop(during: list) -> None:
    """Send Ctrl-C to this process; note how it takes signals then."""
    with stoppable():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            during += [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_a_finished_run_prints_its_report_and_loads_nothing(tmp_path, preset):
    run = tmp_path / "run"
    evaluate = {"before": False, "images": 8, "requests": 0, "grids": 0}
    first = train("run", preset(**compress(2, save_every=1, evaluate=evaluate)), "--run", run)
    assert first.code == 0, first.err
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    again = train("resume", run, before=forbid_to_load)
    assert again.code == 0, again.err
    assert again.err.splitlines()[-1] == f"{run} is finished; this is its report"
    assert "accuracy" in again.out
    assert first.out.endswith(again.out)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == files

    both = [rank.wait() for rank in train_in_ranks("resume", run)]
    assert [rank.code for rank in both] == [0, 0]
    assert (both[0].out, both[1].out) == (again.out, "")


def forbid_to_load() -> None:
    """Let every attempt to train, or to join the other ranks, fail."""
    import train.run
    from train.distributed import ranks

    train.run.resume = train.run.start = ranks.join = None


def finished(tmp_path: Path, preset) -> Path:
    run = tmp_path / "run"
    assert train("run", preset(**compress(2, save_every=1)), "--run", run).code == 0
    assert stored_report(run) is not None
    return run


def longer(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("steps: 2", "steps: 3"))


@pytest.mark.parametrize(
    "change",
    [
        longer,
        lambda run: (run / "report.json").write_text("{"),
        lambda run: (run / "report.json").unlink(),
        lambda run: (run / "report.json").write_text('{"understanding": 3}'),
        lambda run: (run / "config.yaml").write_text("["),
        lambda run: (run / "config.yaml").write_text("stages: 3"),
        lambda run: (run / "config.yaml").write_text("[" * 5000),
        lambda run: shutil.rmtree(run / "model"),
        lambda run: shutil.rmtree(run / "checkpoints" / "step-0000002"),
    ],
)
def test_what_is_not_a_finished_run(tmp_path, preset, change):
    run = finished(tmp_path, preset)
    change(run)
    assert stored_report(run) is None


def test_a_run_that_goes_on_keeps_its_earlier_report_aside(tmp_path, preset):
    run = finished(tmp_path, preset)
    report = (run / "report.json").read_bytes()
    going = train("resume", run, "stages.0.steps=4", before=probes.terminate_at_third)
    assert going.code == 143, going.err
    assert (run / "report.json.superseded").read_bytes() == report
    assert stored_report(run) is None
    assert train("resume", run).code == 0
    assert stored_report(run)["phases"] == {"compress": 4}


def kill_in_save() -> None:
    """Let this rank be killed while it writes the first file of a checkpoint."""
    from train.distributed.shards import Shards

    def killed(self: Shards, state_dict: object, path: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Shards.save = killed


def test_a_rank_that_is_killed_in_a_save(tmp_path, preset):
    """The other one says so, and does not speak of space; the run goes on afterwards."""
    run = tmp_path / "run"
    written = preset(**compress(4, save_every=2))
    first, second = train_in_ranks("run", written, "--run", run, before={1: kill_in_save})
    assert second.wait().code == -signal.SIGKILL
    assert refused(first.wait()) == (
        "error: another rank stopped, which may have said why; the run is before its first"
        f" checkpoint; continue with `make resume RUN={run} NPROC=2`"
    )
    assert list((run / "checkpoints").iterdir()) == []
    assert [rank.wait().code for rank in train_in_ranks("resume", run)] == [0, 0]
    assert [row["step"] for row in probes.rows(run)] == list(range(4))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_cannot_write_its_part(tmp_path, preset, rank):
    """It says so, and the others stop without a word."""
    run = tmp_path / "run"
    written = preset(**compress(4, save_every=2))
    both = train_in_ranks("run", written, "--run", run, before={rank: probes.no_space})
    told = refused(both[rank].wait())
    assert told.startswith(f"error: checkpoint {run}/checkpoints/step-0000002 cannot be written")
    assert told.endswith(
        "free some space; older checkpoints are untouched, resume continues from them"
    )
    other = both[1 - rank].wait()
    assert (other.code, other.errors) == (2, [])
    assert list((run / "checkpoints").iterdir()) == []


def kill_in_model() -> None:
    """Let this process be killed before a saved model takes its place."""
    import model_zoo.zoo

    model_zoo.zoo.replace_folder = lambda new, target: os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_kill_leaves_of_a_model_is_swept(tmp_path, preset):
    run = tmp_path / "run"
    killed = Training(["run", preset(**compress(2)), "--run", run], before=kill_in_model).wait()
    assert killed.code == -signal.SIGKILL
    assert len(list(run.glob(".model.*.tmp"))) == 1
    assert train("resume", run).code == 0
    assert not list(run.glob(".*.tmp"))
    assert (run / "model" / "emosym.json").is_file()


def fill_the_disk() -> None:
    """Let every write of the bank find a full disk."""
    from memory_bank.bank import MemoryBank

    def refuse(self: MemoryBank, *_: object, **__: object) -> None:
        raise UserError("the memory bank cannot be written", fix="free some space")

    MemoryBank.add = refuse


def test_an_error_of_the_bank_is_told_once(tmp_path, preset):
    run = tmp_path / "run"
    stages = [{"steps": 2, "cycle": {"remember": 1}}]
    both = train_in_ranks(
        "run", preset(stages=stages), "--run", run, before=dict.fromkeys((0, 1), fill_the_disk)
    )
    first, second = (rank.wait() for rank in both)
    assert refused(first) == "error: the memory bank cannot be written; free some space"
    assert (second.code, second.errors) == (2, [])
