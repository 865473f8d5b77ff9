"""The README's commands do what it says, with the shipped weights."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)
LINES = [
    line.split("#")[0].strip()
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if line.strip()
]
MAKE = [line for line in LINES if line.startswith("make ")]
EMOSYM = [line for line in LINES if line.startswith(".venv/bin/emosym ")]


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


def test_the_readme_has_commands_of_every_kind() -> None:
    assert {line.split()[1] for line in MAKE} >= {"demo", "test", "train-joint", "resume"}
    assert len(EMOSYM) >= 8


@pytest.mark.parametrize("line", MAKE)
def test_make_commands_name_targets_that_exist(line: str) -> None:
    done = subprocess.run(
        ["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_emosym_commands_run_as_written(place: Path) -> None:
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
    assert len(list((place / "runs" / "boats").glob("*.png"))) == 8


def test_the_python_example_runs(place: Path) -> None:
    (code,) = [block for language, block in BLOCKS if language == "python"]
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


def test_paths_that_the_readme_links_exist() -> None:
    links = re.findall(r"\]\((?!http|#)([^)#]+)(?:#([^)]+))?\)", TEXT)
    assert links
    assert [path for path, _ in links if not (ROOT / path).exists()] == []
    for path, place in links:
        heads = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.M) if place else []
        assert not place or place in {head.lower().replace(" ", "-") for head in heads}


def test_the_readme_has_no_gap() -> None:
    assert "@@" not in TEXT
