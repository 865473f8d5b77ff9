"""What a run measures: the same on one rank and on two, and without an effect on the training."""

from __future__ import annotations

import json
import shutil
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
import yaml
from PIL import Image

from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from model_zoo import zoo
from tests.train import probes
from tests.train.processes import in_ranks, refused, train, train_in_ranks
from train.distributed import ranks

CYCLE = {"compress": 1, "generate": 1}
SIZES = {"before": True, "images": 64, "requests": 20, "per_request": 2, "questions": 3}
SIZES |= {"grids": 1, "answers": True}
NUMBERS = ("understanding", "generation", "tasks")
SPEED = ("samples_per_s", "host_memory_gb", "gpu_memory_gb")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Return an AffectWorld with 48 held-out images: two batches, one for each of two ranks."""
    folder = tmp_path_factory.mktemp("data") / "world"
    write_world(folder, 320, 3)
    return folder


@pytest.fixture(scope="module")
def write(tmp_path_factory, model, world):
    """Write a preset of a few steps."""

    def write(**sections) -> Path:
        path = tmp_path_factory.mktemp("preset") / "preset.yaml"
        whole = probes.settings(
            model, world, stages=[{"steps": 6, "cycle": CYCLE}], seed=3, **sections
        )
        path.write_text(json.dumps(whole))
        return path

    return write


@pytest.fixture(scope="module")
def plain(tmp_path_factory, write) -> Path:
    """Return a run on one rank that is measured before and after."""
    run = tmp_path_factory.mktemp("plain") / "run"
    done = train("run", write(evaluate=SIZES), "--run", run)
    assert done.code == 0, done.err
    return run


def report_of(run: Path) -> dict:
    return json.loads((run / "report.json").read_text())


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_ranks_measure_what_one_measures(tmp_path, write, plain) -> None:
    """The start is the same model, so its scores are equal to the last digit.

    The model after training differs in the rounding of sums over ranks.
    """
    first, second = train_in_ranks("run", write(evaluate=SIZES), "--run", tmp_path / "run")
    assert (first.wait().code, second.wait().code) == (0, 0), first.err + second.err
    alone, together = (
        json.loads((run / "before.json").read_text()) for run in (plain, tmp_path / "run")
    )
    assert together == alone
    assert len(alone["understanding"]["items"]["ids"]) == 48
    assert len(alone["generation"]["items"]["ids"]) == 20
    here, there = report_of(plain), report_of(tmp_path / "run")
    for section in NUMBERS:
        _assert_near(here[section], there[section], section)
    assert there["run"]["ranks"] == "2"
    assert "Error" not in second.err
    with Image.open(plain / "samples.png") as one, Image.open(tmp_path / "run/samples.png") as two:
        assert one.size == two.size


def _assert_near(one, two, path: str) -> None:
    if isinstance(one, dict):
        assert one.keys() == two.keys(), path
        for key in one:
            _assert_near(one[key], two[key], f"{path}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), path
        for place, pair in enumerate(zip(one, two, strict=True)):
            _assert_near(*pair, f"{path}.{place}")
    elif isinstance(one, float):
        assert one == pytest.approx(two, abs=2e-3), path
    else:
        assert one == two, path


class Slow:
    """A result that takes `seconds` to pickle, after all ranks have finished their work."""

    def __init__(self, text: str, seconds: float = 0.0) -> None:
        self.text, self.seconds = text, seconds

    def __reduce__(self) -> tuple:
        time.sleep(self.seconds)
        return Slow, (self.text,)


def waited(seconds: float, pause: float) -> tuple[bool, list[str]]:
    """Let rank 0 work for longer than collectives of the training wait."""
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), dist.group.WORLD)
    if ranks.is_first():
        time.sleep(pause)
    ranks.barrier()
    if ranks.is_first():
        time.sleep(pause)
    some = ranks.any_rank(ranks.is_first())
    if not ranks.is_first():
        time.sleep(pause)
    found = ranks.collect(lambda: Slow(f"rank {ranks.rank()}", pause * ranks.rank()))
    return some, [each.text for each in found]


def test_ranks_wait_for_each_other_however_long() -> None:
    """A barrier of the training's group gives up: here after 1 second, on GPUs after 10 minutes."""
    assert in_ranks(waited, 1.0, 3.0, size=2) == [(True, ["rank 0", "rank 1"])] * 2


def test_an_error_while_measuring_stops_all_ranks(tmp_path, write, world) -> None:
    """One rank reads an image that is broken; the others do not wait for it."""
    broken = tmp_path / "world"
    shutil.copytree(world, broken)
    held_out = sorted(
        (s for s in open_dataset(broken) if s.split == "test"), key=lambda sample: sample.id
    )
    held_out[-1].image.write_bytes(b"no image")  # in the second rank's share
    path = write(evaluate=SIZES | {"images": 1000, "requests": 0, "grids": 0})
    whole = json.loads(path.read_text())
    whole["data"]["path"] = str(broken)
    path.write_text(json.dumps(whole))
    both = train_in_ranks("run", path, "--run", tmp_path / "run")
    assert [rank.wait().code for rank in both] == [2, 2]
    errors = [line for rank in both for line in rank.errors]
    assert len(errors) == 1, errors
    assert held_out[-1].image.name in errors[0]


LORA = {"understander": {"rank": 2, "alpha": 4, "dropout": 0.5}}
"""Dropout draws random numbers in each step."""


