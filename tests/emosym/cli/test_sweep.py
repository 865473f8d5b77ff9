from __future__ import annotations

import pytest
from PIL import Image

from emosym.inference import sheets
from emosym.inference.png_metadata import read_png_metadata
from tests.emosym.cli.command import emosym, names_in, refused

ASKED = ("generate", "--prompt", "a boat", "--num-inference-steps", 1, "--seed", 7)


def test_a_folder_gets_the_sheet_and_each_image(model, tmp_path):
    out = tmp_path / "out"
    sweep = ("--sweep", "valence", "--points", 3, "--arousal", "1.5", "--out", out)
    done = emosym(*ASKED, *sweep, "--model", model, "--json")
    assert done.err == ""
    names = [f"valence{v:+.2f}_arousal+1.50.png" for v in (-3, 0, 3)]
    assert names_in(out) == sorted([*names, "sheet.png"])
    found = done.json
    assert found["sheet"] == str(out / "sheet.png")
    common = {"prompt": "a boat", "emotion": None, "arousal": 1.5, "seed": 7}
    for record, name, valence in zip(found["images"], names, (-3.0, 0.0, 3.0), strict=True):
        judged = {key: record.pop(key) for key in list(record) if key.startswith("judged_")}
        assert record == {"image": str(out / name), **common, "valence": valence}
        assert set(judged) == {"judged_valence", "judged_arousal", "judged_emotion"}
        assert -3 <= judged["judged_valence"] <= 3
        assert read_png_metadata(out / name).request.affect.valence == valence
    assert list(found["continuity"]) == ["valence"]
    along = found["continuity"]["valence"]
    assert -1 <= along["spearman"] <= 1
    assert along["colour_step"] > 0
    with Image.open(out / "sheet.png") as sheet:
        for column, name in enumerate(names):
            x, y = sheets.cell_origin(0, column)
            cell = sheet.crop((x, y, x + sheets.CELL, y + sheets.CELL))
            with Image.open(out / name) as image:
                shown = image.resize((sheets.CELL, sheets.CELL), Image.Resampling.LANCZOS)
            assert cell.tobytes() == shown.tobytes()


def test_each_image_is_what_generate_gives(model, tmp_path):
    sweep = ("--sweep", "arousal", "--points", 2, "--out", tmp_path / "out")
    assert emosym(*ASKED, *sweep, "--model", model).code == 0
    one = ("--valence", 0, "--arousal", 3, "--out", tmp_path / "one.png")
    assert emosym(*ASKED, *one, "--model", model).code == 0
    swept = tmp_path / "out" / "valence+0.00_arousal+3.00.png"
    assert swept.read_bytes() == (tmp_path / "one.png").read_bytes()


def test_a_png_is_the_sheet_alone(model, tmp_path):
    out = tmp_path / "plane.png"
    sweep = ("--sweep", "plane", "--points", 2, "--out", out, "--model", model)
    done = emosym(*ASKED, *sweep)
    assert (done.code, done.err) == (0, "")
    assert names_in(tmp_path) == ["plane.png"]
    assert "Spearman" in done.out
    assert "arousal" in done.out
    with Image.open(out) as sheet:
        width, height = (edge + sheets.CELL for edge in sheets.cell_origin(1, 1))
        assert sheet.size == (width + sheets.GAP, height + sheets.BOTTOM)
    refused(emosym(*ASKED, *sweep), f"{out} exists", "--overwrite")
    found = emosym(*ASKED, *sweep, "--overwrite", "--json").json
    assert [record["image"] for record in found["images"]] == [None] * 4
    assert [(r["valence"], r["arousal"]) for r in found["images"]] == [
        (-3, -3),
        (3, -3),
        (-3, 3),
        (3, 3),
    ]
    assert list(found["continuity"]) == ["valence", "arousal"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ["--sweep", "valence", "--valence", "1"],
            "swept and takes no value; got valence 1",
        ),
        (["--sweep", "plane", "--arousal", "0"], "arousal is swept and takes no value"),
        (["--sweep", "arousal", "--valence", "4"], "valence is outside its scale; got 4"),
        (
            ["--sweep", "valence", "--num-images-per-prompt", "1"],
            "--num-images-per-prompt has no effect with --sweep",
        ),
        (["--sweep", "valence", "--points", "1"], "Invalid value for '--points'"),
        (["--sweep", "valence", "--points", "26"], "Invalid value for '--points'"),
        (["--sweep", "dominance"], "Invalid value for '--sweep'"),
        (["--points", "3"], "--points has no effect without --sweep"),
        (["--sweep", "valence", "--emotion", "angr"], "unknown emotion 'angr'"),
        (["--sweep", "valence", "--guidance-scale", "nan"], "the guidance scale; got nan"),
    ],
)
def test_a_bad_sweep_is_an_error_before_a_model_is_loaded(options, problem, tmp_path):
    asked = ("generate", "--prompt", "x", *options, "--out", tmp_path / "x.png")
    refused(emosym(*asked, "--model", "no-such-model"), problem)
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_is_not_finite_leaves_no_files(model, tmp_path):
    wild = (
        "--sweep",
        "valence",
        "--points",
        2,
        "--guidance-scale",
        "1e300",
        "--out",
        tmp_path / "out",
    )
    refused(emosym(*ASKED, *wild, "--model", model), "pixels that are not finite")
    assert list(tmp_path.iterdir()) == []


def test_files_are_not_replaced_without_overwrite(model, tmp_path):
    (tmp_path / "sheet.png").write_bytes(b"precious")
    done = emosym(*ASKED, "--sweep", "valence", "--out", tmp_path, "--model", "no-such-model")
    refused(done, f"{tmp_path / 'sheet.png'} exists; got 1 of 6 files that exist")
    assert names_in(tmp_path) == ["sheet.png"]
