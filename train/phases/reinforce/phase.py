"""Reinforce: sample images of a prompt, judge them, train the decoder on the judgement."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from emosym.affect.scales import PUBLIC, Affect
from emosym.errors import UserError
from emosym.inference.inputs import complete, wanted_affect
from emosym.interfaces import Scorer
from emosym.models.imagine import imagine_prompt
from emosym.models.model import ModelConfig
from emosym.records import ImageRequest, Sample
from emosym.rl.advantages import constant_groups
from emosym.rl.image_statistics import statistics
from train.micro_batches import MicroBatch
from train.phases.base import Alarm, Phase, PhaseContext, StepOutput, Text
from train.phases.reinforce import hacking
from train.phases.reinforce.algorithm import Group, Judged, Rollout
from train.phases.reinforce.algorithms import ALGORITHMS
from train.phases.reinforce.config import ReinforceConfig
from train.phases.reinforce.judging import ORACLE, Scorers, oracle_scorer


class Reinforce(Phase[ReinforceConfig, Sample]):
    """Updates of the generator on G judged images a prompt.

    A group shares its prompt and the wanted valence and arousal: those of the prompt's own image,
    or a random point of the plane. Ref: Flow-GRPO (arXiv 2505.05470); EmoFeedback² (arXiv
    2511.19982), whose targets and reward are not published.
    """

    name = "reinforce"
    Config = ReinforceConfig
    needs = frozenset({"start"})
    owns = ("generator",)
    dropout = False

    def __init__(self, context: PhaseContext) -> None:
        super().__init__(context)
        config = self.config
        self._check_data()
        self.algorithm = ALGORITHMS[config.algorithm](context, config, config.options())
        self.watch: dict[str, Scorer] = dict(
            Scorers(config.watch, config.judges, context.reference).scorers
        )
        truth = oracle_scorer(context.training_set.samples)
        if truth is not None:
            self.watch[ORACLE] = truth

    @classmethod
    def texts(cls, config: ReinforceConfig, item: Sample) -> Iterable[Text]:
        """Yield the prompt of an image."""
        if item.prompt is not None:
            yield Text(item.prompt, decoder=True)

    def monitor(self, metrics: dict[str, float], history: list[list[float]]) -> Alarm | None:
        """Stop the run when the reward rises while the second judge falls."""
        patience = self.config.patience
        if not self.watch or not patience:
            return None
        row = [metrics["reward"], metrics["second_judge"]]
        if all(map(math.isfinite, row)):  # else a judge gave no score in this step
            history.append(row)
        del history[:-patience]
        metrics["hacking"] = 0.0
        if len(history) == patience:
            metrics["hacking"] = hacking.divergence(
                [reward for reward, _ in history], [second for _, second in history]
            )
        if metrics["hacking"] <= hacking.ALARM:
            return None
        history.clear()
        return Alarm(
            "the reward rises while the second judge falls: the generator exploits its judge",
            got=f"{metrics['hacking']:.1f} standard errors apart in {patience} steps"
            " (reinforce/hacking)",
            fix="raise reinforce.beta, choose another judge, or continue with reinforce.patience=0",
        )

    def final_model_config(self, config: ModelConfig) -> ModelConfig:
        """Make the guidance of training the default of the model."""
        return dataclasses.replace(config, guidance=self.config.guidance_scale)

    def prepare(self, batches: Sequence[MicroBatch[Sample]]) -> list[Rollout[Any]]:
        """Draw and judge the images of a step."""
        rollouts = self.algorithm.rollouts([self._group(batch) for batch in batches])
        for rollout in rollouts:
            if rollout.judged is not None:
                rollout.metrics |= self._measure(rollout.judged, rollout.group)
                rollout.judged = None  # images are large
        return rollouts

    def loss(self, batch: MicroBatch[Sample]) -> StepOutput:
        """Return the loss of one micro-batch of prompts."""
        rollout: Rollout[Any] = batch.prepared
        output = self.algorithm.loss(rollout)
        metrics = {**rollout.metrics, **output.metrics}
        if output.judged is not None:
            metrics |= self._measure(output.judged, rollout.group)
        return StepOutput(output.loss, metrics, output.maxima)

    def _measure(self, judged: Judged, group: Group) -> dict[str, Tensor | float]:
        """Return what is logged of images, one number for each image or for each group."""
        with self.context.save_on_failure():
            watched = {
                name: torch.from_numpy(scorer(judged.images, group.requests)).float()
                for name, scorer in self.watch.items()
            }
        if watched:
            watched["second_judge"] = torch.stack(list(watched.values())).mean(0)
        several = len(judged.scores) > 1
        each = {f"reward_{name}": scores for name, scores in judged.scores.items() if several}
        rewards = judged.rewards
        spreads = [row[~row.isnan()].std() for row in rewards if (~row.isnan()).sum() > 1]
        return {
            **each,
            "reward": rewards.flatten(),
            "reward_spread": torch.stack(spreads or [torch.tensor(torch.nan)]),
            "zero_variance": constant_groups(rewards).float(),
            "unjudged": rewards.isnan().float().flatten(),
            **watched,
            **_image_statistics(judged.images, group.size),
        }

    def _check_data(self) -> None:
        """Refuse options for which the training images lack annotations."""
        training_set, config = self.context.training_set, self.config
        if all(sample.prompt is None for sample in training_set.all("samples")):
            raise UserError(
                "phase reinforce needs prompts",
                got="no training image with a prompt",
                fix="add prompts to the data",
            )
        if config.own_target:
            training_set.require("reinforce.own_target", "valence", "arousal")
        judges = [name for name, weight in config.reward_weights.items() if weight] + config.watch
        self.named = "label" in judges
        unnamed = [s for s in training_set.samples if s.emotion is None or s.affect is None]
        if self.named and (config.own_target < 1 or unnamed):
            raise UserError(
                "judge 'label' needs an emotion in every request",
                got=f"own_target={config.own_target:g}, {len(unnamed)} training images without one",
                expected="own_target=1 and images that have emotion, valence and arousal",
                fix="remove label from reinforce.reward_weights and reinforce.watch, or set"
                " own_target=1",
            )

    @torch.no_grad()
    def _group(self, batch: MicroBatch[Sample]) -> Group:
        context, size = self.context, self.config.num_images_per_prompt
        requests = self._requests(batch)
        texts = [imagine_prompt(request) for request in requests]
        tokens = context.model.processor.prompts(texts, None).to(context.device)
        states = context.parts["understander"](tokens)
        affect = wanted_affect(requests).to(context.device)
        return Group(
            requests=[request for request in requests for _ in range(size)],
            prompts=context.condition(states, [r.prompt for r in requests], affect),
            batch=batch,
            size=size,
        )

    def _requests(self, batch: MicroBatch[Sample]) -> list[ImageRequest]:
        """Return a request for each prompt: the affect of its own image, or a random point."""
        own = (batch.uniform() < self.config.own_target).tolist()
        anywhere = ((2 * batch.uniform(2) - 1) * PUBLIC.high).tolist()
        return [
            self._own(sample)
            if keeps and sample.affect is not None
            else ImageRequest(prompt=sample.prompt or "", affect=Affect(*point))
            for sample, keeps, point in zip(batch.items, own, anywhere, strict=True)
        ]

    def _own(self, sample: Sample) -> ImageRequest:
        return complete(
            ImageRequest(
                prompt=sample.prompt or "",
                emotion=sample.emotion if self.named else None,
                affect=sample.affect,
            )
        )


def _image_statistics(images: list[Image.Image], size: int) -> dict[str, Tensor]:
    """Return image statistics of each group, because diversity is defined for one prompt."""
    groups = [statistics(images[start : start + size]) for start in range(0, len(images), size)]
    return {name: torch.tensor([each[name] for each in groups]) for name in groups[0]}
