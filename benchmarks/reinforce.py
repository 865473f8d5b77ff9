"""`make bench-reinforce`: images a second of complete RL steps, for each algorithm of `reinforce`.

The baseline is Flow-GRPO as published: all sampling steps but the last are stochastic and trained,
one after the other, with guidance (the unconditional branch without gradient), and the condition
is computed for each image of a group. All have the same tiny SD3, prompts, judge, number of
sampling steps and images, KL to the frozen initial model, and float32, and run in turns in one
process. Ref: Flow-GRPO, arXiv 2505.05470, and the training script of its release.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from benchmarks.timing import Run, in_turns, seconds_and_range, timed
from benchmarks.trainer import single_phase_trainer
from data_tools.affectworld.world import write_world
from data_tools.dataset import open_dataset
from emosym.diffusion.guidance import SOURCES, combine, guidance_of
from emosym.diffusion.processes import Interval
from emosym.diffusion.transitions import GaussianStep, flow_sde, log_prob, sde_kl
from emosym.inference.inputs import wanted_affect
from emosym.inference.pixels import to_image
from emosym.models.generator import Condition, Generator, keep_only
from emosym.models.imagine import imagine_prompt
from emosym.models.model import EmoSym
from emosym.randomness import Draws
from emosym.records import ImageRequest, Sample
from emosym.rl.advantages import group_advantages
from emosym.rl.scorers import AffectScorer, image_understander
from model_zoo import zoo
from model_zoo.quiet import quiet_libraries
from train.data.run_data import RunData
from train.distributed import ranks
from train.phases.reinforce.algorithms import ALGORITHMS
from train.reference import ReferenceModel

PROMPTS, GROUP, STEPS = 8, 8, 10
"""Prompts a step, images a prompt, sampling steps."""
BETA, LEARNING_RATE, CLIP, GUIDANCE, NOISE = 0.04, 1e-5, 1e-4, 4.5, 0.7


def main(
    rounds: Annotated[int, typer.Option(help="Number of rounds.")] = 3,
    model: Annotated[str, typer.Option(help="Model folder or zoo member.")] = "emosym-tiny",
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
        times = in_turns(runs, rounds, 1)
    print(f"{PROMPTS} prompts x {GROUP} images, {STEPS} sampling steps, medians of {rounds} steps")
    baseline = statistics.median(times["published"])
    for contender, seconds in times.items():
        median = statistics.median(seconds)
        print(
            f"{contender:10s} {PROMPTS * GROUP / median:7.1f} images/s"
            f"  {seconds_and_range(seconds)}  {baseline / median:5.2f} x"
        )


def ours(folder: Path, model: EmoSym, samples: list[Sample], algorithm: str) -> Run:
    """Set up our trainer with phase `reinforce`."""
    trainer = single_phase_trainer(
        folder / algorithm,
        model,
        RunData(samples, []),
        phase="reinforce",
        options={
            "algorithm": algorithm,
            "batch_size": PROMPTS,
            "num_images_per_prompt": GROUP,
            "num_inference_steps": STEPS,
            "beta": BETA,
        },
        engine="generator",
        learning_rate=LEARNING_RATE,
    )
    return timed(trainer.step)


def published(model: EmoSym, samples: list[Sample]) -> Run:
    """Set up Flow-GRPO as published, in plain PyTorch."""
    model.train()
    generator, start = model.generator, copy.deepcopy(model.generator).requires_grad_(False)
    for part in (generator.denoiser.text_encoder, model.understander, model.autoencoder):
        part.requires_grad_(False)
    judge = AffectScorer(image_understander(ReferenceModel(model)))
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0)
    schedule = generator.process.timesteps(STEPS)
    intervals = [Interval(here, there, schedule[1]) for here, there in pairwise(schedule)]
    number = 0

    def train_step() -> None:
        nonlocal number
        draws = Draws("published", number)
        batch = [samples[(number * PROMPTS + i) % len(samples)] for i in range(PROMPTS)]
        number += 1
        requests = [
            ImageRequest(prompt=sample.prompt or "", affect=sample.affect)
            for sample in batch
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
        for i, interval in enumerate(intervals[:-1]):
            step = _step(generator, path[i], interval, condition)
            ratio = (log_prob(path[i + 1], step) - logs[i]).exp()
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            policy = -torch.minimum(ratio * advantages, clipped * advantages).mean()
            with torch.no_grad():
                reference = _step(start, path[i], interval, condition)
            kl = sde_kl(step, reference, interval).mean()
            ((policy + BETA * kl) / (STEPS - 1)).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return timed(train_step)


@torch.no_grad()
def _condition(model: EmoSym, requests: list[ImageRequest]) -> Condition:
    texts = [imagine_prompt(request) for request in requests]
    output = model.read(model.processor.prompts(texts, None))
    return model.condition(output, [r.prompt for r in requests], wanted_affect(requests))


def _step(
    generator: Generator, latents: Tensor, interval: Interval, condition: Condition
) -> GaussianStep:
    time = interval.time.expand(len(latents))
    wanted = generator(latents, time, condition, keep_only(SOURCES, latents))
    with torch.no_grad():
        free = generator(latents, time, condition, keep_only((), latents))
    output = combine([free, wanted], guidance_of(GUIDANCE))
    split = generator.process.predict(latents, output, time)
    return flow_sde(generator.process, interval, latents, split, NOISE)


if __name__ == "__main__":
    typer.run(main)
