"""The documents name what exists: headings, functions, preset keys and their values, files."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from emosym.config import load_config
from train.phases.registry import train_config

ROOT = Path(__file__).resolve().parents[1]
PRESETS = ROOT / "train" / "presets"
PAPERS = ROOT / "docs" / "papers.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
PUBLISHED = sorted(PRESETS.glob("papers/*.yaml"))
FOLDERS = ("emosym", "model_zoo", "memory_bank", "data_tools", "eval", "train", "benchmarks")
NAME = re.compile(rf"(?:{'|'.join(FOLDERS)})(?:\.[A-Za-z_]\w*)+")
SETTING = re.compile(r"([a-z_]\w*(?:\.\w+)*)=(.+)")
SECTIONS = tuple(field.name for field in dataclasses.fields(train_config()))
KEY = re.compile(rf"(?:{'|'.join(SECTIONS)})(?:\.[a-z_]\w*)+(?<!\.py)")
CREATED_BY_THE_READER = {"CONTRIBUTING.md": {"train/phases/caption.py"}}
"""Page -> files that its walk-through tells the reader to create; they must not exist yet."""
PAPER_NAMES = ("EmoSym", "EmoFeedback²", "EEmo-Logic")


class Row(NamedTuple):
    """A row of a table of docs/papers.md."""

    line: int
    cells: tuple[str, ...]
    presets: tuple[str, ...]
    """Presets that the row links, else those that the text above its table links."""


def rows() -> list[Row]:
    """Return the rows of all tables of docs/papers.md."""
    found, above = [], ()
    for number, line in enumerate(PAPERS.read_text("utf-8").splitlines(), 1):
        linked = tuple(re.findall(r"presets/(\S+?\.yaml)\)", line))
        if line.startswith("#"):
            above = ()
        elif line.startswith("|"):
            cells = tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            found.append(Row(number, cells, linked or above))
        elif linked:
            above += linked
    return found


def quoted(text: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def settings(row: Row) -> list[tuple[str, str]]:
    """Return the `key=value` pairs of a row's column of our values."""
    ours = row.cells[2] if len(row.cells) > 2 else ""
    matches = (SETTING.fullmatch(text) for text in quoted(ours))
    return [(match[1], match[2]) for match in matches if match]


@cache
def preset(name: str) -> dict[str, Any]:
    """Return a preset as plain data, all defaults filled in."""
    return dataclasses.asdict(load_config(train_config(), PRESETS / name))


def value_at(tree: Any, key: str) -> Any:
    """Return the value of a dotted key; raises KeyError, IndexError or TypeError."""
    for step in key.split("."):
        tree = tree[int(step)] if isinstance(tree, list) else tree[step]
    return tree


