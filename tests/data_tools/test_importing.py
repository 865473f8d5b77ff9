from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from data_tools.files.staging import staged_folder
from data_tools.importing import ImportReport, import_dataset
from data_tools.manifest import read_manifest, validate_manifest
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def world(tmp_path):
    write_world(tmp_path / "world", 80, seed=0)
    return tmp_path / "world"


def content(samples):
    return {
        s.id: (s.split, s.emotion, s.valence, s.arousal, s.prompt, s.knowledge, s.attributes)
        for s in samples
    }


def test_an_import_equals_its_source(world, tmp_path):
    seen = []
    out = tmp_path / "new" / "out"
    report = import_dataset("emoset", world, out, progress=lambda done, n: seen.append((done, n)))
    assert seen == [(n, 80) for n in range(1, 81)]
    assert report == ImportReport(
        imported=80,
        quarantined=0,
        by_split={"train": 56, "test": 16, "val": 8},
        by_emotion=dict.fromkeys(MIKELS8, 10),
    )
    assert validate_manifest(out / "manifest.jsonl") == []
    assert content(open_dataset(out)) == content(open_dataset(world))
    assert (out / "quarantine.jsonl").read_text() == ""
    image = out / "images" / "awe" / "awe_00003.jpg"
    assert image.read_bytes() == (world / "image" / "awe" / "awe_00003.jpg").read_bytes()
    shutil.rmtree(world)
    assert image.stat().st_size > 0