@pytest.fixture(scope="module")
def looked(tmp_path_factory, write) -> dict[bool, Path]:
    """Return a run with looks during training, and its twin without."""
    folder = tmp_path_factory.mktemp("looked")
    runs = {}
    for looks in (True, False):
        sizes = {"images": 8, "requests": 3, "grids": 0, "every": 2 if looks else 0}
        runs[looks] = folder / f"every-{looks}"
        path = write(evaluate=sizes, lora=LORA, save_every=3)
        done = train("run", path, "--run", runs[looks])
        assert done.code == 0, done.err
    return runs


def test_looks_do_not_change_the_training(looked) -> None:
    def training(run: Path) -> list[dict]:
        return [
            {k: v for k, v in row.items() if not k.startswith("evaluate/") and k not in SPEED}
            for row in rows_of(run)
        ]

    assert training(looked[True]) == training(looked[False])
    for path in (looked[True] / "model").rglob("*.safetensors"):
        twin = looked[False] / path.relative_to(looked[True])
        assert path.read_bytes() == twin.read_bytes(), path.name


def test_looks_are_logged_and_drawn(looked) -> None:
    rows = rows_of(looked[True])
    with_scores = [row["step"] for row in rows if any(k.startswith("evaluate/") for k in row)]
    assert with_scores == [1, 3, 5]
    names = {name for row in rows for name in row if name.startswith("evaluate/")}
    assert {"evaluate/accuracy", "evaluate/v_mae", "evaluate/oracle_v_error"} <= names
    sheets = sorted(path.name for path in (looked[True] / "samples").iterdir())
    assert sheets == ["step-0000002.png", "step-0000004.png", "step-0000006.png"]
    pixels = {(looked[True] / "samples" / name).read_bytes() for name in sheets}
    assert len(pixels) > 1, "the same requests and noise, another model"
    assert not (looked[False] / "samples").exists()


def test_a_resumed_run_takes_the_same_looks(tmp_path, write, looked) -> None:
    sizes = {"images": 8, "requests": 3, "grids": 0, "every": 2}
    path = write(evaluate=sizes, lora=LORA, save_every=3)
    stopped = train("run", path, "--run", tmp_path / "run", before=probes.terminate_at_third)
    assert stopped.code == 143, stopped.err
    assert train("resume", tmp_path / "run").code == 0

    def all_rows(run: Path) -> list[dict]:
        return [{k: v for k, v in row.items() if k not in SPEED} for row in rows_of(run)]

    assert all_rows(tmp_path / "run") == all_rows(looked[True])
    for path in (looked[True] / "samples").iterdir():
        assert (tmp_path / "run" / "samples" / path.name).read_bytes() == path.read_bytes()
    facts = report_of(tmp_path / "run")["run"]
    assert facts.keys() >= {"command", "started", "ranks", "resumed"}


def test_the_learning_rate_of_each_part_is_logged(plain) -> None:
    """Warm-up over 2 steps to 2e-3, counted over the steps that move the part."""
    rows = rows_of(plain)
    rates = {
        part: [row[f"lr/{part}"] for row in rows if f"lr/{part}" in row]
        for part in ("understander", "generator")
    }
    assert rates["understander"] == rates["generator"]
    assert rates["understander"][:2] == [1e-3, 2e-3]
    assert [len(each) for each in rates.values()] == [3, 3]


def test_a_run_has_a_model_card(plain) -> None:
    text = (plain / "model" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["library_name"] == "emosym"
    assert facts["license"] == "unknown", "the base of this test has no card"
    report = report_of(plain)
    metrics = {
        one["type"]: one["value"] for one in facts["model-index"][0]["results"][0]["metrics"]
    }
    after = report["understanding"]["after"]
    assert metrics["accuracy"] == pytest.approx(after["accuracy"], abs=1e-4)
    for part in ("compress 3, generate 3", "Command", report["run"]["started"], "Seed: `3`"):
        assert part in body, part
    low, high = after["changes"]["v_mae"]
    assert f"\\[{low:+.3f}, {high:+.3f}\\]".replace("-", "−") in body
    model = zoo.load(plain / "model")
    zoo.save(model, plain.parent / "again")
    assert (plain.parent / "again" / "README.md").read_text() == text


def test_a_run_without_a_bank_has_no_numbers_of_one(plain) -> None:
    assert "memory" not in report_of(plain)
    assert "Memory bank" not in (plain / "report.html").read_text()


def test_sizes_are_printed_and_kept(plain, write, tmp_path) -> None:
    sizes = {"before": False, "images": None, "requests": 0, "grids": None, "answers": False}
    path = write(evaluate=sizes)
    done = train("run", path, "--run", tmp_path / "run")
    assert done.code == 0, done.err
    assert "evaluation after training: at most 32 images, 1 grids x 25 images" in done.err
    assert (
        yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["evaluate"]["images"] == 32
    )
    assert report_of(tmp_path / "run")["understanding"]["after"]["count"] == 32


def test_a_short_run_says_so(write, tmp_path) -> None:
    path = write(evaluate={"images": 500, "requests": 0, "grids": 0})
    whole = json.loads(path.read_text())
    whole["stages"] = [{"steps": 900, "cycle": {"compress": 1}}]
    path.write_text(json.dumps(whole))
    done = train("run", path, "--run", tmp_path / "run", "--short")
    assert done.code == 0, done.err
    told = "a short look, not the preset's run: stages.0.steps=24, evaluate.images=32"
    assert told in done.err
    assert len(rows_of(tmp_path / "run")) == 24
    assert "step 24/24" in done.err


def test_a_damaged_run_json_is_one_line(write, tmp_path) -> None:
    path = write()
    assert train("run", path, "--run", tmp_path / "run").code == 0
    (tmp_path / "run" / "report.json").unlink()
    (tmp_path / "run" / "run.json").write_text('[{"command": 3}]')
    assert "run.json cannot be read" in refused(train("resume", tmp_path / "run"))
