from __future__ import annotations

import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from emosym.affect.scales import Affect
from emosym.errors import UserError
from emosym.inference.png_metadata import PngMetadata, read_png_metadata, to_png
from emosym.records import ImageRequest


def test_an_metadata_comes_back_in_any_script(tmp_path):
    metadata = PngMetadata(
        request=ImageRequest(prompt='ein "See" 夜\n', affect=Affect(-1.25, 0.5)),
        seed=2**62,
        guidance=1.5,
        steps=9,
        model="m",
    )
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    data = to_png(image, metadata)
    assert data == to_png(image, metadata)
    (tmp_path / "x.png").write_bytes(data)
    assert read_png_metadata(tmp_path / "x.png") == metadata
    for name in ("plain.png", "plain.jpg"):
        image.save(tmp_path / name)
        assert read_png_metadata(tmp_path / name) is None


@pytest.mark.parametrize(
    "state", [{}, {"space": {"awe": 0.75, "fear": 0.25}}, {"mixed_state": True}]
)
def test_metadata_says_where_the_state_came_from(tmp_path, state):
    request = ImageRequest(affect=Affect(-1.25, 0.5))
    metadata = PngMetadata(request=request, seed=3, guidance=2.0, steps=9, model="m", **state)
    (tmp_path / "x.png").write_bytes(to_png(Image.new("RGB", (4, 4)), metadata))
    found = read_png_metadata(tmp_path / "x.png")
    assert found == metadata
    assert found.mixed_state == bool(state.get("mixed_state"))


HUGE = '{"seed": 1' + "0" * 5000 + "}"


@pytest.mark.parametrize("text", ["{", "[]", "{}", "3", '{"prompt": 1}', "[" * 5000, HUGE])
def test_broken_metadata_is_an_error(tmp_path, text):
    about = PngInfo()
    about.add_text("emosym", text)
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png", pnginfo=about)
    with pytest.raises(
        UserError, match=r"x\.png has broken metadata; got .*; save the image without its metadata"
    ):
        read_png_metadata(tmp_path / "x.png")


def test_metadata_with_a_wrong_field_is_an_error(tmp_path):
    right = {"prompt": "p", "emotion": None, "valence": None, "arousal": None}
    right |= {"seed": 1, "guidance": 2.0, "steps": 3, "model": "m"}
    wrong = [{"prompt": None}, {"emotion": 3}, {"valence": "high"}, {"seed": "1"}, {"model": 0}]
    wrong += [{"prompt": "\ud800"}, {"emotion": "joy"}, {"seed": -1}, {"seed": 2**63}]
    wrong += [{"steps": "3"}, {"guidance": None}]
    wrong += [{"mixed_state": 1}, {"mixed_state": None}]
    wrong += [{"space": {"joy": 1.0}}, {"space": "awe"}, {"space": {"awe": "1"}}, {"space": {}}]
    wrong += [{"valence": value, "arousal": 0} for value in (10**400, 4, float("nan"), None)]
    for change in ({}, *wrong, {"extra": 1}):
        about = PngInfo()
        about.add_text("emosym", json.dumps(right | change))
        Image.new("RGB", (4, 4)).save(tmp_path / "x.png", pnginfo=about)
        if change:
            with pytest.raises(UserError, match=r"x\.png has broken metadata"):
                read_png_metadata(tmp_path / "x.png")
        else:
            assert read_png_metadata(tmp_path / "x.png").seed == 1
