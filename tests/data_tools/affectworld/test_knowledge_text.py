from __future__ import annotations

import random
from dataclasses import replace

from data_tools.affectworld import text
from data_tools.affectworld.scene import draw_scene
from data_tools.affectworld.truth import Colour


def test_knowledge_names_what_is_seen():
    scene = replace(
        draw_scene(random.Random(0), "snake", 0.5, 0.5),
        **{"setting": "hills", "weather": "rain", "size": "small", "place": "left"},
        **{"hue": 0.6, "body_hue": 0.0},
    )
    # zB = -1, zS = 0.5: V = 2 (-0.69 + 0.22 (0.5)) = -1.16, A = 2 (0.31 + 0.60 (0.5)) = 1.22.
    assert text.knowledge(scene, Colour(0.3, 0.6, 0.6)) == (
        "dark vivid light lowers valence and raises arousal; a small red snake threatens on the"
        " left, in the hills, rain, blue around: fear."
    )
    # A grey image has no hue that could be named.
    grey = text.knowledge(scene, Colour(0.9, 0.0, 0.0))
    assert grey == (
        "very bright grey light raises valence and lowers arousal; a small snake threatens on the"
        f" left, in the hills, rain: {grey.split(': ')[1]}"
    )
