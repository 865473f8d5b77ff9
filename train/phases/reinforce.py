"""Reinforce: sample images of a prompt, judge them, move the decoder towards the better ones."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from emosym import prompts
from emosym.affect import PUBLIC
from emosym.generator import Condition
from emosym.pipeline import to_image, wanted_affect
from emosym.policy import joint_advantages
from emosym.records import ImageRequest, Sample
from train import ranks
from train.phases.base import Bench, Outcome, Slice
from train.phases.reinforcement import ALGORITHMS


class Reinforce:
    """One update of the generator on G judged images a prompt.

    Groups share the prompt and the wanted valence and arousal: those of the prompt's own image, or
    any of the plane. Ref: Flow-GRPO (arXiv 2505.05470); EmoFeedback² (arXiv 2511.19982), whose
    targets and reward are not published.
    """

    name = "reinforce"
    owns = ("generator",)
    material = "samples"
    replays = False

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.config = config = bench.config.reinforce
        self.batch_size = config.batch_size
        self.process = bench.model.generator.process
        self.algorithm = ALGORITHMS[config.algorithm](config, self.process)

    def loss(self, part: Slice) -> Outcome:
        """Sample, judge and return the loss of one micro-batch of prompts."""
        bench, config, group = self.bench, self.config, self.config.group
        requests = self._requests(part)
        condition = self._condition(requests).map(lambda each: each.repeat_interleave(group, 0))
        shape = bench.model.autoencoder.latent_shape
        noise = rearrange(part.normal(group, *shape), "b g ... -> (b g) ...").to(bench.device)
        generator = bench.model.generator
        generator.eval()
        drawn = self.algorithm.sample(generator.guided(condition, config.guidance), noise, part)
        generator.train()
        images = self._images(drawn.images)
        each = [request for request in requests for _ in range(group)]
        scores = self._scores(images, each)
        rewards = rearrange(scores, "r (b g) -> r b g", g=group)
        advantages = rearrange(self._advantages(rewards), "b g -> (b g)")

        times = len(drawn.latents) // len(noise)
        wide = condition.map(lambda each: torch.cat([each] * times))
        keep = torch.ones(len(drawn.latents), dtype=torch.bool, device=bench.device)
        outputs = bench.parts["generator"](drawn.latents, drawn.time, wide, keep)
        loss, metrics = self.algorithm.loss(drawn, outputs, advantages)
        if config.beta:
            with torch.no_grad():
                start = bench.start(drawn.latents, drawn.time, wide, keep)
            kl = (outputs - start).float().square().mean()
            loss = loss + config.beta * kl
            metrics["kl"] = kl.detach()
        total = rewards.mean(0)
        return Outcome(
            loss,
            {
                **metrics,
                "reward": total.mean(),
                "reward_spread": total.std(1).mean(),
                **self._watch(images, part.samples, each),
            },
        )

    def _requests(self, part: Slice) -> list[ImageRequest]:
        """Ask for each prompt with the affect of its own image, or with any of the plane."""
        own = part.uniform() < self.config.own_target
        anywhere = (2 * part.uniform(2) - 1) * PUBLIC.high
        found = []
        for sample, keeps, (valence, arousal) in zip(
            part.samples, own.tolist(), anywhere.tolist(), strict=True
        ):
            if keeps and sample.valence is not None and sample.arousal is not None:
                valence, arousal = sample.valence, sample.arousal
            found.append(ImageRequest(prompt=sample.prompt or "", valence=valence, arousal=arousal))
        return found

    def _condition(self, requests: list[ImageRequest]) -> Condition:
        bench = self.bench
        texts = [prompts.imagine(request) for request in requests]
        asked = bench.model.processor.prompts(texts, None).to(bench.device)
        with torch.no_grad():
            reading = bench.parts["understander"](asked)
            affect = wanted_affect(requests).to(bench.device)
            return bench.model.condition(reading, [r.prompt for r in requests], affect)

    @torch.no_grad()
    def _images(self, latents: Tensor) -> list[Image.Image]:
        pixels = self.bench.model.autoencoder.decode(latents).clamp(-1, 1)
        return [to_image(each) for each in pixels]

    def _scores(self, images: list[Image.Image], requests: list[ImageRequest]) -> Tensor:
        seen, _ = self.bench.reference.recognise(images)
        errors = [
            abs(s.valence - r.valence) + abs(s.arousal - r.arousal)
            for s, r in zip(seen, requests, strict=True)
        ]
        return 1 - torch.tensor(errors)[None].to(self.bench.device) / 12

    def _watch(self, images, samples: list[Sample], requests) -> dict[str, float]:
        from data_tools.affectworld.truth import oracle

        subjects = [s.attributes["object"][0] for s in samples for _ in range(self.config.group)]
        found = [oracle(i, s).to(PUBLIC) for i, s in zip(images, subjects, strict=True)]
        return {
            "oracle_v_error": np.mean(
                [abs(f.valence - r.valence) for f, r in zip(found, requests, strict=True)]
            ),
            "oracle_a_error": np.mean(
                [abs(f.arousal - r.arousal) for f, r in zip(found, requests, strict=True)]
            ),
        }

    def _advantages(self, rewards: Tensor) -> Tensor:
        weights = torch.ones(len(rewards), device=rewards.device)
        everyone = rearrange(ranks.gather(rearrange(rewards, "r b g -> b r g")), "b r g -> r b g")
        found = joint_advantages(everyone, weights, spread=self.config.spread)
        first = ranks.rank() * rewards.shape[1]
        return found[first : first + rewards.shape[1]]
