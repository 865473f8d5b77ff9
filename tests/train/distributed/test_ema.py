"""The average of a part's weights: its formula, and what a run makes of it."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from data_tools.dataset import open_dataset
from emosym.config import load_config
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from eval.held_out import held_out_images
from eval.tasks.understanding import evaluate_understanding
from model_zoo import zoo
from tests.train import probes
from tests.train.processes import in_ranks, train
from train.changes import check_changes
from train.distributed.ema import WeightAverage
from train.phases.registry import train_config

RATE = {
    "learning_rate": 2e-4,
    "weight_decay": 0.1,
    "warmup_steps": 0,
    "lr_scheduler_type": "constant",
}
AVERAGED = {
    "engine": {
        "understander": {**RATE, "learning_rate": 2e-3, "ema_decay": 0.9},
        "generator": {**RATE, "ema_decay": 0.3, "ema_update_every": 2},
    },
    "lora": {"generator": {"rank": 2, "alpha": 4.0}},
}


def linear(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return two weights that train and a bias that does not."""
    part = nn.Linear(2, 1).to(dtype)
    part.bias.requires_grad_(False)
    nn.init.zeros_(part.weight)
    return part


def walk(part: nn.Module, average: WeightAverage, steps: int) -> list[torch.Tensor]:
    """Move the weights along a curve; return where they were after each step."""
    path = []
    for step in range(1, steps + 1):
        with torch.no_grad():
            part.weight.copy_(torch.tensor([[step, math.sin(step)]]))
        average.update()
        path.append(part.weight.detach().double().clone())
    return path


def test_by_hand():
    """From 0 with weights 1, 2, 3: the decays are 1/10, 2/11 and, held back, 0.2."""
    part = linear()
    average = WeightAverage(part, 0.2, 1)
    walk(part, average, 3)
    first = 0.9 * 1
    second = first * 2 / 11 + 2 * 9 / 11
    third = 0.2 * second + 0.8 * 3
    assert average.values["weight"][0, 0].item() == pytest.approx(third, rel=1e-6)
    assert average.values.keys() == {"weight"}


def test_the_decay_warms_up_with_optimizer_steps_by_hand():
    """Flow-GRPO's values: after 8 steps 8 of 17 are kept, after 16 steps 16 of 25."""
    part = linear()
    average = WeightAverage(part, 0.9, 8)
    walk(part, average, 16)
    expected = (9 / 17 * 8) * 16 / 25 + 16 * 9 / 25
    assert average.values["weight"][0, 0].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("decay", "every"), [(0.9, 8), (0.99, 1), (0.5, 3)])
def test_it_is_a_weighted_sum_of_what_it_saw(decay, every):
    part = linear()
    average = WeightAverage(part, decay, every)
    path = walk(part, average, 200)
    seen = path[every - 1 :: every]
    decays = [min(decay, (1 + t) / (10 + t)) for t in range(every - 1, len(path), every)]
    shares = [(1 - d) * math.prod(decays[n + 1 :]) for n, d in enumerate(decays)]
    assert sum(shares) + math.prod(decays) == pytest.approx(1)
    expected = sum(share * weight for share, weight in zip(shares, seen, strict=True))
    assert average.values["weight"].tolist()[0] == pytest.approx(expected.tolist()[0], rel=1e-5)


def test_half_precision_is_averaged_in_float32_and_comes_back_bit_for_bit():
    part = linear(torch.bfloat16)
    average = WeightAverage(part, 0.999, 1)
    walk(part, average, 50)
    own = part.weight.detach().clone()
    assert average.values["weight"].dtype == torch.float32
    with average.in_use():
        assert torch.equal(part.weight, average.values["weight"].bfloat16())
        assert not torch.equal(part.weight, own)
    assert torch.equal(part.weight, own)
    assert part.weight.dtype == torch.bfloat16


def test_there_and_back(tmp_path):
    part = linear()
    average, twin = WeightAverage(part, 0.9, 4), WeightAverage(part, 0.9, 4)
    walk(part, average, 6)
    average.save(tmp_path / "new" / "average.safetensors")
    twin.load(tmp_path / "new" / "average.safetensors")
    assert (twin.moves, twin.values.keys()) == (6, average.values.keys())
    for one in (average, twin):
        walk(part, one, 7)
    assert torch.equal(twin.values["weight"], average.values["weight"])


def test_a_file_of_another_average(tmp_path):
    average, path = WeightAverage(linear(), 0.9, 1), tmp_path / "average.safetensors"
    with pytest.raises(UserError, match=r"average .* cannot be read; .*; resume with the config"):
        average.load(path)
    for saved in (
        {"weight": torch.zeros(1, 2)},
        {"moves": torch.tensor(1), "weight": torch.zeros(2)},
        {"moves": torch.tensor(1), "other": torch.zeros(1, 2)},
    ):
        save_file(saved, path)
        with pytest.raises(UserError, match=r"is not the average of this part; .*; resume with"):
            average.load(path)
    assert average.values["weight"].tolist() == [[0, 0]]


# --- runs


@pytest.fixture(scope="module")
def averaged(tmp_path_factory, model, world) -> Path:
    """Return a run that averages both parts that it moves, one of them through adapters."""
    folder = tmp_path_factory.mktemp("averaged")
    whole = probes.settings(
        model,
        world,
        stages=[{"steps": 10, "cycle": {"compress": 1, "generate": 1}}],
        evaluate={"images": 8, "answers": False},
        save_every=3,
        keep=9,
        **AVERAGED,
    )
    (folder / "preset.yaml").write_text(json.dumps(whole))
    done = train("run", folder / "preset.yaml", "--run", folder / "run")
    assert done.code == 0, done.err
    for part, what in (("understander", "0.9, every step"), ("generator", "0.3, every 2 steps")):
        told = f"{part}: the run evaluates and saves an average of its weights (decay {what})"
        assert done.out.count(told) == 1
    return folder / "run"


