from __future__ import annotations

from emosym.affect.scales import Affect
from emosym.records import ImageRequest
from eval.generation.errors import affect_errors, target_of


def test_errors_by_hand() -> None:
    seen, target = Affect(1.5, -2.0), (-0.5, 1.0)
    assert affect_errors(seen, target) == seen.errors(Affect(*target)) == (2.0, 3.0)


def test_a_target_needs_both_coordinates() -> None:
    assert target_of(ImageRequest(valence=0.0, arousal=-1.0)) == (0.0, -1.0)
    assert target_of(ImageRequest(prompt="a cat")) is None
    assert target_of(ImageRequest(valence=1.0)) is None
