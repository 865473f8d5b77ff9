"""`make bench-grpo`: complete GRPO steps of our trainer and of TRL's GRPOTrainer.

Both train the same Qwen2.5-VL (8M parameters, random weights) on the same images and question,
with the same number and length of completions, KL to a frozen reference, and float32, in turns in
one process. Ours has eight more tokens per prompt, the reasoning tokens. Peak memory is measured in
a separate process for each.
"""

from __future__ import annotations

import copy
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image

from benchmarks.timing import Run, in_turns, seconds_and_range, timed
from benchmarks.trainer import single_phase_trainer
from emosym.models.model import EmoSym
from emosym.records import Question
from emosym.tasks.affect import AFFECT_PROMPT
from emosym.tasks.answers import parse
from model_zoo import catalogue, zoo
from train.data.base_texts import base_texts
from train.data.run_data import RunData
from train.distributed import ranks

PATCH = 8
"""Side of a patch in pixels."""
IMAGES = 16
SETTING = {"prompts": 4, "group": 8, "tokens": 48}
"""Prompts a step, completions a prompt, maximum length of a completion."""
BETA, LEARNING_RATE = 0.04, 1e-5
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
"""Changes to the backbone of preset emosym-tiny."""


def main(
    patches: Annotated[
        int, typer.Option(help="Side of an image in patches: 24 gives 144 visual tokens.")
    ] = 24,
    rounds: Annotated[int, typer.Option(help="Number of rounds.")] = 3,
    steps: Annotated[int, typer.Option(help="Steps a round.")] = 2,
    peak_of: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print completions a second and peak memory of both, and their ratios."""
    from model_zoo.quiet import quiet_libraries

    quiet_libraries()
    # In processes of their own, because a process keeps memory that it once allocated.
    peak = {} if peak_of else {contender: _peak_of(contender, patches) for contender in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="emosym-bench-") as name:
        model, images = prepare(Path(name), patches)
        if peak_of:
            run = CONTENDERS[peak_of](Path(name) / peak_of, model, images)
            before = _peak()
            run(2)
            print(f"peak {_peak() - before}")
            return
        runs = {
            contender: make(Path(name) / contender, copy.deepcopy(model), images)
            for contender, make in CONTENDERS.items()
        }
        times = in_turns(runs, rounds, steps)
    completions = SETTING["prompts"] * SETTING["group"]
    print(f"{(patches // 2) ** 2} visual tokens, {SETTING}, medians of {rounds} x {steps} steps")
    speed = {}
    for contender, seconds in times.items():
        speed[contender] = completions / statistics.median(seconds)
        print(
            f"{contender:5s} {speed[contender]:7.2f} completions/s  {seconds_and_range(seconds)}"
            f"  {peak[contender]:5.0f} MB"
        )
    print(
        f"ours / trl: {speed['ours'] / speed['trl']:.2f} x completions/s,"
        f" {peak['ours'] / peak['trl']:.2f} x memory"
    )


def prepare(folder: Path, patches: int) -> tuple[EmoSym, list[Path]]:
    """Build the model and write the images; return the model and the image files."""
    side = patches * PATCH
    spec = copy.deepcopy(catalogue.preset("emosym-tiny"))
    for section, values in BACKBONE.items():
        spec["backbone"][section] |= values
    spec["image_processor"] |= {"min_pixels": side * side, "max_pixels": side * side}
    rng = np.random.default_rng(0)
    images = [folder / f"{number}.png" for number in range(IMAGES)]
    for path in images:
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(path)
    return zoo.build_preset(spec, base_texts(2000, 0), 0), images


def questions(images: list[Path]) -> list[Question]:
    """Return the same question about each image; the reward depends only on the answer's form."""
    return [
        Question(
            id=path.name,
            task="affect",
            images=(path,),
            split="train",
            text=AFFECT_PROMPT,
            truth={"emotion": "fear"},
        )
        for path in images
    ]


def ours(folder: Path, model: EmoSym, images: list[Path]) -> Run:
    """Set up our trainer with phase `verify_grpo`."""
    ranks.join()
    trainer = single_phase_trainer(
        folder,
        model,
        RunData([], questions(images)),
        phase="verify_grpo",
        options={
            "batch_size": SETTING["prompts"],
            "num_generations": SETTING["group"],
            "max_completion_length": SETTING["tokens"],
            "beta": BETA,
            "reward_weights": {"format": 1.0, "emotion": 0.0, "affect_threshold": 0.0},
        },
        engine="understander",
        learning_rate=LEARNING_RATE,
    )
    return timed(trainer.step)


def trl(folder: Path, model: EmoSym, images: list[Path]) -> Run:
    """Set up TRL's trainer with the same backbone."""
    from benchmarks.trl_grpo import trl_grpo

    question = questions(images)[0]
    parts = zoo.components(model)
    return trl_grpo(
        folder,
        parts.backbone,
        parts.processor,
        [Image.open(path).convert("RGB") for path in images],
        question.text,
        lambda text: float(parse(text, question).well_formed),
        batch_size=SETTING["prompts"] * SETTING["group"],
        num_generations=SETTING["group"],
        max_completion_length=SETTING["tokens"],
        beta=BETA,
        learning_rate=LEARNING_RATE,
    )


# TRL is set up first: after ours it would find an initialised process group and be slower.
CONTENDERS: dict[str, Callable[[Path, EmoSym, list[Path]], Run]] = {"trl": trl, "ours": ours}


def _peak() -> float:
    """Return the peak memory of this process in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _peak_of(contender: str, patches: int) -> float:
    """Return how much two steps raise the peak memory after the set-up, in MB.

    It is measured in a new process.
    """
    command = [sys.executable, "-m", "benchmarks.grpo", f"--patches={patches}"]
    done = subprocess.run(
        [*command, f"--peak-of={contender}"], capture_output=True, text=True, check=True
    )
    (peak,) = re.findall(r"^peak (.+)$", done.stdout, re.MULTILINE)
    return float(peak)


if __name__ == "__main__":
    typer.run(main)
