from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from data_tools.labels.lexicon import with_lexicon_affect
from emosym.records import Sample


def sample(number: int, **facts) -> Sample:
    return Sample(id=f"s{number}", image=Path("a.png"), split="train", **facts)


def test_the_draws_have_the_lexicons_mean_and_a_share_of_its_deviation():
    """Excitement: valence 1.965 ± 1.035, arousal 0.908 ± 1.875 on [-3, 3]."""
    drawn = with_lexicon_affect([sample(i, emotion="excitement") for i in range(2000)], 0.25, 0)
    valence, arousal = ([getattr(s, axis) for s in drawn] for axis in ("valence", "arousal"))
    assert statistics.mean(valence) == pytest.approx(1.965, abs=0.02)
    assert statistics.stdev(valence) == pytest.approx(1.035 / 4, rel=0.05)
    assert statistics.mean(arousal) == pytest.approx(0.908, abs=0.04)
    assert statistics.stdev(arousal) == pytest.approx(1.875 / 4, rel=0.05)


def test_without_spread_every_image_has_the_words_norms():
    [fear] = with_lexicon_affect([sample(0, emotion="fear")], 0.0, 0)
    assert (fear.valence, fear.arousal) == pytest.approx((-1.5525, 0.855))


def test_a_draw_depends_on_seed_and_id_alone_and_stays_on_the_scale():
    many = [sample(i, emotion="sadness") for i in range(300)]
    drawn = with_lexicon_affect(many, 1.0, 0)
    assert with_lexicon_affect(many[::-1], 1.0, 0) == drawn[::-1]
    assert with_lexicon_affect(many, 1.0, 1) != drawn
    assert all(-3 <= s.valence <= 3 and -3 <= s.arousal <= 3 for s in drawn)
    assert min(s.arousal for s in drawn) == -3


def test_ratings_stay_and_images_without_a_label_get_none():
    given = [sample(0, emotion="awe", valence=0.5), sample(1), sample(2, arousal=1.0)]
    assert with_lexicon_affect(given, 1.0, 0) == given
