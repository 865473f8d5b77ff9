"""Training through adapters: what moves, what stays, and what a run leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from data_tools.dataset import open_dataset
from data_tools.questions.build import build_questions
from emosym.config import load_config
from emosym.errors import UserError
from model_zoo import zoo
from model_zoo.adapters import adapter_names
from tests.model_zoo.make import picture
from tests.train import probes
from tests.train.processes import in_ranks, train
from train.data.run_data import RunData
from train.phases.registry import train_config
from train.trainer import Trainer

LORA = {"rank": 3, "alpha": 6}
CYCLE = {"compress": 1, "verify_posterior": 1, "verify_grpo": 1, "generate": 1}
OURS = (
    "understander.reasoner.",
    "understander.emotion_head.",
    "understander.affect_head.",
    "understander.knowledge_head.",
    "generator.conditioner.",
)


def settings(model: Path, world: Path, dropout: float, **sections: Any) -> dict[str, Any]:
    lora = {part: LORA | {"dropout": dropout} for part in ("understander", "generator")}
    return probes.settings(
        model,
        world,
        lora=lora,
        stages=[{"steps": 8, "cycle": CYCLE}],
        generate={"update_understander": True, "image_share": 1.0},
        save_every=4,
        **sections,
    )


def watch(run: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """Train, and return what moved and what the reference, judge and saved model say."""
    config = load_config(train_config(), None, base=whole)
    samples = open_dataset(Path(config.data.path))
    questions = build_questions(samples, config.data.tasks, config.seed)
    run.mkdir()
    trainer = Trainer(config, run, zoo.load(config.model), RunData(samples, questions), "a model")
    model = trainer.context.model
    prompts = trainer.context.image_prompts([picture(seed=1)])
    start, before = model.read(prompts), probes.weights(model)
    trainer.train()
    trainer.close()
    model.eval()
    after = probes.weights(model)
    saved = zoo.load(zoo.save(model, run / "model"))
    return {
        "adapters": adapter_names(model),
        "moved": {name for name in after if not torch.equal(after[name], before[name])},
        "start": start.h_emo,
        "live": model.read(prompts).h_emo,
        "reference": trainer.context.reference(prompts).h_emo,
        "judge": trainer.context.reference.recognise([picture(seed=1)])[1],
        "saved": saved.read(prompts).h_emo,
        "names": set(saved.state_dict()),
        "copied": set(trainer.context.reference.understander.start),
    }


def test_only_adapters_and_what_is_ours_move(tmp_path, model, world):
    (found,) = in_ranks(watch, tmp_path / "run", settings(model, world, 0.0))
    ours = {name for name in found["moved"] if name.startswith(OURS)}
    still = (ours | found["adapters"]) - found["moved"]
    assert found["moved"] <= ours | found["adapters"]
    # SD3's last block writes no context, so nobody reads what its context asks for.
    assert [name.split(".attn.")[1] for name in still] == ["add_q_proj.lora_B.default.weight"]
    assert all(any(name.startswith(part) for name in ours) for part in OURS)
    assert (found["live"] - found["start"]).abs().max() > 1e-3
    # The reference and the judge are the model at the start; neither kept a copy of the backbone.
    assert torch.equal(found["reference"], found["start"])
    assert torch.equal(torch.from_numpy(found["judge"]), found["start"])
    assert {name.split(".")[0] for name in found["copied"]} == {
        "reasoner",
        "emotion_head",
        "affect_head",
        "knowledge_head",
    }
    # What is saved has the adapters in its weights, and the names of a plain model.
    assert (found["saved"] - found["live"]).abs().max() < 1e-4
    assert found["names"] == set(zoo.load(model).state_dict())


def test_a_resumed_run_with_dropout_is_the_straight_one(tmp_path, model, world):
    preset, run = tmp_path / "preset.yaml", tmp_path / "run"
    preset.write_text(json.dumps(settings(model, world, 0.2)))
    straight = train("run", preset, "--run", run)
    assert straight.code == 0, straight.err
    last = run / "checkpoints" / "step-0000008"
    digests = json.loads((last / "state.json").read_text())["digests"]
    files = zoo.model_files(run / "model")
    rows = (run / "metrics.jsonl").read_text().splitlines()
    shutil.rmtree(last)
    resumed = train("resume", run)
    assert resumed.code == 0, resumed.err
    assert json.loads((last / "state.json").read_text())["digests"] == digests
    assert zoo.model_files(run / "model") == files
    assert [json.loads(row)["step"] for row in rows] == list(range(8))


def dropping(run: Path, whole: dict[str, Any]) -> list[tuple[str, set[bool], float | None]]:
    """Return each step's phase, whether adapters dropped inputs, and its `ratio_deviation`."""
    found = []
    with probes.trainer(run, whole) as made:
        for step in range(len(made.schedule)):
            name = made.schedule.phase_at(step)
            metrics = made.step()
            flags = {
                part.training
                for path, part in made.context.model.named_modules()
                if isinstance(part, torch.nn.Dropout) and ".lora_dropout." in path
            }
            found.append((name, flags, metrics.get("ratio_deviation")))
    return found


@pytest.mark.parametrize("recompute", [False, True])
def test_sampling_and_reading_are_one_policy_whatever_the_dropout(
    tmp_path, model, world, recompute
):
    whole = settings(model, world, 0.05, engine={"gradient_checkpointing": recompute})
    (found,) = in_ranks(dropping, tmp_path / "run", whole)
    assert [step[:2] for step in found] == [(name, {name != "verify_grpo"}) for name in CYCLE] * 2
    deviations = [deviation for _, _, deviation in found if deviation is not None]
    assert len(deviations) == 2
    assert max(deviations) < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, r"lora.understander: rank must be positive; got 0"),
        ({"alpha": -1.0}, r"lora.understander: alpha must be positive; got -1"),
        ({"dropout": 1.0}, r"lora.understander: dropout must be in \[0, 1\); got 1"),
        ({"ranc": 2}, r"lora.understander.ranc: unknown key; did you mean 'rank'"),
    ],
)
def test_settings_that_make_no_adapter(changes, message):
    whole = {
        "stages": [{"steps": 1, "cycle": CYCLE}],
        "lora": {"understander": LORA | changes},
    }
    with pytest.raises(UserError, match=message):
        load_config(train_config(), None, base=whole)


def test_a_frozen_decoder_cannot_train_its_text_encoder():
    whole = {
        "stages": [{"steps": 1, "cycle": CYCLE}],
        "lora": {"generator": LORA},
        "generate": {"train_text_encoder": True},
    }
    with pytest.raises(UserError, match=r"lora.generator freezes the decoder"):
        load_config(train_config(), None, base=whole)


def test_an_override_turns_adapters_on():
    whole = {"stages": [{"steps": 1, "cycle": CYCLE}]}
    assert load_config(train_config(), None, base=whole).lora.understander is None
    config = load_config(train_config(), None, ["lora.understander={rank: 64, alpha: 128}"], whole)
    assert (config.lora.understander.rank, config.lora.understander.alpha) == (64, 128)