KILLED = """
import os, signal, sys
from pathlib import Path
from data_tools.files.staging import staged_folder
with staged_folder(Path(sys.argv[1])) as stage:
    (stage / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_import_left_goes_and_a_living_one_stays(tmp_path):
    out = tmp_path / "o[u]t"
    subprocess.run([sys.executable, "-c", KILLED, out], cwd=ROOT, check=False)
    (left,) = tmp_path.iterdir()
    (tmp_path / f".{out.name}.mine.partial").mkdir()
    with staged_folder(out) as living:
        assert not left.exists()
        (living / "all").write_text("1")
        with staged_folder(out) as second:
            (second / "all").write_text("2")
        shutil.rmtree(out)
    assert (out / "all").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".o[u]t.mine.partial", "o[u]t"]


def test_a_copy_where_links_are_impossible(world, tmp_path, monkeypatch):
    def refuse(*args: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    import_dataset("emoset", world, tmp_path / "out")
    image = tmp_path / "out" / "images" / "awe" / "awe_00003.jpg"
    assert image.stat().st_nlink == 1
    assert content(open_dataset(tmp_path / "out")) == content(open_dataset(world))


def test_two_images_of_one_place_leave_the_source_alone(world, tmp_path):
    """`image/x.jpg`, `images/x.jpg` and `x.jpg` would all become `images/x.jpg`."""
    rows = json.loads((world / "train.json").read_text())
    first = world / rows[0][2]
    second = world / "images" / first.relative_to(world / "image")
    second.parent.mkdir(parents=True)
    shutil.copyfile(world / rows[1][2], second)
    twin = [rows[0][0], "twin", second.relative_to(world).as_posix(), rows[0][3]]
    (world / "train.json").write_text(json.dumps([*rows, twin]))
    before = first.read_bytes()
    report = import_dataset("emoset", world, tmp_path / "out")
    assert first.read_bytes() == before
    assert (report.imported, report.quarantined) == (80, 1)
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert "is the target of an earlier image" in json.loads(line)["reason"]


def test_broken_images_among_many_are_listed_and_stop_nothing(world, tmp_path):
    images = world / "image"
    (images / "awe" / "awe_00001.jpg").write_bytes(b"")
    cut = images / "fear" / "fear_00002.jpg"
    cut.write_bytes(cut.read_bytes()[:700])
    (images / "anger" / "anger_00003.jpg").unlink()
    rows = json.loads((world / "train.json").read_text())
    name = next(row[1] for row in rows if row[0] == "sadness")
    (world / "val.json").write_text(
        json.dumps(
            [
                *json.loads((world / "val.json").read_text()),
                ["sadness", name, f"image/sadness/{name}.jpg", f"annotation/sadness/{name}.json"],
            ]
        )
    )
    report = import_dataset("emoset", world, tmp_path / "out")
    assert (report.imported, report.quarantined) == (77, 4)
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    reasons = " | ".join(sorted(json.loads(line)["reason"] for line in lines))
    assert "file 'image/anger/anger_00003.jpg' does not exist" in reasons
    assert "file 'image/awe/awe_00001.jpg' is empty (0 bytes)" in reasons
    assert f"id '{name}' was already used by an earlier row" in reasons
    assert "image is damaged" in reasons
    assert validate_manifest(tmp_path / "out" / "manifest.jsonl") == []
    assert len(open_dataset(tmp_path / "out")) == 77


def test_rows_without_a_usable_id_and_links_to_used_images_are_set_aside(world, tmp_path):
    rows = json.loads((world / "train.json").read_text())
    for place, name in enumerate(("", None, ["x"], 7)):
        rows[place][1] = name
    os.symlink(world / rows[5][2], world / "image" / "link.jpg")
    (world / "train.json").write_text(json.dumps(rows))
    (world / "val.json").write_text(json.dumps([["awe", "x", "image/link.jpg", rows[5][3]]]))
    report = import_dataset("emoset", world, tmp_path / "out")
    assert report.by_split == {"train": 52, "test": 16}
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    found = {row["record"]: row["reason"] for row in map(json.loads, lines)}
    reasons = [found[row[2]] for row in rows[:4]]
    assert reasons == [
        "id: missing; every sample needs it",
        "id: missing; every sample needs it",
        "id: expected a string, got a list",
        "id: expected a string, got a number",
    ]
    assert len(found) == 5
    assert validate_manifest(tmp_path / "out" / "manifest.jsonl") == []


def values(leaves):
    return st.recursive(
        leaves | st.none() | st.booleans() | st.integers(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=4,
    )


odd = values(st.floats() | st.text(st.characters(categories=["L", "Cs"]), max_size=4))
KEYS = ["emotion", "valence", "neutral_prompt", "qwen_aug", "scene", "object", "source"]


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(values(st.text(max_size=3)), min_size=3, max_size=3),
    notes=st.lists(st.dictionaries(st.sampled_from(KEYS), odd), min_size=3, max_size=3),
)
def test_what_an_import_writes_can_be_read(names, notes):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "in")
        root.mkdir()
        (root / "info.json").write_text("{}")
        rows = []
        for place, (name, note) in enumerate(zip([*names, "good"], [*notes, {}], strict=True)):
            Image.new("RGB", (2, 2)).save(root / f"{place}.png")
            (root / f"{place}.json").write_text(json.dumps(note))
            rows.append(["awe", name, f"{place}.png", f"{place}.json"])
        (root / "train.json").write_text(json.dumps(rows[:2]))
        (root / "test.json").write_text(json.dumps(rows[2:]))
        report = import_dataset("emoset", root, Path(folder, "out"))
        assert len(read_manifest(Path(folder, "out", "manifest.jsonl"))) == report.imported


def test_nothing_to_import(world, tmp_path):
    shutil.rmtree(world / "image")
    with pytest.raises(
        UserError, match=r"nothing in .* could be imported; got 80 rows, all quarantined"
    ):
        import_dataset("emoset", world, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["world"]


def test_bad_arguments(world, tmp_path):
    with pytest.raises(UserError, match=r"unknown dataset 'emosett'.*did you mean 'emoset'"):
        import_dataset("emosett", world, tmp_path / "out")
    with pytest.raises(UserError, match="no folder"):
        import_dataset("emoset", tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match=r"is not an OASIS folder; expected OASIS\.csv and images/"):
        import_dataset("oasis", world, tmp_path / "out")
    with pytest.raises(UserError, match="already exists and is not an empty folder"):
        import_dataset("emoset", world, world)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["world"]


def test_an_interrupted_import_leaves_nothing(world, tmp_path):
    def stop(done: int, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_dataset("emoset", world, tmp_path / "out", progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["world"]


def test_the_real_oasis(shared, tmp_path):
    report = import_dataset("oasis", shared / "oasis", tmp_path / "out")
    assert report == ImportReport(639, 0, {"train": 511, "test": 128}, {"unlabelled": 639})
    assert content(open_dataset(tmp_path / "out")) == content(open_dataset(shared / "oasis"))
