from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_tools.manifest import read_manifest, validate_manifest, write_manifest
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.records import Sample


@pytest.fixture
def root(tmp_path, picture) -> Path:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "sub" / "b.jpg")
    return tmp_path


def manifest(root: Path, *records: object) -> Path:
    path = root / "manifest.jsonl"
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("\n".join(lines) + "\n")
    return path


GOOD = {"id": "1", "image": "a.jpg", "split": "train"}


def problems(root: Path, *records: object) -> list[str]:
    path = manifest(root, *records)
    return [str(problem).replace(f"{path}:", "") for problem in validate_manifest(path)]


def test_round_trip(root):
    samples = [
        Sample(
            id="x",
            image=root / "a.jpg",
            split="test",
            emotion="awe",
            valence=0.0,
            arousal=-3.0,
            dominance=3,
            prompt="a cat",
            emotional_prompt="a dark cat",
            knowledge="Cats “see” in the dark.",
            attributes={"brightness": 0.0, "object": ["Cat"]},
            votes={"awe": 2, "fear": 0.25, "anger": 0},
            source="made",
        ),
        Sample(id="y", image=root / "sub" / "b.jpg", split="val"),
    ]
    write_manifest(root / "manifest.jsonl", samples)
    assert read_manifest(root / "manifest.jsonl") == samples
    assert validate_manifest(root / "manifest.jsonl") == []
    assert sorted(path.name for path in root.iterdir()) == ["a.jpg", "manifest.jsonl", "sub"]


def test_a_manifest_may_be_named_by_a_relative_path(root, monkeypatch):
    manifest(root, GOOD)
    monkeypatch.chdir(root)
    (sample,) = read_manifest(Path("manifest.jsonl"))
    assert sample.image == root / "a.jpg"
    write_manifest(Path("again.jsonl"), [sample])
    assert read_manifest(Path("again.jsonl")) == [sample]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"emotion": "joy"}, "1: emotion: unknown emotion 'joy'; expected one of amusement, awe,"),
        ({"emotion": "Angr"}, "did you mean 'anger'?"),
        ({"emotion": 3}, "1: emotion: expected a string, got a number"),
        ({"emotion": ""}, "1: emotion: is an empty string; leave the key out"),
        ({"split": "dev"}, "1: split: unknown split 'dev'; expected one of train, val, test"),
        ({"split": ["train"]}, "1: split: expected a string, got a list"),
        ({"valence": 3.5}, "1: valence: 3.5 is outside [-3, 3]; convert it"),
        ({"arousal": -3.01}, "1: arousal: -3.01 is outside [-3, 3]"),
        ({"dominance": 10**400}, "1: dominance: a number that is NaN, infinite or too large"),
        ({"dominance": 10**40}, "1: dominance: 1000"),
        ({"valence": float("nan")}, "1: valence: a number that is NaN"),
        ({"valence": float("inf")}, "1: valence: a number that is NaN, infinite"),
        ({"attributes": {"x": [float("nan")]}}, "1: attributes.x.0: a number that is NaN"),
        ({"prompt": "\ud800"}, "1: prompt: a text with half a character"),
        ({"image": "\udfff.jpg"}, "1: image: a text with half a character"),
        ({"valence": True}, "1: valence: expected a number, got true or false"),
        ({"arousal": "0.5"}, "1: arousal: expected a number, got a string"),
        ({"attributes": [1]}, "1: attributes: expected an object, got a list"),
        ({"valance": 1.0}, "1: valance: unknown key; did you mean 'valence'?"),
        ({"zzz": 1.0}, "1: zzz: unknown key; known keys: id, image, split, emotion"),
        ({"id": ""}, "1: id: is an empty string"),
        ({"id": None}, "1: id: missing; every sample needs it"),
        ({"image": None}, "1: image: missing; every sample needs it"),
        ({"image": 5}, "1: image: expected a string, got a number"),
        ({"image": ""}, "1: image: is an empty string"),
        ({"image": "/etc/passwd"}, "1: image: path '/etc/passwd' is absolute"),
        ({"image": "sub/../../x.jpg"}, "1: image: path 'sub/../../x.jpg' leaves the dataset's"),
        ({"image": "sub\\b.jpg"}, "1: image: path 'sub\\\\b.jpg' must separate folders by /"),
        ({"image": "c.jpg"}, "1: image: file 'c.jpg' does not exist"),
        ({"image": "sub"}, "1: image: file 'sub' is not a regular file"),
        ({"votes": [1]}, "1: votes: expected an object of emotions and weights, got [1]"),
        ({"votes": {"joy": 1}}, "1: votes: unknown emotion 'joy'; expected one of amusement"),
        ({"votes": {"awe": -1}}, "1: votes: the weight of 'awe' is -1; expected a finite number"),
        ({"votes": {"awe": float("inf")}}, "1: votes.awe: a number that is NaN, infinite"),
        ({"votes": {}}, "1: votes: no weight is above 0"),
        ({"prompt": 5}, "1: prompt: expected a string, got a number"),
    ],
)
def test_every_problem_is_reported(root, change, message):
    found = problems(root, {**GOOD, **change})
    assert any(message in problem for problem in found), found
    assert len([p for p in found if message in p]) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "1: -: not JSON: "),
        ("[1]", "1: -: expected a JSON object, got a list"),
        ("null", "1: -: expected a JSON object, got null"),
        ("[" * 100_000, "1: -: not JSON"),
        ('{"valence": 1' + "0" * 5000 + "}", "1: valence: a number that is NaN, infinite or"),
        ('{"id": "1", "split": "train", "id": "2"}', "1: id: this key comes twice"),
        ('{"\\ud800": 1, "\\ud800": 2}', "1: \\ud800: this key comes twice"),
        ('{"attributes": ' + '{"a": ' * 40 + "1" + "}" * 41, "1: attributes: nested too deeply"),
    ],
)
def test_lines_that_are_no_records(root, line, message):
    (found,) = problems(root, line)
    assert found.startswith(message)


