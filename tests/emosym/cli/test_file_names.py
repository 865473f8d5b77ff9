"""File names of any bytes: read, shown safely, and the same name comes back from JSON."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from data_tools.sources.registry import SOURCES, Source
from emosym.records import Sample
from tests.emosym.cli.command import ROOT, Done, emosym, start

NAMES = [
    b"caf\xe9.png",  # Latin-1
    b"\xff\xfe.jpg",
    b"new\nline.png",
    b"esc\x1b[31mred.png",
    b"\xc2\x9bcsi.png",  # U+009B, the control sequence introducer of 8 bits
    "right\u202eto left.png".encode(),
    "line\u2028end.png".encode(),
    "ö 日本 🙂.png".encode(),
    b'quote".png',
]


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory) -> Path:
    """Return a folder with all names, whose own name is not UTF-8."""
    made = tmp_path_factory.mktemp("names") / os.fsdecode(b"f\xfclder")
    made.mkdir()
    for name in NAMES:
        shutil.copy(pictures / "a.png", made / os.fsdecode(name))
    (made / os.fsdecode(b"not\xe9.txt")).write_text("a")
    return made


def in_process(*arguments: object) -> tuple[int, bytes, bytes]:
    """Run the command in a process of its own, whose output is bytes."""
    with start(*arguments, text=False) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def check_shown(shown: bytes) -> None:
    """Check that an output is UTF-8 that cannot steer a terminal."""
    text = shown.decode()
    assert all(character.isprintable() or character in "\n\t" for character in text)


def test_understanding_them(folder, model):
    code, out, err = in_process("understand", folder, "--model", model, "--json")
    assert code == 0, err
    check_shown(out)
    check_shown(err)
    assert b"skipped, as hidden or not JPEG" in err
    images = [record["image"] for record in json.loads(out)]
    assert sorted(os.fsencode(Path(image).name) for image in images) == sorted(NAMES)
    assert all(Path(image).is_file() for image in images)


def test_understanding_them_in_words(folder, model):
    given = sorted(path for path in folder.iterdir() if path.suffix != ".txt")
    code, out, err = in_process("understand", *given, "--model", model)
    assert (code, err) == (0, b"")
    check_shown(out)
    assert out.count(b"valence") >= len(NAMES)


def test_a_broken_one_is_told(folder, model, tmp_path):
    broken = tmp_path / os.fsdecode(b"br\xf6ken\n\x1b[0m.png")
    broken.write_bytes(b"no image")
    code, out, err = in_process("understand", broken, "--model", model, "--json")
    assert (code, out) == (2, b"")
    check_shown(err)
    assert err.count(b"\n") == 1
    assert b"br\\udcf6ken" in err


def test_a_name_that_is_no_file_and_no_text_is_refused_at_once(model):
    code, out, err = in_process("understand", os.fsdecode(b"\xff\xfe"), "--model", model)
    assert (code, out) == (2, b"")
    assert b"not UTF-8" in err
    check_shown(err)


def test_a_dataset_in_such_a_folder(world, tmp_path):
    place = tmp_path / os.fsdecode(b"d\xe9j\xe0 vu")
    shutil.copytree(world, place)
    out = tmp_path / os.fsdecode(b"d\xe9j\xe0 vu") / "imported"
    for command in (
        ("import", "emoset", place, out),
        ("validate", place),
        ("validate", out),
        ("stats", place),
    ):
        for options in ((), ("--json",)):
            code, said, err = in_process("data", *command, *options)
            assert (code, err) == (0, b""), err
            check_shown(said)
            if options:
                value = json.loads(said)
                assert Path(value.get("manifest", out)).exists()
            shutil.rmtree(out) if command[0] == "import" and not options else None


def test_images_of_a_dataset_with_such_names(folder, tmp_path, monkeypatch):
    """A manifest is UTF-8: what its JSON cannot name is listed, and the rest imported."""

    def read(root: Path):
        for place, path in enumerate(sorted(root.glob("*.[pj][np]g"))):
            yield Sample(id=str(place), image=path, split="train")

    monkeypatch.setitem(SOURCES, "any", Source(lambda root: False, read, "images"))
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    out = tmp_path / "out"
    done: Done = emosym("data", "import", "any", source, out, "--json")
    check_shown(done.out.encode())
    assert done.json["imported"] == len(NAMES) - 2
    rejected = [json.loads(line) for line in (out / "quarantine.jsonl").read_bytes().splitlines()]
    names = sorted(os.fsencode(Path(row["where"]).name or row["record"]) for row in rejected)
    assert len(names) == 2
    for data in ((out / "quarantine.jsonl").read_bytes(), (out / "manifest.jsonl").read_bytes()):
        check_shown(data)
    checked = emosym("data", "validate", out, "--json").json
    assert checked["valid"]


def test_json_of_strange_text_by_hand():
    from emosym.strict_json import to_json

    text = "a\udcff\x07\x9b\u202e\u2028\n\U000e0001é🙂"
    written = to_json({text: 1})
    assert written == (r'{"a\udcff\u0007\u009b\u202e\u2028\n\udb40\udc01é🙂": 1}')
    assert json.loads(written) == {text: 1}
    assert to_json([1, "x"], indent=2) == '[\n  1,\n  "x"\n]'
    with pytest.raises(ValueError, match="JSON"):
        to_json(float("nan"))


def test_json_is_the_same_in_every_locale(folder, model):
    path = folder / os.fsdecode(NAMES[7])
    said = []
    for encoding in ("utf-8", "latin-1", "ascii"):
        with start(
            *("understand", path, "--model", model, "--json"),
            text=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        ) as process:
            said.append(process.communicate(timeout=120)[0])
        assert process.returncode == 0
    values = [json.loads(each.decode()) for each in said]
    assert values[0] == values[1] == values[2]
    assert values[0][0]["image"] == str(path)
