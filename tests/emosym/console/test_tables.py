"""Tables: cells between tabs for programs, a box within its width for people."""

from __future__ import annotations

import re

import pytest

from emosym.console.tables import print_facts, print_table

LONG = "images/" + 50 * "ab" + ".png"


def test_a_piped_table_has_all_text_between_tabs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("0.998", LONG, "-"), ("0.5", "小舟", "a boat\nat [bold]sea"), ("1", "", "")]
    print_table(("cosine", "image", "prompt"), rows, title="3 nearest to [x]")
    assert capsys.readouterr().out == (
        "3 nearest to [x]\n"
        "cosine\timage\tprompt\n"
        f"0.998\t{LONG}\t-\n"
        "0.5\t小舟\ta boat at [bold]sea\n"
        "1\t\t\n"
    )


def test_piped_facts_have_no_heading_and_an_empty_table_has_only_one(capsys):
    print_facts({"size": 4, "model_hash": 70 * "f"})
    print_table(("emotion", "images"), [])
    assert capsys.readouterr().out == f"size\t4\nmodel_hash\t{70 * 'f'}\nemotion\timages\n"


@pytest.mark.parametrize("width", [40, 200])
def test_a_terminal_folds_what_it_cannot_hold_and_cuts_nothing(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes its output for a terminal
    print_table(("cosine", "image"), [("0.998", LONG)], title="nearest")
    shown = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[1][0] == "┏"
    cells = [line.split("│")[2].strip() for line in lines if line.startswith("│")]
    assert "".join(cells) == LONG
    assert (len(cells) > 1) == (width == 40)
