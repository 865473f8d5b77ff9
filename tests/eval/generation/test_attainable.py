from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest

from data_tools.affectworld.render import render
from data_tools.affectworld.scene import SUBJECTS, draw_scene
from data_tools.affectworld.truth import affect_of, colour_of, colour_term, light_for, subject_term
from data_tools.affectworld.world import BRIGHTNESS, SATURATION
from emosym.affect.scales import Affect
from emosym.errors import UserError
from eval.generation.attainable import attainable


def test_what_the_world_draws_has_no_error() -> None:
    rng = random.Random(0)
    for subject in SUBJECTS:
        light = rng.uniform(*BRIGHTNESS), rng.uniform(*SATURATION)
        term = subject_term(subject)
        valence, arousal, _ = colour_term(*light)
        target = valence + term[0], arousal + term[1]
        if max(map(abs, target)) <= 3:
            assert sum(attainable(subject, Affect(*target))) < 0.02
    assert sum(attainable("cat", Affect(0, 0))) < 0.02


def test_a_corner_by_hand() -> None:
    # A skull at (3, -3) wants more light than 0.90, which is 2 deviations up. Arousal of -3 is then
    # met at a saturation z of 2 (-0.31 · 2 + 0.6 z) + 0.2 = -3: z = -1.633, a saturation of 0.156.
    # V = 2 (0.69 · 2 - 0.22 · 1.633) - 0.7 = 1.341. More colour would cost more than it brings.
    assert light_for(3, -3, "skull")[0] > 0.9
    v_error, a_error = attainable("skull", Affect(3, -3))
    assert v_error == pytest.approx(3 - 1.341, abs=0.02)
    assert a_error == pytest.approx(0.0, abs=0.02)


def test_a_drawn_picture_reaches_it_and_none_goes_far_below() -> None:
    rng = random.Random(1)
    for subject, target in (("heart", (-3, 3)), ("tree", (3, 3)), ("spider", (3, 0))):
        floor = sum(attainable(subject, Affect(*target)))
        errors = []
        for light in product(np.linspace(*BRIGHTNESS, 11), np.linspace(*SATURATION, 11)):
            seen = affect_of(colour_of(render(draw_scene(rng, subject, *light), 32)), subject)
            errors.append(abs(seen.valence - target[0]) + abs(seen.arousal - target[1]))
        assert min(errors) == pytest.approx(floor, abs=0.25)
        assert min(errors) > floor - 0.1, "pixels round"


def test_an_unknown_subject_is_reported() -> None:
    with pytest.raises(UserError, match="unknown subject 'dragon'"):
        attainable("dragon", Affect(0, 0))
