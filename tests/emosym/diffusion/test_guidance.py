from __future__ import annotations

import pytest
import torch

from emosym.diffusion.guidance import combine, guidance_of

NONE, TEXT = frozenset(), frozenset({"text"})
BOTH, ALL = frozenset({"text", "affect"}), frozenset({"text", "affect", "state"})
CASES = [
    (1.0, [(ALL, 1.0)]),
    (2.5, [(NONE, 1.0), (ALL, 2.5)]),
    (0.0, [(NONE, 1.0), (ALL, 0.0)]),
    ({}, [(ALL, 1.0)]),
    ({"text": 2, "affect": 2, "state": 2}, [(NONE, 1.0), (ALL, 2)]),
    ({"affect": 3}, [(TEXT, 1.0), (BOTH, 3), (ALL, 1.0)]),
    ({"state": 0.5}, [(BOTH, 1.0), (ALL, 0.5)]),
    ({"text": 2, "affect": 2}, [(NONE, 1.0), (BOTH, 2), (ALL, 1.0)]),
    ({"text": 4, "affect": 3, "state": 2}, [(NONE, 1.0), (TEXT, 4), (BOTH, 3), (ALL, 2)]),
]


@pytest.mark.parametrize(("scale", "expected"), CASES)
def test_no_more_outputs_than_scales_differ(scale, expected):
    assert guidance_of(scale) == expected


@pytest.mark.parametrize("scale", [scale for scale, _ in CASES])
def test_the_guided_output_is_that_of_all_four_outputs(scale):
    """Merged outputs give the sum over all sources, one after the other."""
    outputs = dict(
        zip((NONE, TEXT, BOTH, ALL), torch.randn(4, 5, dtype=torch.float64), strict=True)
    )
    each = {"text": scale, "affect": scale, "state": scale} if isinstance(scale, float) else scale
    expected = (
        outputs[NONE]
        + each.get("text", 1) * (outputs[TEXT] - outputs[NONE])
        + each.get("affect", 1) * (outputs[BOTH] - outputs[TEXT])
        + each.get("state", 1) * (outputs[ALL] - outputs[BOTH])
    )
    guidance = guidance_of(scale)
    torch.testing.assert_close(combine([outputs[s] for s, _ in guidance], guidance), expected)
