"""Remember: draw, judge, admit to the memory bank. Ref: EmoSym §2.8."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from data_tools.dataset import open_dataset
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.randomness import Draws
from emosym.records import ImageRequest, Sample
from memory_bank import Candidate, Provenance, candidate_from
from train.distributed import ranks
from train.phases.base import PhaseContext

TOGETHER = 8
"""Images drawn in one batch: the same on any number of ranks, so that their bits are too."""


class Remember:
    """One class-balanced pool a step; it moves no weights.

    The judge, which is also the bank's embedder, is the frozen reference: a model does not mark
    its own work. When the bank's breaker has stopped admission, nothing is drawn any more.
    """

    name = "remember"
    owns = ()
    dropout = False

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.config = context.config.remember
        self.batch_size = self.config.per_emotion * len(context.model.config.emotions)
        self.generated = self._generated()
        self._told = False

    @torch.no_grad()
    def run(self, step: int, turn: int) -> dict[str, float]:
        """Offer a pool to the bank; return what became of it."""
        memory = self.context.memory
        why = memory.stopped()
        if why is not None:
            self._tell(why)
            nothing = {"admitted": 0, "refused": 0, "evicted": 0}
            return {**nothing, **memory.sizes(), "stopped": 1}
        pool = self._requested(step) if self.generated is None else self._portion(turn)
        seeds = Draws(self.context.config.seed, "remember", step).permutation(2**20)[: len(pool)]
        numbered = list(enumerate(zip(pool, seeds.tolist(), strict=True)))
        batches = [numbered[i : i + TOGETHER] for i in range(0, len(numbered), TOGETHER)]
        offers = []
        for batch in batches[ranks.rank() :: ranks.size()]:
            numbers, wanted = zip(*batch, strict=True)
            offers += zip(numbers, self._candidates(*zip(*wanted, strict=True), step), strict=True)
        return {**memory.offer(offers, step), "stopped": 0}

    def _candidates(
        self, samples: Sequence[Sample], seeds: Sequence[int], step: int
    ) -> list[Candidate]:
        """Draw what samples ask for, or open what was drawn for them, and judge it."""
        context = self.context
        if self.generated is None:
            images, seeds = self._draw(samples, seeds), list(seeds)
        else:
            images, seeds = (
                [context.training_set.image(s.image) for s in samples],
                [None] * len(samples),
            )
        judged, vectors = context.reference.recognise(images)
        origins = (
            Provenance(
                source="synthetic",
                emotion=sample.emotion,
                valence=sample.valence,
                arousal=sample.arousal,
                prompt=sample.prompt or "",
                seed=seed,
                model_hash=context.memory.model_hash,
                step=step,
            )
            for sample, seed in zip(samples, seeds, strict=True)
        )
        return [
            candidate_from(origin, image, image, judgement, vector)
            for origin, image, judgement, vector in zip(
                origins, images, judged, vectors, strict=True
            )
        ]

    def _draw(self, samples: Sequence[Sample], seeds: Sequence[int]) -> list[Image.Image]:
        requests = [
            ImageRequest(
                prompt=s.prompt or "", emotion=s.emotion, valence=s.valence, arousal=s.arousal
            )
            for s in samples
        ]
        shape = self.context.model.autoencoder.latent_shape
        noise = torch.stack([Draws("image", seed).normal(*shape) for seed in seeds])
        return EmoSymPipeline(self.context.model).draw(requests, noise)

    def _requested(self, step: int) -> list[Sample]:
        """Pick training requests, the same number of each emotion (or any, if unlabelled)."""
        samples = self.context.training_set.material("samples")
        order = Draws(self.context.config.seed, "pool", step).permutation(len(samples)).tolist()
        groups = _by_emotion([samples[place] for place in order])
        share = self.batch_size // len(groups)
        return [sample for group in groups for sample in group[:share]]

    def _portion(self, turn: int) -> list[Sample]:
        """Return the next generated images of each emotion; none when all have been offered."""
        first, share = turn * self.config.per_emotion, self.config.per_emotion
        return [sample for group in self.generated for sample in group[first : first + share]]

    def _generated(self) -> list[list[Sample]] | None:
        """Open the images that are to be offered, in an order that follows from the seed."""
        if self.config.generated is None:
            return None
        samples = open_dataset(Path(self.config.generated))
        if any(sample.emotion is None for sample in samples):
            raise UserError(
                f"remember.generated: {self.config.generated} has images without an emotion",
                expected="what was asked for, with each image",
            )
        order = Draws(self.context.config.seed, "generated").permutation(len(samples)).tolist()
        return _by_emotion([samples[place] for place in order])

    def _tell(self, why: str) -> None:
        if ranks.is_first() and not self._told:
            print(f"the memory bank takes nothing more: {why}", file=sys.stderr, flush=True)
        self._told = True


def _by_emotion(samples: Sequence[Sample]) -> list[list[Sample]]:
    groups: dict[str | None, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.emotion, []).append(sample)
    return [groups[name] for name in sorted(groups, key=str)]
