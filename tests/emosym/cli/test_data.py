from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image

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
    counts = ["imported", "quarantined", "by_split", "by_emotion", "ignored", "unlisted"]
    assert list(report) == ["manifest", *counts]
    assert [report[key] for key in counts[:2] + counts[4:]] == [24, 0, [], []]
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
    assert f"perception\t{stats['questions']['perception']}\n" in shown
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
        f"{one['file']}:{one['line']}: {one['field']}: {one['why']} (sample {one['sample']})"
        for one in record["problems"]
    ] == lines


def test_bad_data_is_an_error(world, pictures, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    gone = tmp_path / "gone"
    refused(emosym("data", "stats", gone), f"no dataset at {gone}")
    refused(emosym("data", "stats", pictures), "has an unknown layout")
    refused(emosym("data", "stats", empty), "the manifest is empty")
    refused(emosym("data", "validate", gone), f"cannot read manifest {gone}")
    refused(emosym("data", "validate", pictures), "has an unknown layout")
    refused(emosym("data", "import", "oasis", gone, tmp_path / "o"), f"no folder {gone}")
    refused(emosym("data", "import", "oasis", world, tmp_path / "o"), "OASIS")
    refused(emosym("data", "import", "emoset", world, pictures), "already exists")
    refused(emosym("data", "world", pictures, "--count", 8), "already exists")
    refused(emosym("data", "world", tmp_path / "w", "--count", 0), "expected count of at least 1")
    refused(emosym("data", "world", tmp_path / "w", "--size", 8), "expected 16 or more")
    refused(emosym("data", "world", tmp_path / "w", "--size", 100_000), "than or equal to 4096")
    assert names_in(tmp_path) == ["empty.jsonl"]


def test_a_world_is_validated_where_it_lies(world, tmp_path):
    done = emosym("data", "validate", world)
    assert (done.code, done.out, done.err) == (0, f"{world} is valid\n", "")
    source = tmp_path / "source"
    shutil.copytree(world, source)
    cut, gone, *_ = sorted(source.rglob("*.jpg"))
    cut.write_bytes(cut.read_bytes()[:300])
    gone.unlink()
    done = emosym("data", "validate", source)
    assert done.err == f"error: {source} has 2 problems; correct the lines listed\n"
    assert done.code == 2
    missing, damaged = done.out.splitlines()
    assert missing.startswith(f"{source}: ")
    assert gone.name in missing
    assert "does not exist" in missing
    assert damaged.startswith(f"{source}: image: image is damaged: ")
    assert damaged.endswith(f"(sample {cut.stem})")
    record = json.loads(emosym("data", "validate", source, "--json").out)
    assert (record["manifest"], record["valid"]) == (str(source), False)
    assert [one["sample"] for one in record["problems"]][1:] == [cut.stem]


def test_every_prompt_that_is_too_long_for_a_model_is_listed(model, pictures, tmp_path):
    shutil.copy(pictures / "a.png", tmp_path)
    shutil.copy(pictures / "b.jpg", tmp_path)
    texts = {
        "0": {"prompt": "a boat"},
        "1": {"prompt": "a boat " * 30},
        "2": {"prompt": "a boat", "emotional_prompt": "a boat " * 40, "emotion": "aw"},
        "3": {"knowledge": "a boat " * 90},
        "4": {"prompt": "a boat " * 30, "image": "b.jpg"},
    }
    good = {"image": "a.png", "split": "train"}
    rows = [json.dumps({"id": name, **good, **text}) for name, text in texts.items()]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(rows))
    problems = json.loads(emosym("data", "validate", tmp_path, "--model", model, "--json").out)
    found = [(one["sample"], one["line"], one["field"]) for one in problems["problems"]]
    assert found == [
        ("1", 2, "prompt"),
        ("2", 3, "emotion"),
        ("2", 3, "emotional_prompt"),
        ("4", 5, "prompt"),
    ]
    why = problems["problems"][0]["why"]
    assert why.startswith("61 tokens, more than the 24 that ")
    assert why.endswith("shorten it, or train with data.long_prompts=truncate")
    assert emosym("data", "validate", tmp_path, "--model", model).code == 2
    manifest.write_text(rows[0])
    assert emosym("data", "validate", tmp_path, "--model", model).code == 0
    refused(emosym("data", "validate", tmp_path, "--model", "none"), "unknown model 'none'")


def test_the_reported_dataset(shared, model):
    folder = shared / "reports/longprompt"
    assert emosym("data", "validate", folder).code == 0
    done = emosym("data", "validate", folder, "--model", model)
    assert (done.code, len(done.out.splitlines())) == (2, 1)
    assert ": prompt: " in done.out


def test_what_is_ignored_in_an_image_is_said_and_no_problem(world, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(world, source)
    odd = sorted(source.rglob("*.jpg"))[0]
    with Image.open(odd) as image:
        image.save(odd, icc_profile=b"junk" * 40)
    done = emosym("data", "validate", source)
    assert (done.code, done.err) == (0, "")
    problem, valid = done.out.splitlines()
    assert "image: its colour profile cannot be used: " in problem
    assert problem.endswith(f"; it is ignored (sample {odd.stem})")
    assert valid == f"{source} is valid"
    report = emosym("data", "import", "emoset", source, tmp_path / "out", "--json").json
    assert report["ignored"] == [
        f"{odd.relative_to(source)}: {problem.split('image: ')[1].split('; it is')[0]}"
    ]


def test_images_that_no_row_names_are_named(world, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(world, source)
    for name in ("extra.png", ".hidden.png", "notes.txt"):
        shutil.copy(sorted(source.rglob("*.jpg"))[0], source / "image" / name)
    done = emosym("data", "import", "emoset", source, tmp_path / "out")
    assert (done.code, done.err) == (0, "skipped, as no row names them: 1: image/extra.png\n")
    report = emosym("data", "import", "emoset", source, tmp_path / "again", "--json").json
    assert report["unlisted"] == ["image/extra.png"]
