from __future__ import annotations

import pytest

from emosym.affect.scales import PUBLIC
from emosym.affect.taxonomies import MIKELS8, NORMS, mikels
from emosym.errors import UserError


def test_labels_are_mapped_by_name_in_any_spelling():
    assert [mikels(name) for name in MIKELS8] == list(MIKELS8)
    assert mikels(" Awe ") == "awe"
    assert mikels("SAD") == "sadness"
    assert mikels("content") == "contentment"


def test_an_unknown_label_names_the_nearest_and_all():
    with pytest.raises(UserError) as caught:
        mikels("angar")
    assert str(caught.value) == (
        "unknown emotion 'angar'; expected one of amusement, anger, awe, contentment, disgust, "
        "excitement, fear, sadness; did you mean 'anger'?"
    )
    with pytest.raises(UserError, match="unknown emotion 'joy'"):
        mikels("joy")


def test_norms_cover_every_label_and_split_good_from_bad():
    assert set(NORMS) == set(MIKELS8)
    valence = {name: norm.to(PUBLIC).valence for name, norm in NORMS.items()}
    assert {name for name in MIKELS8 if valence[name] > 0} == set(MIKELS8[:4])
    assert NORMS["excitement"].to(PUBLIC).arousal == pytest.approx((6.21 - 5) * 3 / 4)
