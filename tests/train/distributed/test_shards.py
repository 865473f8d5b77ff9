"""A file of a checkpoint is bounded in what it unfolds to, before other code visits it."""

from __future__ import annotations

import collections

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler

from emosym.errors import UserError
from train.distributed.shards import DEEPEST, Shards


def read(tmp_path, state):
    torch.save(state, tmp_path / "states.pt")
    return Shards(None).load(str(tmp_path / "states.pt"))


def laughs(levels: int, width: int, kind: type = list):
    """Return `width` ** `levels` references to one text in `levels` small containers."""
    value = kind(["a"] * width)
    for _ in range(levels - 1):
        value = kind([value] * width)
    return value


def in_attribute(value):
    """Return a mapping that holds a value as the metadata of a state dict."""
    state = collections.OrderedDict()
    state._metadata = value
    return state


def in_scaler(value):
    scaler = LossScaler(1.0)
    scaler.cur_scale = value
    return scaler


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (laughs(DEEPEST, 10), f"deeper than {DEEPEST} levels"),
        (laughs(8, 10), "more than 10,000,000 values"),
        (laughs(8, 10, tuple), "more than 10,000,000 values"),
        (in_attribute(laughs(8, 10)), "more than 10,000,000 values"),
        (in_scaler(laughs(8, 10)), "more than 10,000,000 values"),
        ([["x" * 10_000] * 2000], "more than 10,000,000 values"),
        (collections.Counter("a"), None),
    ],
    ids=["deep", "wide", "tuples", "metadata", "scaler", "long text", "mapping"],
)
def test_what_unfolds_to_too_much_is_refused(tmp_path, value, reason):
    if reason is None:
        assert read(tmp_path, {"state": value})["state"] == value
        return
    with pytest.raises(UserError, match=reason):
        read(tmp_path, {"state": value})


def test_a_list_that_holds_itself_is_refused(tmp_path):
    ring: list = []
    ring.append(ring)
    with pytest.raises(UserError, match="nested deeper"):
        read(tmp_path, {"state": ring})


def test_the_deepest_state_is_read(tmp_path):
    value: object = torch.ones(2)
    for _ in range(DEEPEST - 1):
        value = [value]
    state = read(tmp_path, {"state": value})["state"]
    for _ in range(DEEPEST - 1):
        [state] = state
    assert torch.equal(state, torch.ones(2))
