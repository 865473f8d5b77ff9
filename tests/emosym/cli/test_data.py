from __future__ import annotations

import json
import shutil
from pathlib import Path

from emosym.affect.taxonomies import MIKELS8
from tests.emosym.cli.command import emosym, names_in, refused


def test_the_same_seed_draws_the_same_world(world, tmp_path):
    again = tmp_path / "again"
    done = emosym("data", "world", again, "--count", 24, "--seed", 5, "--size", 32)
    assert done.out == f"24 images in {again}\n"
    assert names_in(again) == names_in(world)
    for path in sorted(world.rglob("*.jpg")):
        assert (again / path.relative_to(world)).read_bytes() == path.read_bytes()


def test_a_world_is_imported_validated_and_counted(world, tmp_path):
    out = tmp_path / "out"
    report = emosym("data", "import", "emoset", world, out, "--json").json
    assert list(report) == ["manifest", "imported", "quarantined", "by_split", "by_emotion"]
    assert (report["imported"], report["quarantined"]) == (24, 0)
    assert report["by_emotion"] == dict.fromkeys(MIKELS8, 3)
    manifest = Path(report["manifest"])
    assert manifest == out / "manifest.jsonl"
    for path in (manifest, out):
        done = emosym("data", "validate", path, "--json")
        assert done.json == {"manifest": str(manifest), "valid": True, "problems": []}
    assert emosym("data", "validate", out).out == f"{manifest} is valid\n"
    stats = emosym("data", "stats", out, "--json").json
    assert stats == emosym("data", "stats", world, "--json").json
    assert stats["samples"] == 24
    assert stats["splits"] == report["by_split"]
    assert {
        sum(split.get(name, 0) for split in stats["emotions"].values()) for name in MIKELS8
    } == {3}
    assert stats["questions"]["ranking"] == stats["questions"]["dominance"] == 24
    assert stats["questions"]["perception"] > 4 * 24
    shown = emosym("data", "stats", world).out
    assert f"perception   {stats['questions']['perception']}\n" in shown
    assert f"{stats['valence']['mean']:.4g}" in shown


def test_a_rejected_row_is_counted_and_its_list_is_named(world, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(world, source)
    victim = sorted(source.rglob("*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:100])
    done = emosym("data", "import", "emoset", source, out)
    assert (done.code, done.err) == (0, "")
    assert f"rejected rows, with reasons: {out / 'quarantine.jsonl'}" in done.out
    (row,) = map(json.loads, (out / "quarantine.jsonl").read_text().splitlines())
    assert row["record"] == victim.stem


def test_problems_of_a_manifest_are_listed_and_the_exit_code_says_so(pictures, tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    shutil.copy(pictures / "a.png", tmp_path)
    good = {"id": "1", "image": "a.png", "split": "train", "emotion": "awe"}
    bad = [{"emotion": "aw"}, {"image": "../a.png"}, {"valence": 4}]
    rows = [good, *({**good, "id": str(n), **row} for n, row in enumerate(bad, start=2))]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = emosym("data", "validate", manifest)
    assert done.code == 2
    assert done.err == f"error: {manifest} has 3 problems; correct the lines listed\n"
    lines = done.out.splitlines()
    starts = [f"{manifest}:2: emotion: ", f"{manifest}:3: image: ", f"{manifest}:4: valence: "]
    assert len(lines) == 3
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    done = emosym("data", "validate", manifest, "--json")
    record = json.loads(done.out)
    assert (done.code, record["valid"]) == (2, False)
    assert [
        f"{one['file']}:{one['line']}: {one['field']}: {one['why']}" for one in record["problems"]
    ] == lines


def test_bad_data_is_an_error(world, pictures, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    gone = tmp_path / "gone"
    refused(emosym("data", "stats", gone), f"no dataset at {gone}")
    refused(emosym("data", "stats", pictures), "has an unknown layout")
    refused(emosym("data", "stats", empty), "the manifest is empty")
    refused(emosym("data", "validate", gone), f"cannot read manifest {gone}")
    refused(
        emosym("data", "validate", world), "give its folder, or import it with `emosym data import`"
    )
    refused(emosym("data", "import", "oasis", gone, tmp_path / "o"), f"no folder {gone}")
    refused(emosym("data", "import", "oasis", world, tmp_path / "o"), "OASIS")
    refused(emosym("data", "import", "emoset", world, pictures), "already exists")
    refused(emosym("data", "world", pictures, "--count", 8), "already exists")
    refused(emosym("data", "world", tmp_path / "w", "--count", 0), "expected count of at least 1")
    refused(emosym("data", "world", tmp_path / "w", "--size", 8), "expected 16 or more")
    refused(emosym("data", "world", tmp_path / "w", "--size", 100_000), "than or equal to 4096")
    assert names_in(tmp_path) == ["empty.jsonl"]
