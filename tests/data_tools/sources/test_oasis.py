from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data_tools.quarantine import Quarantined
from data_tools.sources.oasis import read_oasis
from emosym.errors import UserError
from emosym.records import Sample

HEADER = (
    ",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N"
)


def table(root: Path, rows: list[str], end: str = "\r") -> Path:
    data = end.join([HEADER, *rows, ""])
    (root / "OASIS.csv").write_bytes(data.encode())
    return root


def line(number: int, theme: str, valence: object = 4, arousal: object = 4, kind="Object") -> str:
    return f"I{number},{theme},{kind},Pixabay,{valence},0.9,102,{arousal},1.6,101"


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_line_ends_and_trailing_blanks(tmp_path, picture, end):
    picture(tmp_path / "images" / "War 2.jpg")
    table(tmp_path, [line(865, "War 2 ", 1, 7, "Scenery")], end)
    (sample,) = read_oasis(tmp_path)
    assert sample == Sample(
        id="I865",
        image=tmp_path / "images" / "War 2.jpg",
        split=sample.split,
        valence=-3.0,
        arousal=3.0,
        prompt="war",
        knowledge="The photograph shows a scenery: war.",
        attributes={"theme": "War 2", "category": "Scenery"},
        source="oasis",
    )


def test_the_scale_is_converted_and_the_rating_does_not_leak(tmp_path, picture):
    picture(tmp_path / "images" / "Angry face 1.jpg")
    table(tmp_path, [line(1, "Angry face 1", 4.6, 2.5, "Person")])
    (sample,) = read_oasis(tmp_path)
    assert sample.valence == pytest.approx(0.6)
    assert sample.arousal == pytest.approx(-1.5)
    assert sample.emotion is None
    assert sample.prompt == "face"
    assert sample.knowledge == "The photograph shows a person: angry face."


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (line(1, "Gone 1"), "'images/Gone 1.jpg' does not exist"),
        (line(1, "A", "high"), "Valence_mean is 'high'; expected a number in [1, 7]"),
        (line(1, "A", 4, ""), "Arousal_mean is ''; expected a number in [1, 7]"),
        (line(1, "A", 8), "Valence_mean is '8'; expected"),
        (line(1, "A", "nan"), "Valence_mean is 'nan'; expected"),
        (line(1, "A", "1" + "0" * 5000), f"is '1{'0' * 22}; expected"),
        (line(1, "../A"), "leaves the dataset's folder"),
        (line(1, " "), "the theme is empty"),
        ("I1,A", "Valence_mean is None"),
    ],
)
def test_rows_that_cannot_be_used_are_set_aside(tmp_path, picture, row, reason):
    picture(tmp_path / "images" / "A.jpg")
    picture(tmp_path / "images" / "B.jpg")
    bad, good = read_oasis(table(tmp_path, [row, line(2, "B")]))
    assert isinstance(bad, Quarantined)
    assert reason in bad.reason
    assert bad.where == "OASIS.csv row 1"
    assert good.id == "I2"


def test_the_split_is_stratified_and_does_not_depend_on_which_images_exist(tmp_path, picture):
    rows = [line(n, f"T {n}", 1 + 6 * ((n * 37) % 100) / 99) for n in range(100)]
    for n in range(100):
        picture(tmp_path / "images" / f"T {n}.jpg")
    whole = {s.id: s for s in read_oasis(table(tmp_path, rows))}
    assert Counter(s.split for s in whole.values()) == {"train": 80, "test": 20}
    ranked = sorted(whole.values(), key=lambda s: s.valence)
    for start in range(0, 100, 5):
        assert sum(s.split == "test" for s in ranked[start : start + 5]) == 1
    for n in range(0, 100, 3):
        (tmp_path / "images" / f"T {n}.jpg").unlink()
    part = [item for item in read_oasis(tmp_path) if isinstance(item, Sample)]
    assert len(part) == 66
    assert all(whole[s.id].split == s.split for s in part)


def test_a_table_of_another_kind(tmp_path):
    (tmp_path / "OASIS.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="got columns a, b; expected also Theme, Category"):
        list(read_oasis(tmp_path))
    (tmp_path / "OASIS.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read"):
        list(read_oasis(tmp_path))


def test_another_folder(tmp_path):
    with pytest.raises(UserError) as caught:
        list(read_oasis(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path} is not an OASIS folder; expected OASIS.csv and images/ in it"
    )


def test_a_stray_quote_is_told_instead_of_swallowing_rows(tmp_path):
    table(tmp_path, [line(1, "Lake 1"), line(2, '"Lake 2'), line(3, "Lake 3")])
    with pytest.raises(UserError, match=r"cannot read .*unexpected end of data"):
        list(read_oasis(tmp_path))


def test_the_real_table(shared):
    items = list(read_oasis(shared / "oasis"))
    assert not [item for item in items if isinstance(item, Quarantined)]
    assert Counter(item.split for item in items) == {"train": 511, "test": 128}
    by_id = {item.id: item for item in items}
    assert len(by_id) == 639
    # I1 in the table: 4.68627451 and 2.346534653 on 1-7; minus 4 on [-3, 3].
    assert by_id["I1"].valence == pytest.approx(0.68627451)
    assert by_id["I1"].arousal == pytest.approx(-1.653465347)
    assert by_id["I192"].image.name == "Crosswalk 1.jpg"  # "Crosswalk 1 " in the table
    mean = {
        split: [item.valence for item in items if item.split == split]
        for split in ("train", "test")
    }
    gap = sum(mean["train"]) / 511 - sum(mean["test"]) / 128
    assert abs(gap) < 0.05
