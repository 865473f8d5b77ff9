"""Reinforce: sample images of a prompt, judge them, train the decoder on the judgement."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from einops import rearrange
from PIL import Image

from emosym.affect.scales import PUBLIC, Affect
from emosym.errors import UserError
from emosym.inference.pipeline import complete, wanted_affect
from emosym.interfaces import Scorer
from emosym.models.imagine import imagine_prompt
from emosym.models.model import ModelConfig
from emosym.records import ImageRequest, Sample
from emosym.rl.image_statistics import statistics
from train.phases.base import Alarm, MicroBatch, Phase, PhaseContext, StepOutput, Text
from train.phases.reinforce import hacking
from train.phases.reinforce.algorithms import ALGORITHMS, Group
from train.phases.reinforce.config import ReinforceConfig
from train.phases.reinforce.judging import ORACLE, Scorers, oracle_scorer


class Reinforce(Phase[ReinforceConfig, Sample]):
    """One update of the generator on G judged images a prompt.

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
        history.append([metrics["reward"], metrics["second_judge"]])
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

    def loss(self, batch: MicroBatch[Sample]) -> StepOutput:
        """Sample, judge and return the loss of one micro-batch of prompts."""
        context, group = self.context, self._group(batch)
        output = self.algorithm(group)
        total = output.rewards
        with context.save_on_failure():
            watched = {
                name: torch.from_numpy(scorer(output.images, group.requests)).mean()
                for name, scorer in self.watch.items()
            }
        if watched:
            watched["second_judge"] = torch.stack(list(watched.values())).mean()
        return StepOutput(
            output.loss,
            {
                **output.metrics,
                "reward": total.mean(),
                "reward_spread": total.std(1).mean(),
                "zero_variance": (total.std(1) < 1e-6).float().mean(),
                **watched,
                **_image_statistics(output.images, self.config.num_images_per_prompt),
            },
        )

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

    def _group(self, batch: MicroBatch[Sample]) -> Group:
        context, size = self.context, self.config.num_images_per_prompt
        requests = self._requests(batch)
        texts = [imagine_prompt(request) for request in requests]
        tokens = context.model.processor.prompts(texts, None).to(context.device)
        with torch.no_grad():
            states = context.parts["understander"](tokens)
            affect = wanted_affect(requests).to(context.device)
            condition = context.condition(states, [r.prompt for r in requests], affect)
        shape = context.model.autoencoder.latent_shape
        noise = rearrange(batch.normal(size, *shape), "b g ... -> (b g) ...").to(context.device)
        return Group(
            requests=[request for request in requests for _ in range(size)],
            condition=condition.map(lambda each: each.repeat_interleave(size, 0)),
            noise=noise,
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


def _image_statistics(images: list[Image.Image], size: int) -> dict[str, float]:
    """Return image statistics as means over groups, because diversity is defined for one prompt."""
    groups = [statistics(images[start : start + size]) for start in range(0, len(images), size)]
    return {name: sum(each[name] for each in groups) / len(groups) for name in groups[0]}
