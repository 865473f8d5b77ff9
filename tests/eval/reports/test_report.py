from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from emosym import files
from emosym.errors import UserError
from eval.reports import scatter
from eval.reports.report import write_report

EVIL = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "img", "line", "polyline", "circle", "br", "link", "input"}
REPORT = {
    "wall_seconds": 312.5,
    "understanding": {
        "before": {"accuracy": 0.5, "v_mae": 1.0},
        "after": {
            "accuracy": 0.4,
            "v_mae": 0.75,
            "v_pearson": None,
            "labels": ["awe", "fear"],
            "confusion": [[3, 1], [0, 0]],
            "intervals": {"accuracy": [0.3, 0.5], "v_pearson": None},
            "changes": {"accuracy": [-0.15, -0.05], "v_mae": [-0.4, -0.1]},
            "items": {
                "ids": ["a", "b", "c"],
                "metrics": {
                    "v_mae": {
                        "metric": "mae",
                        "options": {},
                        "rows": [[-3.0, 3.0], None, [1.5, 0.0]],
                    }
                },
            },
        },
    },
    "generation": {"before": {"diversity": 0.1}, "after": {"diversity": 0.2}},
    "tasks": {
        "before": {"ranking": {"count": 8, "score": 0.41}},
        "after": {"ranking": {"count": 8, "score": 0.62, "intervals": {"score": [0.55, 0.69]}}},
    },
    "memory": {"size": 7, "real": 4, "synthetic": 3, "admitted": 3, "refused": 5},
    "phases": {"compress": 40, "generate": 80},
    "run": {"command": f"python -m train run {EVIL}", "started": "2026-01-31 12:00 UTC"},
    "environment": {"torch": EVIL},
}


class Page(HTMLParser):
    """Collects a page's tags and text, and fails on a tag that is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + "\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [
        {"step": step, "phase": "compress", "compress/loss": 1 / (step + 1)} for step in range(9)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report(
        tmp_path,
        REPORT,
        title=EVIL,
        figures={
            f"grid of {EVIL}": Image.new("RGB", (30, 30), "blue"),
            "Samples": Image.new("RGB", (20, 10), "red"),
        },
        config=f"prompt: {EVIL}\nname: \x1b[2J\u202e\n",
    )
    return tmp_path


def test_report_json_is_the_report(run: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (run / "report.json").read_text()
    assert json.loads(text, parse_constant=refuse) == REPORT
    with Image.open(run / "samples.png") as image:
        assert image.size == (30, 40), "one below the other"
    assert {path.name for path in run.iterdir()} == {
        "metrics.jsonl",
        "report.html",
        "report.json",
        "samples.png",
    }


def test_the_page_is_well_formed_and_needs_nothing_else(run: Path) -> None:
    text = (run / "report.html").read_text()
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))).size
        for source in pictures
    ]
    assert sizes == [(30, 30), (20, 10)]


def test_all_text_is_escaped(run: Path) -> None:
    text = (run / "report.html").read_text()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 7, "title twice, command, config, environment, caption"
    assert EVIL in Page(text).text
    assert "\x1b" not in text
    assert "\u202e" not in text, "it would turn the order of the characters after it"
    assert f"prompt: {EVIL}\nname: \\x1b[2J\\u202e\n" in Page(text).text, "lines stay"


def test_the_page_tells_better_from_worse(run: Path) -> None:
    text = (run / "report.html").read_text()
    table = {
        cells[0].split()[1]: (cells[-2], cells[-1])
        for row in re.findall(r"<tr>(.*?)</tr>", text, re.S)
        if len(cells := re.findall(r'<td(?: class="\w+")?>.*?</td>|<td class=.*?</td>', row)) == 5
    }
    assert "worse" in table["accuracy"][0]
    assert "−0.100" in table["accuracy"][0]
    assert "▼" in table["accuracy"][1]
    assert "better" in table["MAE"][0]
    assert "▲" in table["MAE"][1]


def test_the_page_shows_every_section(run: Path) -> None:
    page = Page((run / "report.html").read_text())
    words = page.text.split()
    for word in ("5:12", "compress", "loss", "refused", "[0.300,", "awe"):
        assert word in words, word
    assert sum(tag == "polyline" for tag, _ in page.tags) == 1
    assert "python -m train run" in page.text
    assert "2026-01-31 12:00 UTC" in page.text
    shades = [a["style"] for tag, a in page.tags if tag == "td" and "style" in a]
    assert [int(re.search(r"(\d+)%", shade).group(1)) for shade in shades] == [52, 18, 0, 0]


def test_the_page_shows_tasks_like_every_table(run: Path) -> None:
    text = (run / "report.html").read_text()
    (section,) = [part for part in text.split("<section>") if "<h2>Tasks</h2>" in part]
    assert '<table class="scores">' in section
    words = Page(f"<section>{section}").text.split()
    for word in ("ranking:", "0.410", "0.620", "[0.550,", "0.690]", "+0.210", "?", "unsure"):
        assert word in words, word


def test_predictions_are_drawn_against_the_truth(run: Path) -> None:
    text = (run / "report.html").read_text()
    (section,) = [part for part in text.split("<section>") if "<h2>Predicted" in part]
    side, margin = scatter.SIDE, scatter.MARGIN
    points = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="2"/>', section)
    assert [tuple(map(float, point)) for point in points] == [
        (side, side - margin),  # 3 rated, -3 predicted: lower right
        (margin + (side - margin) / 2, (side - margin) / 4),  # 0 and 1.5
    ]
    words = Page(f"<section>{section}").text.split()
    for word in ("valence,", "after", "r", "–", "MAE", "0.750", "CCC"):
        assert word in words, word
    assert "arousal," not in words, "it was not measured"


def test_without_a_start_there_are_no_empty_columns(tmp_path: Path) -> None:
    after = {name: {"after": REPORT[name]["after"]} for name in ("understanding", "generation")}
    write_report(tmp_path, after)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    for word in ("before", "after", "change", "▲"):
        assert word not in page.text.replace("valence, after", "").replace("after\n", "").split()
    rows = re.findall(r"<tr>(.*?)</tr>", text.split("<h2>Generation</h2>")[1], re.S)
    assert [len(re.findall("<t[hd]", row)) for row in rows[:2]] == [2, 2]
    assert "Memory bank" not in page.text


def test_a_section_measured_before_is_compared_also_beside_another(tmp_path: Path) -> None:
    write_report(
        tmp_path,
        {
            "understanding": {"before": {"accuracy": 0.5}, "after": {"accuracy": 0.5}},
            "generation": {"after": {"diversity": 0.5}},
        },
    )
    text = (tmp_path / "report.html").read_text()
    columns = [len(re.findall("<th", head)) for head in re.findall(r"<thead>(.*?)</thead>", text)]
    assert columns == [5, 2]


def test_a_bare_report_is_a_page_too(tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "run", {"understanding": {"after": {"accuracy": 0.5}}})
    page = Page((tmp_path / "new" / "run" / "report.html").read_text())
    assert "emotion accuracy" in page.text
    assert "Tasks" not in page.text
    assert not (tmp_path / "new" / "run" / "samples.png").exists()


def test_nan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_report(tmp_path, {"generation": {"after": {"diversity": bad}}})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_the_old_report(run: Path, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in run.iterdir()}
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*report\.html; got No space left"):
        write_report(run, {"wall_seconds": 1.0})
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(UserError, match="cannot write"):
        write_report(tmp_path / "run", {})
