"""Records that carry affect, and their plain data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emosym.affect.scales import Affect
from emosym.errors import UserError
from emosym.records import ImageRequest, Sample, Understanding


def sample(**ratings: float | None) -> Sample:
    return Sample(id="1", image=Path("/a.jpg"), split="train", **ratings)


def test_a_sample_has_an_affect_if_both_ratings_are_known():
    assert sample(valence=-1.0, arousal=0.0).affect == Affect(-1, 0)
    assert sample(valence=-1.0).affect is None
    assert sample(arousal=0.0, dominance=1.0).affect is None
    with pytest.raises(UserError, match="valence is outside its scale; got 4"):
        sample(valence=4.0, arousal=0.0).affect  # noqa: B018


def test_plain_data_has_valence_and_arousal_side_by_side():
    request = ImageRequest(prompt="a tree", affect=Affect(2, -1.5))
    assert json.dumps(request.to_dict()) == (
        '{"prompt": "a tree", "emotion": null, "valence": 2, "arousal": -1.5}'
    )
    assert ImageRequest(emotion="awe").to_dict() == {
        "prompt": "",
        "emotion": "awe",
        "valence": None,
        "arousal": None,
    }
    seen = Understanding(
        emotion="awe", probabilities={"awe": 1.0}, affect=Affect(1.0, 0.5), text="x"
    )
    assert json.dumps(seen.to_dict()) == (
        '{"emotion": "awe", "probabilities": {"awe": 1.0}, "valence": 1.0, "arousal": 0.5,'
        ' "answer": "x", "thought": "", "unlike_training": null}'
    )