def test_text_that_is_not_utf8(root):
    (root / "m.jsonl").write_bytes(b'{"id": "\xff"}\n')
    assert [p.why for p in validate_manifest(root / "m.jsonl")] == ["not UTF-8 text"]


def test_all_problems_of_all_lines_are_reported(root):
    bad = {"id": "1", "image": "none.jpg", "split": "dev", "valence": 9, "emotion": "joy", "x": 1}
    found = problems(root, GOOD, bad, "oops", {**GOOD, "id": "3", "image": "sub/b.jpg"})
    assert [problem.split(": ")[:2] for problem in found] == [
        ["2", "x"],
        ["2", "valence"],
        ["2", "split"],
        ["2", "emotion"],
        ["2", "id"],
        ["2", "image"],
        ["3", "-"],
    ]
    assert "'1' was already used on line 1" in found[4]


def test_broken_images_are_reported(root):
    (root / "zero.jpg").write_bytes(b"")
    Image.effect_noise((200, 200), 80).save(root / "cut.jpg")
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:4000])
    (root / "text.jpg").write_text("no image")
    names = ("zero.jpg", "cut.jpg", "text.jpg", "a.jpg")
    found = problems(root, *({"id": n, "image": n, "split": "val"} for n in names))
    assert [problem.split(": ")[:2] for problem in found] == [[str(n), "image"] for n in (1, 2, 3)]
    assert "empty (0 bytes)" in found[0]
    assert "damaged" in found[1]
    assert "not an image" in found[2]


def test_a_link_may_not_leave_the_root(root, tmp_path_factory, picture):
    outside = picture(tmp_path_factory.mktemp("outside") / "secret.jpg")
    os.symlink(outside, root / "link.jpg")
    os.symlink(outside.parent, root / "folder")
    os.symlink(root / "a.jpg", root / "inner.jpg")
    os.symlink("loop.jpg", root / "loop.jpg")
    names = ("link.jpg", "folder/secret.jpg", "inner.jpg", "loop.jpg")
    found = problems(root, *({"id": n, "image": n, "split": "val"} for n in names))
    assert len(found) == 3
    assert "leaves the dataset's folder through a link" in found[0]
    assert "leaves the dataset's folder through a link" in found[1]
    assert found[2].startswith("4: image:")


def test_one_image_in_two_splits_is_a_leak(root):
    os.symlink(root / "a.jpg", root / "same.jpg")
    rows = [{"id": name, "image": name, "split": "test"} for name in ("./a.jpg", "same.jpg")]
    found = problems(root, GOOD, {**GOOD, "id": "2"}, *rows)
    assert found == [
        f"{line}: image: is in split 'train' on line 1: held-out data would leak (sample {name})"
        for line, name in ((3, "./a.jpg"), (4, "same.jpg"))
    ]


def test_reading_names_the_first_problem_and_the_count(root):
    path = manifest(root, GOOD, {**GOOD, "valence": 5}, {**GOOD, "id": "2", "split": "dev"})
    with pytest.raises(UserError) as error:
        read_manifest(path)
    assert f"{path}:2: valence: 5 is outside [-3, 3]" in str(error.value)
    assert "(3 problems in this manifest)" in str(error.value)
    assert f"emosym data validate {path}" in str(error.value)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_manifest_is_an_error(root, content):
    (root / "m.jsonl").write_text(content)
    with pytest.raises(UserError, match="the manifest is empty"):
        read_manifest(root / "m.jsonl")


def test_a_missing_manifest_and_a_pipe(root):
    os.mkfifo(root / "pipe.jsonl")
    for name in ("none.jsonl", "pipe.jsonl"):
        with pytest.raises(UserError, match=r"cannot read manifest .*give its folder, or"):
            validate_manifest(root / name)


def test_writing_refuses_an_image_elsewhere_and_keeps_the_old_file(root):
    path = manifest(root, GOOD)
    before = path.read_bytes()
    with pytest.raises(UserError, match="is outside the manifest's folder"):
        write_manifest(
            path,
            [
                Sample(id="1", image=root / "a.jpg", split="val"),
                Sample(id="2", image=Path("/x.jpg"), split="val"),
            ],
        )
    assert path.read_bytes() == before
    assert sorted(p.name for p in root.iterdir()) == ["a.jpg", "manifest.jsonl", "sub"]


texts = st.none() | st.text(min_size=1, max_size=20).filter(lambda s: s.isprintable())
affects = st.none() | st.floats(-3, 3, allow_nan=False)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    emotion=st.none() | st.sampled_from(MIKELS8),
    valence=affects,
    arousal=affects,
    prompt=texts,
    knowledge=texts,
    attributes=st.dictionaries(st.text(max_size=5), st.floats(0, 1) | st.text(max_size=5)),
    votes=st.none()
    | st.dictionaries(st.sampled_from(MIKELS8), st.floats(0.1, 1e300) | st.just(0)).filter(
        lambda votes: any(votes.values())
    ),
)
def test_any_sample_survives_the_round_trip(root, **fields):
    sample = Sample(id="1", image=root / "a.jpg", split="train", **fields)
    write_manifest(root / "p.jsonl", [sample])
    assert read_manifest(root / "p.jsonl") == [sample]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["id", "image", "split", "valence", "x"]), inner),
    max_leaves=8,
))  # fmt: skip
def test_no_json_value_breaks_the_validator(root, value):
    assert validate_manifest(manifest(root, value))  # never valid, never an exception
