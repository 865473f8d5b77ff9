"""Each phase moves what it owns, and teaches what it is for."""

from __future__ import annotations

import statistics

import pytest

from tests.train import probes
from tests.train.processes import in_ranks

OWNS = {
    "autoencode": {"autoencoder"},
    "compress": {"understander"},
    "instruct": {"understander"},
    "verify_posterior": {"understander"},
    "verify_grpo": {"understander"},
    "generate": {"generator"},
    "reinforce": {"generator"},
    "remember": set(),
}
FROZEN = "generator.denoiser.text_encoder."
STILL = {
    "learning_rate": 2e-3,
    "weight_decay": 0.0,
    "warmup_steps": 0,
    "lr_scheduler_type": "constant",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory, model, world):
    """Return what every case of this file gave, from one process."""
    folder = tmp_path_factory.mktemp("phases")

    def whole(cycle, steps=1, **sections):
        stages = [{"steps": steps, "cycle": cycle}]
        return probes.settings(model, world, stages=stages, **sections)

    every = dict.fromkeys(OWNS, 1)
    rates = {"engine": dict.fromkeys(("understander", "generator", "autoencoder"), STILL)}
    steps = {
        "turns": whole(every, 2 * len(every), verify_grpo={"reward_weights": probes.TOY}),
        "both": whole(
            {"compress": 1, "generate": 1, "remember": 1},
            6,
            generate={"update_understander": True, "image_share": 0.0},
        ),
        "flow": whole(
            {"generate": 1}, generate={"update_understander": True, "image_share": 0.0}, **rates
        ),
        "text": whole({"generate": 1}, generate={"train_text_encoder": True}),
    }
    soon = {**STILL, "warmup_steps": 5}
    quick = {"engine": {"understander": soon, "generator": soon}}
    lessons = {
        "memorise": (whole({"compress": 1}, 80, compress={"batch_size": 8}, **quick), 8),
        "instruct": (
            whole(
                {"instruct": 1},
                60,
                instruct={"batch_size": 8},
                data={"tasks": ["valence", "dominant"]},
                engine={"understander": {**soon, "learning_rate": 6e-3}},
            ),
            4,
        ),
        "flow": (
            whole({"generate": 1}, 150, generate={"batch_size": 8, "image_share": 0.0}, **quick),
            4,
        ),
        "bandit": (
            whole(
                {"verify_grpo": 1},
                30,
                verify_grpo={
                    "reward_weights": probes.TOY,
                    "batch_size": 4,
                    "num_generations": 8,
                    "beta": 0.0,
                },
                engine={"understander": {**STILL, "learning_rate": 8e-3, "warmup_steps": 5}},
            ),
            4,
        ),
    }
    return {
        "moved": in_ranks(
            probes.many, probes.moved, {n: (folder / "moved" / n, w) for n, w in steps.items()}
        )[0],
        "learned": in_ranks(
            probes.many, probes.learned, {n: (folder / n, *w) for n, w in lessons.items()}
        )[0],
    }


def parts(changed: set[str]) -> set[str]:
    return {name.split(".")[0] for name in changed}


def test_a_phase_moves_only_what_it_owns(found):
    """Also in the second turn, when momentum and weight decay of other phases are there to act."""
    turns = found["moved"]["turns"]
    assert [phase for phase, _ in turns] == list(OWNS) * 2
    for phase, changed in turns:
        assert parts(changed) == OWNS[phase], phase
        assert not any(name.startswith(FROZEN) for name in changed)


def test_generate_can_move_both_parts(found):
    for phase, changed in found["moved"]["both"]:
        both = {"understander", "generator"}
        assert parts(changed) == {"compress": {"understander"}, "generate": both}.get(phase, set())
        assert not any(name.startswith(FROZEN) for name in changed)


def test_the_flow_loss_reaches_the_reasoner_and_the_connector(found):
    """Without decay and momentum, and with no other loss, only a gradient moves a weight."""
    [(_, changed)] = found["moved"]["flow"]
    assert "understander.reasoner.context" in changed
    assert "understander.reasoner.emotion" in changed
    for part in ("norm_ctx.", "norm_emo.", "connector.layers.0.", "connector.layers.1."):
        assert any(name.startswith(f"generator.conditioner.{part}") for name in changed)
    heads = ("understander.emotion_head", "understander.affect_head", "understander.knowledge_head")
    assert not any(name.startswith(heads) for name in changed)


def test_the_text_encoder_trains_when_asked(found):
    [(_, changed)] = found["moved"]["text"]
    assert any(name.startswith(FROZEN) for name in changed)


def test_compress_memorises_eight_images(found):
    lesson = found["learned"]["memorise"]
    assert lesson["accuracy"] == 1.0
    assert lesson["v_error"] < 0.3
    assert lesson["a_error"] < 0.3


def test_instruct_learns_eight_answers(found):
    rows = found["learned"]["instruct"]["rows"]
    assert rows[0]["instruct/loss"] > 4
    assert statistics.mean(row["instruct/loss"] for row in rows[-5:]) < 0.8
    assert statistics.mean(row["instruct/token_accuracy"] for row in rows[-5:]) > 0.75


def test_generate_fits_four_images(found):
    flow = [row["generate/flow"] for row in found["learned"]["flow"]["rows"]]
    assert statistics.mean(flow[-30:]) < 0.6 * statistics.mean(flow[:5])


def test_grpo_raises_a_toy_reward(found):
    reward = [row["verify_grpo/reward_total"] for row in found["learned"]["bandit"]["rows"]]
    assert statistics.mean(reward[-5:]) > statistics.mean(reward[:5]) + 0.3


def test_sampling_and_training_agree_on_the_policy(found):
    """The ratio of the two log-probabilities is 1 but for rounding."""
    rows = found["learned"]["bandit"]["rows"]
    deviations = [row["verify_grpo/ratio_deviation"] for row in rows]
    assert max(deviations) < 1e-4
    assert max(deviations) > 0
