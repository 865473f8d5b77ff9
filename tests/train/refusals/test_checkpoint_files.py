"""The files of a checkpoint: a flipped bit is found, and no file runs code, whoever wrote it."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from emosym.errors import UserError
from tests.train import probes
from tests.train.probes import sign
from tests.train.processes import in_ranks, refused, train, train_in_ranks
from train.checkpoints import checkpoint
from train.data.candidate_queue import CandidateQueue
from train.distributed.shards import SAFE

LAST = "checkpoints/step-0000006"
MODEL = "understander/state/mp_rank_00_model_states.pt"
OPTIMIZER = "understander/state/zero_pp_rank_0_mp_rank_00_optim_states.pt"
FILES = {
    "SHA256SUMS",
    "state.json",
    "waiting.safetensors",
    "averages/understander.safetensors",
    MODEL,
    OPTIMIZER,
}


def preset(folder: Path, model: Path, world: Path) -> Path:
    path = folder / "preset.yaml"
    whole = probes.settings(
        model,
        world,
        stages=[{"steps": 6, "cycle": {"compress": 1, "remember": 1}}],
        engine={"understander": {"ema_decay": 0.9}},
        remember={"admission": {"delay": 3}},
        save_every=2,
    )
    path.write_text(json.dumps(whole))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model, world) -> Path:
    """Return a run whose checkpoints hold every kind of file."""
    folder = tmp_path_factory.mktemp("kinds")
    done = train("run", preset(folder, model, world), "--run", folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run", symlinks=True)


def told(folder: Path) -> str:
    """Return why a checkpoint is refused, without engines to load it into."""
    try:
        checkpoint.load(folder, {}, {}, CandidateQueue(), "")
    except UserError as error:
        return str(error)
    raise AssertionError("loaded")


def flipped(folder: Path) -> dict[str, list[str]]:
    """Flip a bit at several places of each file in turn; return what is told of each."""
    found = {"": [told(folder)]}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        lines = [place for place, byte in enumerate(whole[:600]) if byte in b"\n "]
        places = {0, len(whole) // 3, len(whole) // 2, len(whole) - 2, len(whole) - 1, *lines}
        answers = found.setdefault(str(path.relative_to(folder)), [])
        for place in sorted(places):
            for bit in (0, 5) if path.name == "SHA256SUMS" else (place % 8,):
                damaged = bytearray(whole)
                damaged[place] ^= 1 << bit
                path.write_bytes(damaged)
                answers.append(told(folder))
        path.write_bytes(whole)
    return found


def test_a_bit_that_flips_in_any_file_is_found(run):
    [found] = in_ranks(flipped, run / LAST)
    [intact] = found.pop("")
    assert "another starting model" in intact  # what comes after the files are verified
    assert set(found) == FILES
    command = f"`make resume RUN={run} CHECKPOINT=step-0000004`"
    end = f"expected as in SHA256SUMS; continue from the one before with {command}"
    for name, answers in found.items():
        assert len(answers) >= 4
        for answer in answers:
            assert answer.startswith(f"checkpoint {run / LAST} is damaged; got "), name
            assert answer.endswith(end)
            assert name in answer or name == "SHA256SUMS"
    assert {a for a in found[MODEL]} == {
        f"checkpoint {run / LAST} is damaged; got {MODEL} with another content; {end}"
    }


def test_each_rank_verifies_a_share(run):
    """Two ranks find together what one finds alone, and one of them says it."""
    for name in sorted(FILES - {"SHA256SUMS"}):
        path = run / LAST / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        [told] = {
            answer for answer in in_ranks(refused_by, run / LAST, size=2) if answer is not None
        }
        assert f"got {name} with another content" in told
        path.write_bytes(whole)


def refused_by(folder: Path) -> str | None:
    from train.distributed.ranks import OtherRankError

    try:
        return told(folder)
    except OtherRankError:
        return None


def missing(folder: Path) -> str:
    (folder / OPTIMIZER).unlink()
    return f"is damaged; got no {OPTIMIZER}"


def added(folder: Path) -> str:
    shutil.copy(folder / MODEL, folder / MODEL.replace("rank_00", "rank_01"))
    return "is damaged; got an additional file understander/state/mp_rank_01_model_states.pt"


def cut(folder: Path) -> str:
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:1000])
    return f"is damaged; got {MODEL} with another content"


def unsigned(folder: Path) -> str:
    (folder / "SHA256SUMS").unlink()
    return "has no SHA256SUMS; got an older version's"


def emptied(folder: Path) -> str:
    (folder / "SHA256SUMS").write_text("")
    return "is damaged; got SHA256SUMS with another content"


def doubled(folder: Path) -> str:
    text = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(text + text.splitlines()[0] + "\n")
    return "is damaged; got SHA256SUMS with another content"


def linked(folder: Path) -> str:
    (folder / MODEL).rename(folder.parent.parent / "outside")
    (folder / MODEL).symlink_to(folder.parent.parent / "outside")
    return f"{folder / MODEL} is a symbolic link; expected a file or a folder"


def linked_folder(folder: Path) -> str:
    (folder / "understander").rename(folder.parent.parent / "outside")
    (folder / "understander").symlink_to(folder.parent.parent / "outside")
    return f"{folder / 'understander'} is a symbolic link"


def piped(folder: Path) -> str:
    (folder / "state.json").unlink()
    os.mkfifo(folder / "state.json")
    return f"{folder / 'state.json'} is a FIFO, socket or device"


def piped_sums(folder: Path) -> str:
    (folder / "SHA256SUMS").unlink()
    os.mkfifo(folder / "SHA256SUMS")
    return f"{folder / 'SHA256SUMS'} is a FIFO, socket or device"


@pytest.mark.parametrize(
    "damage",
    [missing, added, cut, unsigned, emptied, doubled, linked, linked_folder, piped, piped_sums],
)
def test_files_that_are_not_as_they_were_saved(run, damage):
    expected = damage(run / LAST)
    [answer] = in_ranks(told, run / LAST)
    assert expected in answer


class Evil:
    """Unpickling it touches a file."""

    def __init__(self, marker: Path, by: Callable = os.system) -> None:
        self.call = (by, (f"touch {marker}",))
        if by is exec:
            self.call = (by, (f"open({str(marker)!r}, 'w')",))

    def __reduce__(self) -> tuple:
        return self.call


def beside_tensors(path: Path, marker: Path) -> None:
    with torch.serialization.safe_globals(SAFE):
        whole = torch.load(path, weights_only=True)
    torch.save(whole | {"evil": Evil(marker)}, path)


def as_a_key(path: Path, marker: Path) -> None:
    torch.save({(Evil(marker, exec),): 1}, path)


def in_the_old_format(path: Path, marker: Path) -> None:
    torch.save({"evil": Evil(marker)}, path, _use_new_zipfile_serialization=False)


def as_a_bare_pickle(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(marker)))


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER])
@pytest.mark.parametrize("make", [beside_tensors, as_a_key, in_the_old_format, as_a_bare_pickle])
def test_a_shard_runs_no_code(run, tmp_path, name, make):
    """Not even with hashes that fit."""
    marker = tmp_path / "marker"
    make(run / LAST / name, marker)
    sign(run / LAST)
    message = refused(train("resume", run, "stages.0.steps=8"))
    assert (
        f"{name} holds more than the state of" in message
        or "is not a file of torch.save" in message
    )
    assert not marker.exists()
    # The attack is one: it acts when it is unpickled.
    with contextlib.suppress(RuntimeError):
        torch.load(run / LAST / name, weights_only=False)
    assert marker.exists()


def test_a_shard_of_another_rank_runs_no_code(tmp_path, model, world):
    run, marker = tmp_path / "run", tmp_path / "marker"
    done = train_in_ranks("run", preset(tmp_path, model, world), "--run", run)
    assert [rank.wait().code for rank in done] == [0, 0]
    beside_tensors(run / LAST / OPTIMIZER.replace("rank_0_", "rank_1_"), marker)
    sign(run / LAST)
    first, second = [rank.wait() for rank in train_in_ranks("resume", run, "stages.0.steps=8")]
    assert "holds more than the state of" in refused(second)
    assert first.code == 2
    assert not any(error.startswith("Traceback") for error in first.errors)
    assert not marker.exists()


def test_a_shard_that_inflates_is_refused(run):
    path = run / LAST / MODEL
    with (
        zipfile.ZipFile(path) as stored,
        zipfile.ZipFile(path.with_suffix(".new"), "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in stored.namelist():
            data = stored.read(member)
            packed.writestr(member, data if not member.endswith("data/0") else bytes(10**7))
    path.with_suffix(".new").replace(path)
    sign(run / LAST)
    assert f"{path} is not a file of torch.save; got 1" in refused(
        train("resume", run, "stages.0.steps=8")
    )


@pytest.mark.parametrize(
    "name", ["waiting.safetensors", "averages/understander.safetensors", "state.json"]
)
def test_the_other_files_run_no_code_either(run, tmp_path, name):
    marker = tmp_path / "marker"
    as_a_bare_pickle(run / LAST / name, marker)
    sign(run / LAST)
    refused(train("resume", run, "stages.0.steps=8"))
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    ["checkpoints", "bank", "model", "tensorboard", "metrics.jsonl", "report.json", "run.lock"],
)
def test_a_run_with_a_link_in_it_is_not_written_to(run, tmp_path, name):
    outside = tmp_path / "outside"
    (run / name).rename(outside)
    (run / name).symlink_to(outside)
    before = {path: path.lstat().st_mtime_ns for path in [outside, *outside.rglob("*")]}
    message = refused(train("resume", run, "stages.0.steps=8"))
    assert message.startswith(f"error: {run / name} is a symbolic link")
    assert {path: path.lstat().st_mtime_ns for path in [outside, *outside.rglob("*")]} == before


def test_a_pipe_in_a_run_does_not_hang(run):
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    assert "metrics.jsonl is a FIFO" in refused(train("resume", run, "stages.0.steps=8"))


def master_weights(path: Path) -> torch.Tensor:
    """Return the float32 weights in the file of an optimizer."""
    with torch.serialization.safe_globals(SAFE):
        whole = torch.load(path, weights_only=True)
    return whole["optimizer_state_dict"]["single_partition_of_fp32_groups"][0]


def test_the_one_before_is_used_when_asked(run, finished):
    """The later one is kept under another name, and its steps are trained and saved again."""
    path = run / LAST / OPTIMIZER
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "is damaged" in refused(train("resume", run, "stages.0.steps=8"))
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["step-0000004", "step-0000006"]

    unknown = refused(train("resume", run, "--checkpoint", "step-0000002"))
    assert "has no checkpoint 'step-0000002'; expected one of step-0000004, step-0000006" in unknown

    again = train("resume", run, "--checkpoint", "step-0000004")
    assert again.code == 0, again.err
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["step-0000004", "step-0000006", "step-0000006.superseded"]
    assert probes.rows(run) == probes.rows(finished)
    assert (run / LAST / MODEL).read_bytes() == (finished / LAST / MODEL).read_bytes()
    assert torch.equal(master_weights(path), master_weights(finished / LAST / OPTIMIZER))
    heads = "model/heads.safetensors"
    assert (run / heads).read_bytes() == (finished / heads).read_bytes()
