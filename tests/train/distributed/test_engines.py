"""DeepSpeed's two engines under one loss do what AdamW does."""

from __future__ import annotations

import itertools

import pytest

from tests.train import probes
from tests.train.processes import in_ranks

CYCLE = {"compress": 1, "generate": 1, "verify_grpo": 1, "autoencode": 1}
CASES = list(itertools.product((1, 2), (1, 2), (0.0, 0.05)))
ROUNDS = 3


@pytest.fixture(scope="module")
def differences(tmp_path_factory, model, world):
    """Return what each case gave; one step in the cases named `once`."""
    folder = tmp_path_factory.mktemp("engines")
    calls = {}
    for zero, accumulation, clip in CASES:
        for rounds, name in ((1, "once"), (ROUNDS, "often"), (ROUNDS, "trap")):
            if name == "trap" and (zero, accumulation) != (2, 1):
                continue
            rate = {
                "learning_rate": 2e-4,
                "weight_decay": 0.1,
                "warmup_steps": 2,
                "max_grad_norm": clip,
            }
            cycle = {"generate": 1} if rounds == 1 else CYCLE
            whole = probes.settings(
                model,
                world,
                stages=[{"steps": rounds * len(cycle), "cycle": cycle}],
                engine={
                    "zero_stage": zero,
                    "gradient_accumulation_steps": accumulation,
                    **dict.fromkeys(("understander", "generator", "autoencoder"), rate),
                },
                compress={"distil_weight": 1.0, "reconstruct_weight": 0.1},
                generate={"update_understander": True, "image_share": 0.5},
                verify_grpo={"reward_weights": probes.TOY},
            )
            key = f"{name} {zero} {accumulation} {clip}"
            # What DeepSpeed does when it is told nothing.
            twin = 1.0 if name == "trap" else clip
            calls[key] = (folder / key.replace(" ", "-"), whole, rounds, twin)
    return in_ranks(probes.many, probes.against_plain_torch, calls)[0]


@pytest.mark.parametrize(("zero", "accumulation", "clip"), CASES)
@pytest.mark.parametrize("rounds", ["once", "often"])
def test_engines_equal_plain_adamw(differences, rounds, zero, accumulation, clip):
    found = differences[f"{rounds} {zero} {accumulation} {clip}"]
    assert found["movement"] > (5e-5 if rounds == "once" else 5e-4)
    assert found["difference"] < 3e-6
    assert found["norm"] < 1e-4


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_clipping_is_what_the_preset_says(differences, clip):
    """A twin that clips at 1.0, DeepSpeed's own default, ends elsewhere."""
    found = differences[f"trap 2 1 {clip}"]
    assert found["compress"] > 1.0
    assert found["difference"] > 3e-5