def leaves(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a nested mapping; a list of plain values is one leaf."""
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from leaves(value, f"{prefix}.{name}" if prefix else name)
    elif isinstance(tree, list) and tree and isinstance(tree[0], dict):
        for place, value in enumerate(tree):
            yield from leaves(value, f"{prefix}.{place}")
    else:
        yield prefix


def same(written: str, actual: Any) -> bool:
    """Tell whether a value as the page writes it is the preset's."""
    value = yaml.safe_load(written)
    if isinstance(actual, float) and isinstance(value, str | int):
        return float(value) == actual
    return value == actual


def exists(name: str) -> bool:
    """Tell whether a dotted name is a module of ours, or a top-level name or member in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:end])
        file = next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()), 0)
        if file:
            return _holds(ast.parse(file.read_text("utf-8")), parts[end:])
    return False


def _holds(node: ast.Module | ast.ClassDef, names: list[str]) -> bool:
    if not names:
        return True
    for child in node.body:
        targets = [*getattr(child, "targets", ()), getattr(child, "target", None)]
        each = [one for target in targets for one in getattr(target, "elts", [target])]
        defined = {getattr(child, "name", None), *(getattr(one, "id", None) for one in each)}
        if names[0] in defined:
            return not names[1:] or (isinstance(child, ast.ClassDef) and _holds(child, names[1:]))
    return False


def headings(page: Path) -> list[str]:
    """Return the headings of a page, without those inside code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    return re.findall(r"^#+ (.+)$", text, re.M)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in headings(page):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def sections() -> dict[str, set[str]]:
    """Return paper -> the headings under it on docs/papers.md."""
    found: dict[str, set[str]] = {}
    paper = ""
    for line in PAPERS.read_text("utf-8").splitlines():
        if line.startswith("## "):
            paper = line[3:]
            found[paper] = set()
        elif line.startswith("### "):
            found[paper].add(line[4:])
    return found


def sources() -> list[Path]:
    """Return the code and the presets of the product, which may refer to docs/papers.md."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    ours = (ROOT / name for name in listed if name.split("/")[0] in FOLDERS)
    return [path for path in ours if path.is_file()]


def plain(path: Path) -> str:
    """Return a file's text with line breaks, comment signs and indentation as single spaces."""
    return re.sub(r"\s*\n\s*#?\s*", " ", path.read_text("utf-8"))


def test_the_page_of_the_papers_has_the_sections_that_code_refers_to():
    found = sections()
    assert found["EmoSym"] >= {
        *("model", "step 1", "step 2", "step 3", "emotion space", "memory bank"),
        "defects of the release that we do not repeat",
    }
    assert found["EEmo-Logic"] >= {"data", "stage 1", "stage 2"}
    assert found["EmoFeedback²"] >= {"data", "judge", "generator", "textual feedback"}
    assert {"EmotiCrafter", "Q-Insight", "Flow-GRPO"} <= found.keys()


def test_code_refers_to_sections_that_exist():
    """A reference to docs/papers.md names a paper and a section of it, close by."""
    found = sections()
    known = {f"{paper}, {heading}" for paper in PAPER_NAMES for heading in found[paper]}
    known |= {f"{paper}, docs/papers.md" for paper in found} | {f"{paper} (" for paper in found}
    wrong = []
    for path in sources():
        text = plain(path)
        for match in re.finditer(r"docs/papers\.md", text):
            around = text[max(0, match.start() - 160) : match.end() + 160]
            if not any(name in around for name in known):
                wrong.append(f"{path.relative_to(ROOT)}: …{around}…")
    assert wrong == []


def test_references_to_a_section_of_a_paper_name_one_that_exists():
    """`Ref: EmoSym, step 4` is wrong wherever it stands."""
    found = sections()
    wrong = []
    for path in sources():
        for paper, rest in re.findall(
            rf"Ref:[^.]{{0,80}}?({'|'.join(PAPER_NAMES)}), ([a-z][^.;)]*)", plain(path)
        ):
            first = rest.split("(")[0].strip()
            if not first.startswith(("arXiv", *found[paper])):
                wrong.append(f"{path.relative_to(ROOT)}: {paper}, {rest}")
    assert wrong == []


def test_names_of_the_tables_exist():
    names = {text for row in rows() for cell in row.cells for text in quoted(cell)}
    named = {text for text in names if NAME.fullmatch(text)}
    assert len(named) > 50
    assert sorted(name for name in named if not exists(name)) == []


def test_preset_keys_of_the_tables_exist():
    """A key that is named without a value is one of every preset."""
    tree = preset(str(PUBLISHED[0].relative_to(PRESETS)))
    wrong = []
    for row in rows():
        for text in (text for cell in row.cells for text in quoted(cell)):
            if KEY.fullmatch(text) and not exists(text):
                try:
                    value_at(tree, text)
                except (KeyError, IndexError, TypeError):
                    wrong.append(f"line {row.line}: {text}")
    assert wrong == []


def test_preset_values_of_the_tables_are_those_of_the_presets():
    wrong, checked = [], 0
    for row in rows():
        for key, written in settings(row):
            assert row.presets, f"line {row.line}: no preset is named for {key}"
            for name in row.presets:
                checked += 1
                try:
                    actual = value_at(preset(name), key)
                except (KeyError, IndexError, TypeError):
                    wrong.append(f"line {row.line}: {name} has no {key}")
                    continue
                if not same(written, actual):
                    wrong.append(f"line {row.line}: {name}: {key} is {actual}, not {written}")
    assert wrong == []
    assert checked > 100


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_every_value_of_a_papers_preset_stands_in_the_tables(path: Path):
    """But for what is measured, and the folder of the images."""
    name = str(path.relative_to(PRESETS))
    listed = {key for row in rows() if name in row.presets for key, _ in settings(row)}
    assert listed
    own = set(leaves(yaml.safe_load(path.read_text("utf-8"))))
    ignored = re.compile(r"evaluate\..*|stages\.\d+\.cycle\..*|extends|data\.instructions\.images")
    assert sorted(key for key in own - listed if not ignored.fullmatch(key)) == []


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name != "migration.md"], ids=lambda p: p.name
)
def test_modules_and_functions_that_pages_name_exist(page: Path):
    names = {text.removesuffix("()") for text in quoted(page.read_text("utf-8"))}
    named = {text for text in names if NAME.fullmatch(text) and not KEY.fullmatch(text)}
    assert sorted(name for name in named if not exists(name)) == []


