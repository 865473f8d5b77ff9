"""Reinforce: sample images of a prompt, judge them, move the decoder towards the better ones."""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from PIL import Image

from emosym.affect.scales import PUBLIC
from emosym.errors import UserError
from emosym.inference.pipeline import complete, wanted_affect
from emosym.interfaces import Scorer
from emosym.records import ImageRequest, Sample
from emosym.rl.image_statistics import statistics
from emosym.tasks import prompts
from train.phases.base import MicroBatch, PhaseContext, StepOutput
from train.phases.reinforce.algorithms import ALGORITHMS, Group
from train.phases.reinforce.judging import ORACLE, Scorers, oracle_scorer


class Reinforce:
    """One update of the generator on G judged images a prompt.

    A group shares its prompt and the wanted valence and arousal: those of the prompt's own image,
    or any of the plane. Ref: Flow-GRPO (arXiv 2505.05470); EmoFeedback² (arXiv 2511.19982), whose
    targets and reward are not published.
    """

    name = "reinforce"
    owns = ("generator",)
    material: Literal["samples"] = "samples"
    replays = False
    dropout = False

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.config = config = context.config.reinforce
        self.batch_size = config.batch_size
        self._check()
        self.algorithm = ALGORITHMS[config.algorithm](context)
        self.watch: dict[str, Scorer] = dict(
            Scorers(config.watch, config.judges, context.reference).scorers
        )
        truth = oracle_scorer(context.training_set.samples)
        if truth is not None:
            self.watch[ORACLE] = truth
        both = ("reward", "second_judge")
        self.compares = both if self.watch and config.patience else None

    def loss(self, part: MicroBatch) -> StepOutput:
        """Sample, judge and return the loss of one micro-batch of prompts."""
        context, group = self.context, self._group(part)
        learned = self.algorithm(group)
        total = learned.rewards
        with context.outside():
            watched = {
                name: torch.from_numpy(scorer(learned.images, group.requests)).mean()
                for name, scorer in self.watch.items()
            }
        if watched:
            watched["second_judge"] = torch.stack(list(watched.values())).mean()
        return StepOutput(
            learned.loss,
            {
                **learned.metrics,
                "reward": total.mean(),
                "reward_spread": total.std(1).mean(),
                "zero_variance": (total.std(1) < 1e-6).float().mean(),
                **watched,
                **_looks(learned.images, self.config.group),
            },
        )

    def _check(self) -> None:
        """Refuse what the data cannot ask for, before a step is lost to it."""
        training_set, config = self.context.training_set, self.config
        if all(sample.prompt is None for sample in training_set.material("samples")):
            raise UserError(
                "reinforce has nothing to draw",
                got="no training image with a prompt",
                fix="add prompts to the data",
            )
        if config.own_target:
            training_set.require("reinforce.own_target", "valence", "arousal")
        asked = [name for name, weight in config.rewards.items() if weight] + config.watch
        self.named = "label" in asked
        unnamed = [s for s in training_set.samples if s.emotion is None or not _rated(s)]
        if self.named and (config.own_target < 1 or unnamed):
            raise UserError(
                "judge 'label' needs an emotion in every request",
                got=f"own_target={config.own_target:g}, {len(unnamed)} training images without one",
                expected="own_target=1 and images that have emotion, valence and arousal",
                fix="take label out of reinforce.rewards and reinforce.watch, or ask for no more",
            )

    def _group(self, part: MicroBatch) -> Group:
        context, size = self.context, self.config.group
        requests = self._requests(part)
        texts = [prompts.imagine(request) for request in requests]
        asked = context.model.processor.prompts(texts, None).to(context.device)
        with torch.no_grad():
            reading = context.parts["understander"](asked)
            affect = wanted_affect(requests).to(context.device)
            condition = context.condition(reading, [r.prompt for r in requests], affect)
        shape = context.model.autoencoder.latent_shape
        noise = rearrange(part.normal(size, *shape), "b g ... -> (b g) ...").to(context.device)
        return Group(
            requests=[request for request in requests for _ in range(size)],
            condition=condition.map(lambda each: each.repeat_interleave(size, 0)),
            noise=noise,
            part=part,
            size=size,
        )

    def _requests(self, part: MicroBatch) -> list[ImageRequest]:
        """Ask for each prompt with the affect of its own image, or with any of the plane."""
        own = (part.uniform() < self.config.own_target).tolist()
        anywhere = ((2 * part.uniform(2) - 1) * PUBLIC.high).tolist()
        return [
            self._own(sample) if keeps and _rated(sample) else _anywhere(sample, *point)
            for sample, keeps, point in zip(part.samples, own, anywhere, strict=True)
        ]

    def _own(self, sample: Sample) -> ImageRequest:
        return complete(
            ImageRequest(
                prompt=sample.prompt or "",
                emotion=sample.emotion if self.named else None,
                valence=sample.valence,
                arousal=sample.arousal,
            )
        )


def _looks(images: list[Image.Image], size: int) -> dict[str, float]:
    """Return the statistics of images, each a mean over the groups: diversity is of one prompt."""
    groups = [statistics(images[start : start + size]) for start in range(0, len(images), size)]
    return {name: sum(each[name] for each in groups) / len(groups) for name in groups[0]}


def _rated(sample: Sample) -> bool:
    return sample.valence is not None and sample.arousal is not None


def _anywhere(sample: Sample, valence: float, arousal: float) -> ImageRequest:
    return ImageRequest(prompt=sample.prompt or "", valence=valence, arousal=arousal)
