"""Algorithms that need scores only: draw a step's images, judge them, compare them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from emosym.diffusion.nft import ADVANTAGE_CAP
from emosym.rl.advantages import joint_advantages
from train.distributed import ranks
from train.micro_batches import gather
from train.phases.base import Alarm, PhaseContext, StepAbandoned
from train.phases.reinforce.algorithm import Algorithm, Drawn, Group, Judged, Rollout
from train.phases.reinforce.config import (
    NftOptions,
    PolicyGradientOptions,
    ReinforceConfig,
)
from train.phases.reinforce.judging import Scorers

Scored = TypeVar("Scored", bound=PolicyGradientOptions | NftOptions)
ATTEMPTS = 3
"""How often the images of a step are drawn, if too many of them have no score."""
REASONS = 3
"""Reasons of missing scores that an error shows."""


class ScoredAlgorithm(Algorithm[Scored, Drawn]):
    """An algorithm that needs scores only, so any judge will do.

    An image without a score is left out of its group: it has advantage 0. If too many are, the
    step's images are drawn again for the same requests, from the numbers that follow in the step's
    stream.
    """

    def __init__(self, context: PhaseContext, config: ReinforceConfig, options: Scored) -> None:
        super().__init__(context, config, options)
        self.scorers = Scorers(self.names, self.config.judges, context.reference)

    @abstractmethod
    def draw(self, group: Group) -> tuple[Drawn, list[Image.Image]]:
        """Return what the algorithm trains on, and the images [B·G]."""

    @torch.no_grad()
    def rollouts(self, groups: Sequence[Group]) -> list[Rollout[Drawn]]:
        """Draw and judge images, and compare those of each prompt over the whole step."""
        reasons: list[str] = []
        for redraws in range(ATTEMPTS):
            judged = [self._judged(group, reasons) for group in groups]
            batches = [group.batch for group in groups]
            scores = gather(batches, [scores for _, scores in judged])  # [N, judges, G]
            if self._enough(scores.isnan().any(1)):
                rollouts = [rollout for rollout, _ in judged]
                self._compare(rollouts, scores)
                for rollout in rollouts:
                    rollout.metrics["redraws"] = float(redraws)
                return rollouts
        raise self._abandoned(scores, reasons)

    def _compare(self, rollouts: Sequence[Rollout[Drawn]], scores: Tensor) -> None:
        """Set the advantages of rollouts from the scores of the whole step [N, judges, G]."""
        advantages = joint_advantages(
            rearrange(scores, "n r g -> r n g"),
            self.weights.to(scores),
            scale_rewards=self.options.scale_rewards,
            multi_objective_aggregation=self.options.multi_objective_aggregation,
        ).clamp(-ADVANTAGE_CAP, ADVANTAGE_CAP)
        for rollout in rollouts:
            rollout.advantages = advantages[rollout.group.batch.rows].flatten()

    def _judged(self, group: Group, reasons: list[str]) -> tuple[Rollout[Drawn], Tensor]:
        """Return a rollout without advantages, and its scores [B, judges, G]."""
        drawn, images = self.draw(group)
        with self.context.save_on_failure():
            scores = self.scorers(images, group.requests, reasons)
        judged = Judged(images=images, scores=scores, rewards=self.rewards(scores, group.size))
        stacked = torch.stack([scores[name] for name in self.names]).to(self.context.device)
        by_group = rearrange(stacked, "r (b g) -> b r g", g=group.size)
        return Rollout(group=group, drawn=drawn, judged=judged), by_group

    def _enough(self, missing: Tensor) -> bool:
        """Return whether images [N, G] without a score are few, and each group has two scores."""
        most = self.config.max_unjudged * missing.numel() + 1e-6
        return bool(missing.sum() <= most and ((~missing).sum(1) >= 2).all())

    def _abandoned(self, scores: Tensor, reasons: list[str]) -> StepAbandoned:
        missing = scores.isnan()
        silent = [
            name for name, row in zip(self.names, missing.unbind(1), strict=True) if row.any()
        ]
        unjudged = missing.any(1)
        told = list(dict.fromkeys(ranks.gather_texts(reasons)))[:REASONS]
        return StepAbandoned(
            Alarm(
                f"no score for too many images of a step, drawn {ATTEMPTS} times:"
                f" judge {', '.join(map(repr, silent))}",
                got=f"{int(unjudged.sum())} of {unjudged.numel()} images without a score"
                + "".join(f"; {each}" for each in told),
                fix="the step was left out; correct the judge, choose another one, or raise"
                " reinforce.max_unjudged, then continue with the next step",
            ),
            {"unjudged": float(unjudged.float().mean()), "redraws": float(ATTEMPTS - 1)},
        )