def test_new_names_of_the_migration_exist():
    """Modules and classes; the new options are tested where they are declared."""
    found, heading = [], ""
    for line in (ROOT / "docs" / "migration.md").read_text("utf-8").splitlines():
        heading = line[3:] if line.startswith("## ") else heading
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if heading == "Modules" and len(cells) == 2:
            found += quoted(cells[1])
        elif heading.startswith("Classes") and len(cells) == 3:
            found += [f"{module}.{n}" for module in quoted(cells[2]) for n in quoted(cells[1])]
    assert sorted(name for name in found if not exists(name)) == []
    assert len(found) > 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_pages_name_exist(page: Path):
    """Old names stand on docs/migration.md alone, in its column of old names."""
    text = page.read_text("utf-8")
    if page.name == "migration.md":
        text = "\n".join(line.partition("|")[2].partition("|")[2] for line in text.splitlines())
    pattern = rf"`((?:{'|'.join(FOLDERS)}|tests|docs)/[\w/.-]+\.(?:py|yaml|md|json|safetensors))"
    files = set(re.findall(pattern, text))
    created = CREATED_BY_THE_READER.get(page.name, set())
    assert created <= files  # an entry that the page no longer names is deleted
    assert sorted(file for file in files if not (ROOT / file).is_file()) == sorted(created)
    modules = set(re.findall(rf"python -m ((?:{'|'.join(FOLDERS)})[\w.]*)", text))
    assert sorted(m for m in modules if not exists(m.rstrip("."))) == []


def test_the_path_of_a_training_batch_is_four_files():
    """Each file of the walk in docs/architecture.md calls the next one."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    section = text.split("## The path of a training batch")[1].split("\n## ")[0]
    walk = re.findall(r"^\d\. \*\*`(train/[^`]+)`\*\*", section, re.M)
    assert walk == ["train/__main__.py", "train/run.py", "train/trainer.py", "train/phases/…"]
    source = [(ROOT / file).read_text("utf-8") for file in walk[:3]]
    assert re.search(r"from train\.run import .*\bstart\b", source[0])
    assert re.search(r"from train\.trainer import .*\bTrainer\b", source[1])
    assert "trainer.train(" in source[1]
    assert re.search(r"phase\.loss\(", source[2])


def test_the_checks_find_what_is_wrong():
    assert exists("emosym.models.losses.info_nce")
    assert exists("emosym.models.emotion_space.EmotionSpace.sample")
    assert not exists("emosym.models.losses.info_nce_of_old")
    assert not exists("emosym.models.emotion_space.EmotionSpace.paint")
    assert not exists("emosym.nowhere.info_nce")
    assert same("1.0e-4", 1e-4)
    assert same("[backbone, denoiser]", ["backbone", "denoiser"])
    assert not same("0.2", 0.3)
    assert list(leaves({"a": {"b": 1}, "c": [{"d": 2}], "e": [1]})) == ["a.b", "c.0.d", "e"]
    assert anchors(PAPERS) >= {"step-1", "data", "data-1", "emofeedback²"}
