"""`make bench-grpo`: a whole GRPO step, ours and TRL's GRPOTrainer, side by side.

The same Qwen2.5-VL of 8M parameters with random weights, the same pictures and question, the same
number of answers of the same length, KL to a frozen reference, float32, one process, A B A B.
Ours reads eight reasoning tokens more a prompt. Peak memory comes from a process of its own each.
"""

from __future__ import annotations

import copy
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image

from emosym.config import load_config
from emosym.models.model import EmoSym
from emosym.records import Question
from emosym.tasks import prompts
from emosym.tasks.answers import parse
from model_zoo import zoo
from train.config import TrainConfig
from train.data.base_texts import base_texts
from train.data.run_data import RunData
from train.distributed import ranks
from train.trainer import Trainer

Run = Callable[[int], list[float]]
"""Steps -> the seconds of each."""
PATCH = 8
"""Pixels."""
PICTURES = 16
SETTING = {"prompts": 4, "group": 8, "tokens": 48}
BETA, RATE = 0.04, 1e-5
BACKBONE = {
    "text_config": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 7,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [4, 6, 6],
        },
    },
    "vision_config": {
        "depth": 4,
        "hidden_size": 192,
        "intermediate_size": 512,
        "out_hidden_size": 256,
        "fullatt_block_indexes": [1, 3],
    },
}


def main(
    patches: Annotated[
        int, typer.Option(help="Side of a picture in patches: 24 gives 144 visual tokens.")
    ] = 24,
    rounds: Annotated[int, typer.Option(help="Times that each is measured.")] = 3,
    steps: Annotated[int, typer.Option(help="Steps a round.")] = 2,
    peak_of: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print completions a second and peak memory of both, and their ratios."""
    from model_zoo.quiet import quiet_libraries

    quiet_libraries()
    # First, and each alone: what a process has once allocated it keeps.
    peak = {} if peak_of else {contender: _peak_of(contender, patches) for contender in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="emosym-bench-") as name:
        model, pictures = prepare(Path(name), patches)
        if peak_of:
            run = CONTENDERS[peak_of](Path(name) / peak_of, model, pictures)
            before = _peak()
            run(2)
            print(f"peak {_peak() - before}")
            return
        runs = {
            contender: make(Path(name) / contender, copy.deepcopy(model), pictures)
            for contender, make in CONTENDERS.items()
        }
        for run in runs.values():
            run(1)  # not counted: first use allocates
        seconds: dict[str, list[float]] = {contender: [] for contender in runs}
        for _ in range(rounds):
            for contender, run in runs.items():
                seconds[contender] += run(steps)
    answers = SETTING["prompts"] * SETTING["group"]
    print(f"{(patches // 2) ** 2} visual tokens, {SETTING}, medians of {rounds} x {steps} steps")
    pace = {}
    for contender, values in seconds.items():
        middle = statistics.median(values)
        pace[contender] = answers / middle
        print(
            f"{contender:5s} {pace[contender]:7.2f} completions/s  {middle:6.2f} s a step"
            f" [{min(values):.2f}, {max(values):.2f}]  {peak[contender]:5.0f} MB"
        )
    print(
        f"ours / trl: {pace['ours'] / pace['trl']:.2f} x completions/s,"
        f" {peak['ours'] / peak['trl']:.2f} x memory"
    )


def prepare(folder: Path, patches: int) -> tuple[EmoSym, list[Path]]:
    """Make the model and the pictures."""
    side = patches * PATCH
    spec = copy.deepcopy(zoo.preset("emosym-tiny"))
    for section, values in BACKBONE.items():
        spec["backbone"][section] |= values
    spec["image_processor"] |= {"min_pixels": side * side, "max_pixels": side * side}
    rng = np.random.default_rng(0)
    pictures = [folder / f"{number}.png" for number in range(PICTURES)]
    for path in pictures:
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(path)
    return zoo.assemble(spec, base_texts(2000, 0), 0), pictures


def questions(pictures: list[Path]) -> list[Question]:
    """Ask the same of each picture; the reward is of the answer's form alone, for both."""
    return [
        Question(
            id=path.name,
            task="affect",
            images=(path,),
            split="train",
            text=prompts.UNDERSTAND,
            truth={"emotion": "fear"},
        )
        for path in pictures
    ]


def ours(folder: Path, model: EmoSym, pictures: list[Path]) -> Run:
    """Set up our trainer on phase `verify_grpo`."""
    ranks.join()
    config = load_config(
        TrainConfig,
        None,
        base={
            "stages": [{"steps": 1000, "cycle": {"verify_grpo": 1}}],
            "engine": {"understander": {"lr": RATE, "warmup": 0, "decay": "constant"}},
            "verify_grpo": {
                "batch_size": SETTING["prompts"],
                "group": SETTING["group"],
                "answer_tokens": SETTING["tokens"],
                "beta": BETA,
                "rewards": {"format": 1.0, "emotion": 0.0, "affect_threshold": 0.0},
            },
        },
    )
    folder.mkdir()
    trainer = Trainer(config, folder, model, RunData([], questions(pictures)), "bench")

    def run(steps: int) -> list[float]:
        seconds = []
        for _ in range(steps):
            begun = time.monotonic()
            trainer.step()
            seconds.append(time.monotonic() - begun)
        return seconds

    return run


def trl(folder: Path, model: EmoSym, pictures: list[Path]) -> Run:
    """Set up TRL's trainer on the same backbone."""
    from benchmarks.trl_grpo import trl_grpo

    asked = questions(pictures)[0]
    return trl_grpo(
        folder,
        model.understander.backbone,
        model.processor,
        [Image.open(path).convert("RGB") for path in pictures],
        asked.text,
        lambda text: float(parse(text, asked).well_formed),
        batch=SETTING["prompts"] * SETTING["group"],
        group=SETTING["group"],
        tokens=SETTING["tokens"],
        beta=BETA,
        rate=RATE,
    )


# TRL first: set up after ours it would take itself for one of several ranks, and be slower.
CONTENDERS = {"trl": trl, "ours": ours}


def _peak() -> float:
    """Return the peak memory of this process in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _peak_of(contender: str, patches: int) -> float:
    """Return what two steps need above what the set-up needed, MB, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.grpo", f"--patches={patches}"]
    done = subprocess.run(
        [*command, f"--peak-of={contender}"], capture_output=True, text=True, check=True
    )
    return float(re.search(r"^peak (.+)$", done.stdout, re.MULTILINE)[1])


if __name__ == "__main__":
    typer.run(main)
