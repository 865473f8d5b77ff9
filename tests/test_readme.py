"""The commands of README and docs do what is said, with the shipped weights.

README's `emosym` commands and Python example are run. Every other command is checked without
running it: make targets and their presets, overrides, and the options of a command line exist.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from emosym.config import load_config
from train.phases.registry import train_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LONGEST = 150
"""Lines of README."""


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    return [
        body for name, body in re.findall(r"```(\w+)\n(.*?)```", text, re.S) if name == language
    ]


def commands(name: str) -> list[str]:
    """Return the commands in the bash blocks of a page, without their comments."""
    return [
        line.split("#")[0].strip()
        for block in blocks(text_of(name), "bash")
        for line in block.splitlines()
        if line.split("#")[0].strip()
    ]


def named_in_prose() -> list[tuple[str, str]]:
    """Return page and command for every whole `make` command between backticks."""
    found = []
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
        for quoted in re.findall(r"`(make [^`]+)`", prose):
            command = " ".join(quoted.split())
            if "..." not in command and "…" not in command and "<" not in command:
                found.append((page.name, command))
    return found


README = text_of("README.md")
EMOSYM = [line for line in commands("README.md") if line.startswith(".venv/bin/emosym ")]
ALL = sorted({line for page in PAGES for line in commands(str(page.relative_to(ROOT)))})
MAKE = sorted(
    {line for line in ALL if line.startswith("make ")} | {line for _, line in named_in_prose()}
)
OTHERS = [line for line in ALL if line.startswith(".venv/bin/")]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with what the README assumes: a photo, pictures, an OASIS folder, a backbone."""
    folder = tmp_path_factory.mktemp("readme")
    draw = np.random.default_rng(0)
    photo = Image.fromarray(draw.integers(0, 256, (80, 60, 3), np.uint8))
    photo.save(folder / "photo.jpg")
    oasis = folder / "path" / "to" / "OASIS"
    (oasis / "images").mkdir(parents=True)
    numbers = ("Valence_mean", "Valence_SD", "Valence_N", "Arousal_mean", "Arousal_SD", "Arousal_N")
    rows = [",".join(["", "Theme", "Category", "Source", *numbers])]
    for number in range(1, 11):
        photo.save(oasis / "images" / f"Lake {number}.jpg")
        rows.append(f"I{number},Lake {number},Scene,x,{1 + number / 2},1,100,{number / 2},1,100")
    (oasis / "OASIS.csv").write_text("\r".join(rows))
    backbone = ROOT / "model_zoo" / "weights" / "emosym-tiny" / "backbone"
    shutil.copytree(backbone, folder / "path" / "to" / "Qwen2.5-VL")
    return folder


def test_the_readme_is_short_and_has_no_gap():
    assert len(README.splitlines()) <= LONGEST
    assert "@@" not in README


def test_the_readme_has_commands_of_every_kind():
    targets = {line.split()[1] for line in commands("README.md") if line.startswith("make ")}
    assert targets >= {"demo", "test", "resume", "eval", "train-joint", "train-reinforce"}
    named = {tuple(shlex.split(line)[1:3]) for line in EMOSYM}
    assert len(EMOSYM) >= 12
    assert named >= {("bank", "add"), ("bank", "search"), ("data", "import"), ("zoo", "compose")}
    assert {name for name, _ in named} >= {"understand", "generate", "refine"}


def test_the_results_have_a_command_for_each_table():
    sections = re.split(r"^## ", text_of("docs/results.md"), flags=re.M)[1:]
    tables = [section for section in sections if "\n|---" in section]
    assert len(tables) >= 4
    assert [s.splitlines()[0] for s in tables if "```bash\n" not in s] == []


@pytest.mark.parametrize("line", MAKE)
def test_make_commands_name_targets_and_presets_that_exist(line: str):
    done = subprocess.run(
        ["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    started = re.search(r'train run "?([^\s"]+\.yaml)"?(.*)', done.stdout)
    if started:
        overrides = [word for word in shlex.split(started[2]) if re.match(r"[a-z_.0-9]+=", word)]
        load_config(train_config(), ROOT / started[1], overrides)


@pytest.mark.parametrize("line", OTHERS)
def test_command_lines_have_the_options_that_are_named(line: str):
    """They are parsed, not run."""
    words = shlex.split(line)
    if Path(words[0]).name == "python":
        assert words[1] == "-m"
        if words[2] == "pytest":
            assert all((ROOT / word).exists() for word in words[3:] if word.startswith("tests/"))
            return
        app, arguments = importlib.import_module(f"{words[2]}.__main__").app, words[3:]
    else:
        app, arguments = importlib.import_module("emosym.cli").app, words[1:]
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):  # a group; typer brings a click of its own
        name, *arguments = arguments
        assert name in command.commands, f"no command {name}"
        command = command.commands[name]
    command.make_context(command.name, arguments)


def test_emosym_commands_run_as_written(place: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for line in EMOSYM:
        words = shlex.split(line)[1:]
        done = subprocess.run(
            [sys.executable, "-c", "from emosym.cli import main; main()", *words],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (place / "runs" / "flower.png").is_file()
    assert (place / "runs" / "refined" / "best.png").is_file()
    assert len(list((place / "runs" / "boats").glob("*.png"))) == 8


def test_the_python_example_runs(place: Path):
    (code,) = blocks(README, "python")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (place / "boat.png").is_file()
    words = done.stdout.split()
    assert -3 <= float(words[1]) <= 3
    assert -3 <= float(words[2]) <= 3


def test_the_readme_links_to_what_it_needs():
    """That links lead somewhere is tested for all pages in tests/test_docs.py."""
    links = set(re.findall(r"\]\((?!http|#)([^)#]+)", README))
    assert links >= {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")}
    assert "CONTRIBUTING.md" in links
