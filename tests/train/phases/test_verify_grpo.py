"""Options of verify_grpo: no loss ignores an option of clipping."""

from __future__ import annotations

import pytest

from emosym.config import dump_config, load_config
from emosym.errors import UserError
from train.phases.verify_grpo import VerifyGrpoConfig


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["loss_type=cispo", "epsilon=0.2"],
            "loss_type=cispo does not read epsilon; got 0.2; expected null; it reads epsilon_high",
        ),
        (
            ["loss_type=sapo", "epsilon_high=0.28"],
            "loss_type=sapo does not read epsilon_high; got 0.28; expected null; it reads no option"
            " of clipping",
        ),
        (["epsilon=-0.1"], "epsilon must lie in [0, 1]; got -0.1"),
        (["epsilon_high=-0.1"], "epsilon_high must lie in [0, inf]; got -0.1"),
    ],
)
def test_an_option_of_clipping_that_cannot_be(overrides, message):
    with pytest.raises(UserError) as caught:
        load_config(VerifyGrpoConfig, None, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "bnpo", "dapo", "cispo", "sapo"])
def test_every_loss_has_defaults_that_survive_a_file(tmp_path, loss):
    made = load_config(
        VerifyGrpoConfig, None, [f"loss_type={loss}"], base={"epsilon": None, "epsilon_high": None}
    )
    (tmp_path / "config.yaml").write_text(dump_config(made))
    assert load_config(VerifyGrpoConfig, tmp_path / "config.yaml") == made
    assert (made.epsilon, made.epsilon_high) == (None, None)


def test_null_removes_the_option_of_a_preset():
    base = {"loss_type": "grpo", "epsilon": 0.2, "epsilon_high": 0.2}
    overrides = ["loss_type=cispo", "epsilon=null", "epsilon_high=4"]
    made = load_config(VerifyGrpoConfig, None, overrides, base=base)
    assert (made.epsilon, made.epsilon_high) == (None, 4)