def saved_average(run: Path, part: str) -> dict[str, torch.Tensor]:
    last = max((run / "checkpoints").glob("step-*"))
    return load_file(last / "averages" / f"{part}.safetensors")


def test_the_model_folder_holds_the_averages(averaged):
    left = dict(zoo.load(averaged / "model").named_parameters())
    average = saved_average(averaged, "understander")
    assert average.pop("moves") == 5
    for name, value in average.items():
        assert torch.equal(left[f"understander.{name}"], value), name
    [states] = max((averaged / "checkpoints").glob("step-*")).glob(
        "understander/*/*model_states.pt"
    )
    live = torch.load(states, weights_only=False)["module"]
    apart = [(live[name] - value).abs().max().item() for name, value in average.items()]
    assert max(apart) > 1e-4

    average = saved_average(averaged, "generator")
    assert average.pop("moves") == 5
    assert any("lora_B" in name for name in average)
    assert not any("text_encoder" in name for name in average)
    name = "conditioner.affect.0.weight"
    assert torch.equal(left[f"generator.{name}"], average[name])


def test_what_is_measured_is_what_is_left(averaged, world):
    samples = open_dataset(world)
    held_out = [sample for sample in samples if sample.split == "test"]
    again = evaluate_understanding(
        EmoSymPipeline.from_pretrained(averaged / "model"),
        held_out_images(held_out, 8, 0),
        train=[sample for sample in samples if sample.split == "train"],
        parse=None,
        seed=0,
    ).to_dict()
    report = json.loads((averaged / "report.json").read_text())["understanding"]["after"]
    for name in ("v_mae", "a_mae", "v_pearson"):
        assert report[name] == pytest.approx(again[name], abs=1e-5)


def test_a_resumed_average_is_the_straight_one(averaged, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(averaged, run)
    for step in (6, 9, 10):
        shutil.rmtree(run / "checkpoints" / f"step-{step:07d}")
    assert train("resume", run).code == 0
    last = Path("checkpoints") / "step-0000010" / "averages"
    for part in ("understander", "generator"):
        file = last / f"{part}.safetensors"
        assert (run / file).read_bytes() == (averaged / file).read_bytes()
    assert zoo.model_files(run / "model") == zoo.model_files(averaged / "model")
    assert probes.rows(run) == probes.rows(averaged)


def averages(run: Path, whole: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """Train; return the averages, what the model is meanwhile, and the weights after that."""
    with probes.trainer(run, whole) as made:
        start = probes.weights(made.context.model)
        made.train()
        before = probes.weights(made.context.model)
        with made.averaged():
            used = probes.weights(made.context.model)
        after = probes.weights(made.context.model)
        assert all(torch.equal(before[name], after[name]) for name in before)
        values = {part: average.values for part, average in made.averages.items()}
    return {"start": start, "live": after, "used": used, **values}


def test_two_ranks_are_one(tmp_path, model, world):
    rates = {"understander": {**RATE, "ema_decay": 0.9}, "generator": {**RATE, "ema_decay": 0.3}}
    stages = [{"steps": 4, "cycle": {"compress": 1, "generate": 1}}]
    whole = probes.settings(model, world, stages=stages, engine=rates)
    [one] = in_ranks(averages, tmp_path / "one", whole)
    first, second = in_ranks(averages, tmp_path / "two", whole, size=2)
    for part in ("understander", "generator"):
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name])
            assert torch.equal(value, first["used"][f"{part}.{name}"])
            assert (value - one[part][name]).abs().max() < 1e-5
    for other in ("start", "live"):
        apart = [(one["used"][name] - one[other][name]).abs().max() for name in one["used"]]
        assert max(apart) > 4e-5


# --- bad input


@pytest.mark.parametrize("decay", [0, 1, -0.5, 1.5])
def test_a_decay_that_averages_nothing(decay):
    whole = {"stages": [{"steps": 1, "cycle": {"compress": 1}}]}
    with pytest.raises(UserError, match=r"generator: ema_decay must be in \(0, 1\), or null; got"):
        load_config(train_config(), None, [f"engine.generator.ema_decay={decay}"], whole)
    with pytest.raises(UserError, match="generator: ema_update_every must be positive; got 0"):
        load_config(train_config(), None, ["engine.generator.ema_update_every=0"], whole)


def test_a_part_that_nothing_moves_has_no_average(tmp_path, preset):
    stages = [{"steps": 1, "cycle": {"compress": 1}}]
    path = preset(stages=stages, engine={"generator": {"ema_decay": 0.9}})
    done = train("run", path, "--run", tmp_path / "run")
    assert done.code == 2
    assert done.errors == [
        "error: engine.generator.ema_decay averages a part that no phase of the stages trains;"
        " got compress; set engine.generator.ema_decay=null"
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change", [{"ema_decay": None}, {"ema_decay": 0.8}, {"ema_update_every": 4}]
)
def test_an_average_cannot_change_on_resume(change):
    whole = {"stages": [{"steps": 1, "cycle": {"compress": 1}}]}
    old = load_config(train_config(), None, ["engine.understander.ema_decay=0.9"], whole)
    engine = old.engine
    other = dataclasses.replace(engine.understander, **change)
    new = dataclasses.replace(old, engine=dataclasses.replace(engine, understander=other))
    key = next(iter(change))
    with pytest.raises(UserError, match=f"engine.understander.{key} cannot change in a run that"):
        check_changes(old, new, measured=False)
    check_changes(old, old, measured=False)
