"""`make bench-reinforce`: images a second of a whole RL step, for each algorithm, side by side.

Beside ours stands Flow-GRPO as it was published: every step but the last is drawn and trained, one
after the other, guidance is on (both branches are run, the unconditional one without gradient), and
each image of a group is conditioned by itself. The same tiny SD3, prompts, judge, number of
sampling steps and images, KL to a frozen start, float32, one process, in turns.
Ref: arXiv 2505.05470 and its published training script.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from emosym.config import load_config
from emosym.diffusion.guidance import classifier_free_guidance
from emosym.diffusion.processes import Interval
from emosym.diffusion.transitions import GaussianStep, flow_sde, log_prob
from emosym.inference.pipeline import to_image, wanted_affect
from emosym.models.generator import Condition, Generator
from emosym.models.model import EmoSym
from emosym.randomness import Draws
from emosym.records import ImageRequest, Sample
from emosym.rl.advantages import group_advantages
from emosym.rl.scorers import AffectScorer, image_understander
from emosym.tasks import prompts
from model_zoo import zoo
from model_zoo.quiet import quiet_libraries
from train.config import TrainConfig
from train.data.run_data import RunData
from train.distributed import ranks
from train.phases.reinforce.algorithms import ALGORITHMS
from train.reference import ReferenceModel
from train.trainer import Trainer

Run = Callable[[], None]
"""One step."""
PROMPTS, GROUP, STEPS = 8, 8, 10
BETA, RATE, CLIP, GUIDANCE, NOISE = 0.04, 1e-5, 1e-4, 4.5, 0.7


def main(
    rounds: Annotated[int, typer.Option(help="Times that each is measured.")] = 3,
    model: Annotated[str, typer.Option(help="Model folder or member.")] = "emosym-tiny",
) -> None:
    """Print images a second of every algorithm, and the ratio to Flow-GRPO as published."""
    quiet_libraries()
    ranks.join()
    with tempfile.TemporaryDirectory(prefix="emosym-bench-") as name:
        folder = Path(name)
        write_world(folder / "world", 64, 0)
        samples = [s for s in open_dataset(folder / "world") if s.split == "train"]
        start = zoo.load(model)
        runs = {"published": published(copy.deepcopy(start), samples)}
        for algorithm in ALGORITHMS:
            runs[algorithm] = ours(folder, copy.deepcopy(start), samples, algorithm)
        for run in runs.values():
            run()  # not counted: first use allocates
        seconds: dict[str, list[float]] = {contender: [] for contender in runs}
        for _ in range(rounds):
            for contender, run in runs.items():
                begun = time.monotonic()
                run()
                seconds[contender].append(time.monotonic() - begun)
    print(f"{PROMPTS} prompts x {GROUP} images, {STEPS} sampling steps, medians of {rounds} steps")
    slow = statistics.median(seconds["published"])
    for contender, values in seconds.items():
        middle = statistics.median(values)
        print(
            f"{contender:10s} {PROMPTS * GROUP / middle:7.1f} images/s  {middle:6.2f} s a step"
            f" [{min(values):.2f}, {max(values):.2f}]  {slow / middle:5.2f} x"
        )


def ours(folder: Path, model: EmoSym, samples: list[Sample], algorithm: str) -> Run:
    """Set up our trainer on phase `reinforce`."""
    config = load_config(
        TrainConfig,
        None,
        base={
            "stages": [{"steps": 1000, "cycle": {"reinforce": 1}}],
            "engine": {"generator": {"lr": RATE, "warmup": 0, "decay": "constant"}},
            "reinforce": {
                "algorithm": algorithm,
                "batch_size": PROMPTS,
                "group": GROUP,
                "steps": STEPS,
                "beta": BETA,
            },
        },
    )
    run = folder / algorithm
    run.mkdir()
    trainer = Trainer(config, run, model, RunData(samples, []), "bench")

    def step() -> None:
        trainer.step()

    return step


def published(model: EmoSym, samples: list[Sample]) -> Run:
    """Set up Flow-GRPO as it was published, in plain PyTorch."""
    model.train()
    generator, start = model.generator, copy.deepcopy(model.generator).requires_grad_(False)
    for part in (generator.denoiser.text_encoder, model.understander, model.autoencoder):
        part.requires_grad_(False)
    judge = AffectScorer(image_understander(ReferenceModel(model)))
    owned = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(owned, lr=RATE, weight_decay=0)
    schedule = generator.process.timesteps(STEPS)
    intervals = [Interval(here, there, schedule[1]) for here, there in pairwise(schedule)]
    turn = 0

    def run() -> None:
        nonlocal turn
        draws = Draws("published", turn)
        chosen = [samples[(turn * PROMPTS + place) % len(samples)] for place in range(PROMPTS)]
        turn += 1
        requests = [
            ImageRequest(prompt=sample.prompt, valence=sample.valence, arousal=sample.arousal)
            for sample in chosen
            for _ in range(GROUP)
        ]
        condition = _condition(model, requests)
        latents = draws.normal(len(requests), *model.autoencoder.latent_shape)
        path, logs = [latents], []
        with torch.no_grad():
            for interval in intervals:
                step = _step(generator, path[-1], interval, condition)
                sample = step.mean + step.std * draws.normal(*latents.shape)
                logs.append(log_prob(sample, step))
                path.append(sample)
            pixels = model.autoencoder.decode(path[-1]).clamp(-1, 1)
        scores = torch.from_numpy(judge([to_image(each) for each in pixels], requests)).float()
        advantages = group_advantages(scores.view(PROMPTS, GROUP), "batch").view(-1).clamp(-5, 5)
        optimizer.zero_grad()
        for place, interval in enumerate(intervals[:-1]):
            step = _step(generator, path[place], interval, condition)
            ratio = (log_prob(path[place + 1], step) - logs[place]).exp()
            kept = ratio.clamp(1 - CLIP, 1 + CLIP)
            policy = -torch.minimum(ratio * advantages, kept * advantages).mean()
            with torch.no_grad():
                before = _step(start, path[place], interval, condition)
            kl = ((step.mean - before.mean).square() / (2 * step.std.square())).mean()
            ((policy + BETA * kl) / (STEPS - 1)).backward()
        torch.nn.utils.clip_grad_norm_(owned, 1.0)
        optimizer.step()

    return run


@torch.no_grad()
def _condition(model: EmoSym, requests: list[ImageRequest]) -> Condition:
    texts = [prompts.imagine(request) for request in requests]
    reading = model.read(model.processor.prompts(texts, None))
    return model.condition(reading, [r.prompt for r in requests], wanted_affect(requests))


def _step(
    generator: Generator, latents: Tensor, interval: Interval, condition: Condition
) -> GaussianStep:
    time = interval.time.expand(len(latents))
    yes = torch.ones(len(latents), dtype=torch.bool)
    wanted = generator(latents, time, condition, yes)
    with torch.no_grad():
        free = generator(latents, time, condition, ~yes)
    output = classifier_free_guidance(wanted, free, GUIDANCE)
    split = generator.process.predict(latents, output, time)
    return flow_sde(generator.process, interval, latents, split, NOISE)


if __name__ == "__main__":
    typer.run(main)
