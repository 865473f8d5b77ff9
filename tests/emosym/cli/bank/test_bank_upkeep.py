"""`emosym bank` beyond add and search: history, filters, exchange, upkeep."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3

import pytest
from PIL import Image

from emosym.inference.sheets import is_sheet
from tests.emosym.cli.command import emosym, names_in, refused


@pytest.fixture
def rich(bank, model, drawn):
    """Four real images (version 1) and three drawn ones of prompt "a tree" (version 2)."""
    assert emosym("bank", "add", bank, drawn, "--model", model).code == 0
    return bank


def ids(bank, *options) -> list[int]:
    return [one["id"] for one in emosym("bank", "ls", bank, *options, "--json").json]


def test_a_life_of_a_bank(rich, tmp_path):
    assert ids(rich) == [1, 2, 3, 4, 5, 6, 7]
    assert emosym("bank", "tag", rich, "drawn", "--json").json == {"drawn": 2}
    assert emosym("bank", "tag", rich, "real", "--version", "1", "--json").json["real"] == 1
    gone = emosym("bank", "rm", rich, 2, 5, 6, "--source", "synthetic", "--json").json
    assert (gone["version"], gone["size"]) == (3, 5)
    assert [one["id"] for one in gone["removed"]] == [5, 6]
    assert ids(rich) == [1, 2, 3, 4, 7]
    assert ids(rich, "--at", "real") == [1, 2, 3, 4]
    assert ids(rich, "--at", "2", "--emotion", "awe") == [5, 6, 7]
    found = emosym("bank", "diff", rich, "real", "--json").json
    assert [[one["id"] for one in found[side]] for side in ("came", "left")] == [[7], []]
    found = emosym("bank", "diff", rich, "3", "drawn", "--json").json
    assert [one["id"] for one in found["came"]] == [5, 6]
    (shown,) = emosym("bank", "show", rich, 7, "--json").json
    assert (shown["seed"], shown["prompt"], shown["reason"]) == (6, "a tree", "added by hand")
    assert "a tree" in emosym("bank", "show", rich, 7).out

    facts = emosym("bank", "compact", rich, "--json").json
    assert (facts["oldest"], facts["entries"], facts["tags"]) == (1, 0, [])
    facts = emosym("bank", "compact", rich, "--oldest", "3", "--json").json
    assert (facts["oldest"], facts["entries"], facts["tags"]) == (3, 2, ["drawn", "real"])
    assert facts["bytes"] < facts["bytes_before"]
    problem = "a version that the memory bank has forgotten; got 2; expected 3 to 3"
    refused(emosym("bank", "rollback", rich, 2), problem)
    assert emosym("bank", "verify", rich).out == f"{rich}: version 3, 5 images, no problems\n"
    events = emosym("bank", "log", rich, "--json").json
    assert [(event["what"], event["version"]) for event in events] == [
        *(("init", 0), ("add", 1), ("add", 2), ("remove", 3), ("compact", 3), ("compact", 3)),
    ]
    assert emosym("bank", "stats", rich, "--json").json["oldest"] == 3


def test_rollback_says_which_tags_go(rich):
    emosym("bank", "tag", rich, "new")
    emosym("bank", "tag", rich, "first", "--version", 1)
    done = emosym("bank", "rollback", rich, "first")
    assert done.out == (
        f"{rich}: version 1, 4 images; was version 2\ndeleted tags of deleted versions: new\n"
    )
    assert emosym("bank", "tag", rich, "--json").json == {"first": 1}
    assert emosym("bank", "tag", rich, "first", "--delete", "--json").json == {}
    refused(emosym("bank", "rollback", rich), "needs one target; expected a version or tag")
    refused(emosym("bank", "rollback", rich, 1, "--before-step", 3), "a rollback needs one")
    assert emosym("bank", "rollback", rich, "--before-step", 0, "--json").json["version"] == 1


def test_words_find_prompts(rich, tmp_path):
    sheet = tmp_path / "hits.png"
    done = emosym("bank", "search", rich, "lonely TREES", "--sheet", sheet, "--json")
    assert [one["id"] for one in done.json] == [5, 6, 7]  # porter: trees and tree are one
    assert is_sheet(sheet)
    with Image.open(sheet) as drawn:
        assert drawn.width == 3 * 120
    assert emosym("bank", "search", rich, 'tree" OR NEAR(*', "-k", 1, "--json").json[0]["id"] == 5
    assert emosym("bank", "search", rich, "tree", "--at", "1", "--json").json == []
    assert emosym("bank", "search", rich, "tree", "--source", "real", "--json").json == []
    refused(emosym("bank", "search", rich, "tree", "--sheet", sheet), f"{sheet} exists")
    refused(emosym("bank", "search", rich, "x", "--sheet", tmp_path / "y.png"), "got 0; expected 1")
    refused(
        emosym("bank", "ls", rich, "--sheet", tmp_path / "x.gif"), "written as PNG; got --sheet"
    )
    assert emosym("bank", "ls", rich, "--sheet", tmp_path / "all.png").code == 0
    assert is_sheet(tmp_path / "all.png")


def test_many_words_and_many_images(rich):
    words = "a tree " + "word " * 1000  # longer than the name of any file
    found = emosym("bank", "search", rich, words, "-k", 10**30, "--json").json
    assert [one["id"] for one in found] == [5, 6, 7]


def test_scores_narrow_down(rich):
    known = {one["id"]: one["confidence"] for one in emosym("bank", "ls", rich, "--json").json}
    middle = sorted(known.values())[3]
    high = [number for number, value in known.items() if value >= middle]
    assert ids(rich, "--min-score", f"confidence={middle}") == high
    assert ids(rich, "--min-score", f"confidence={middle}", "--max-score", "contrast=0.0") == []
    for option, problem in (
        ("confidence", "--min-score is not a bound; got 'confidence'; expected NAME=NUMBER"),
        ("confidence=high", "--min-score is not a bound"),
        ("confidence=nan", "the bound of confidence; got nan; expected a finite number"),
        ("x'); DROP TABLE entries; --=1", 'unknown score "x\'); DROP TABLE entries; --"'),
        ("confidance=1", "did you mean 'confidence'?"),
    ):
        for command in ("ls", "rm"):
            refused(emosym("bank", command, rich, "--min-score", option), problem)
    refused(emosym("bank", "rm", rich), "no images are selected; expected ids or filters")
    refused(emosym("bank", "rm", rich, 1, 99), "no such entry in the memory bank; got id 99")
    assert (len(ids(rich)), emosym("bank", "verify", rich).code) == (7, 0)


@pytest.mark.parametrize("name", ["out", "out.parquet", "out.tar"])
def test_out_and_in(rich, tmp_path, name):
    out, new = tmp_path / name, tmp_path / "new"
    done = emosym("bank", "export", rich, out, "--source", "synthetic", "--json")
    assert done.json == {"out": str(out), "count": 3}
    taken = emosym("bank", "import", new, out, "--json").json
    assert (taken["version"], taken["size"], taken["admitted"], taken["refused"]) == (1, 3, 3, 0)
    assert emosym("bank", "verify", new).code == 0
    assert "3 were in the bank already" in emosym("bank", "import", rich, out).out
    refused(emosym("bank", "export", rich, out), "exists; give another name")


def test_a_broken_import_makes_no_bank(rich, tmp_path):
    out = tmp_path / "out"
    emosym("bank", "export", rich, out)
    lines = (out / "metadata.jsonl").read_text()
    (out / "metadata.jsonl").write_text(
        lines.replace('"file_name": "images/', '"file_name": "../', 7)
    )
    refused(
        emosym("bank", "import", tmp_path / "new", out), "a path that leaves the export; got ../"
    )
    refused(emosym("bank", "import", tmp_path / "new", tmp_path / "gone"), "no such export")
    assert not (tmp_path / "new").exists()


def test_a_broken_import_through_a_link_leaves_the_link(rich, tmp_path):
    out, new, link = tmp_path / "out", tmp_path / "new", tmp_path / "link"
    assert emosym("bank", "export", rich, out).code == 0
    next(out.rglob("*.png")).unlink()
    new.mkdir()
    link.symlink_to(new)
    refused(emosym("bank", "import", link, out), "no such image")
    assert link.is_symlink()
    assert not new.exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("show", "BANK", 2**63), "no such entry in the memory bank; got id 9223372036854775808"),
        (("rm", "BANK", 10**30), "no such entry in the memory bank; got id 1000"),
        (("ls", "BANK", "--min-step", 10**30), "min_step is out of range; got 1000"),
        (("rollback", "BANK", "--before-step", 10**30), "the training step is out of range"),
        (("tag", "BANK", "2", "--delete"), "unknown tag '2'"),
    ],
)
def test_numbers_that_no_bank_has(bank, arguments, problem):
    done = emosym("bank", *(bank if word == "BANK" else word for word in arguments))
    refused(done, problem)
    assert ids(bank) == [1, 2, 3, 4]


def test_another_model_embeds_it_anew(rich, model, tmp_path, pictures):
    from safetensors.torch import load_file, save_file

    from model_zoo import zoo

    other = tmp_path / "other"
    shutil.copytree(model, other)
    heads = load_file(other / "heads.safetensors")
    name = next(iter(heads))
    save_file({**heads, name: heads[name] + 1}, other / "heads.safetensors")
    emosym("bank", "tag", rich, "before")
    facts = emosym("bank", "rebuild", rich, "--model", other, "--json").json
    assert facts["dropped_tags"] == ["before"]
    assert (facts["version"], facts["size"]) == (3, 7)
    assert facts["model_hash"] == zoo.fingerprint(other)
    hit, *_ = emosym("bank", "search", rich, pictures / "a.png", "--model", other, "--json").json
    assert (hit["id"], hit["cosine"]) == (1, pytest.approx(1, abs=1e-5))
    search = emosym("bank", "search", rich, pictures / "a.png", "--model", model)
    refused(search, "were made by another model")
    assert emosym("bank", "verify", rich).code == 0


def test_init_makes_a_bank_and_mends_an_old_format(model, pictures, tmp_path):
    bank = tmp_path / "bank"
    facts = emosym("bank", "init", bank, "--model", model, "--json").json
    assert (facts["version"], facts["size"], facts["dim"]) == (0, 0, 160)
    assert emosym("bank", "init", bank, "--model", model).code == 0
    refused(emosym("bank", "init", bank, "--model", "emosym-tiny"), "made by another model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    refused(emosym("bank", "init", tmp_path / "full", "--model", model), "cannot create a memory")
    assert names_in(tmp_path / "full") == ["x"]


def test_verify_tells_what_is_wrong(rich):
    (shown,) = emosym("bank", "show", rich, 3, "--json").json
    open(shown["image"], "wb").close()
    done = emosym("bank", "verify", rich, "--json")
    assert done.code == 2
    assert "entry 3: cannot read image" in done.out
    assert "entry 3: cannot read image" in emosym("bank", "verify", rich).out


def test_a_second_writer_fails_or_waits(rich):
    from memory_bank import MemoryBank

    with MemoryBank.open(rich, "a"):
        for words in (
            ["rm", rich, 1],
            ["tag", rich, "x"],
            ["rollback", rich, 1],
            ["compact", rich],
        ):
            refused(emosym("bank", *words, "--wait", "0.1"), "has another writer; got process")
    assert emosym("bank", "tag", rich, "x", "--wait", 1).code == 0


def test_a_newer_format_is_an_error_of_every_command(rich, pictures, tmp_path, model):
    database = sqlite3.connect(rich / "bank.sqlite", isolation_level=None)
    database.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
    database.close()
    for words in (
        *(["ls", rich], ["show", rich, 1], ["stats", rich], ["log", rich], ["diff", rich, 1]),
        *(["tag", rich], ["rollback", rich, 1], ["rm", rich, 1], ["verify", rich]),
        *(["compact", rich], ["export", rich, tmp_path / "x"], ["rebuild", rich, "--model", model]),
        *(["search", rich, "tree"], ["init", rich], ["add", rich, pictures, "--model", model]),
    ):
        refused(emosym("bank", *words), "made by a newer version; got format 99")


def test_sheets_of_a_sweep_stay_out(model, tmp_path):
    sweep = tmp_path / "sweep"
    done = emosym(
        *("generate", "--sweep", "valence", "--points", 3, "--prompt", "a tree"),
        *("--num-inference-steps", 2, "--out", sweep, "--model", model),
    )
    assert (done.code, done.err) == (0, "")
    added = emosym("bank", "add", tmp_path / "bank", sweep, "--model", model)
    assert f"skipped, as it is a sheet of images: {sweep / 'sheet.png'}" in added.out
    assert len(ids(tmp_path / "bank")) == 3
    add = emosym("bank", "add", tmp_path / "bank", sweep / "sheet.png", "--model", model)
    refused(add, "nothing to add; got only sheets of images")


def test_a_full_disk_is_one_line_and_changes_nothing(rich, tmp_path):
    new = tmp_path / "new"
    assert emosym("bank", "export", rich, tmp_path / "out", "--source", "real").code == 0
    emosym("bank", "import", new, tmp_path / "out")
    assert emosym("bank", "export", rich, tmp_path / "all.tar").code == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (33_000, hard))  # SQLite's shared memory has 32 kB
    try:
        for words in (
            *(["import", new, tmp_path / "all.tar"], ["export", rich, tmp_path / "x.tar"]),
            ["compact", new],
        ):
            refused(emosym("bank", *words), "too large" if words[0] == "export" else "cannot write")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "x.tar").exists()
    assert ids(new) == [1, 2, 3, 4]
    assert emosym("bank", "verify", new).code == 0
    assert emosym("bank", "stats", new, "--json").json["version"] == 1
