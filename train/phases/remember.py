"""Remember: draw, judge, admit to the memory bank. Ref: EmoSym §2.8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from emosym.draws import Draws
from emosym.pipeline import EmoSymPipeline
from emosym.records import ImageRequest, Sample
from memory_bank import Candidate, contrast, fingerprint
from train import ranks
from train.phases.base import Bench

TOGETHER = 8
"""Images drawn in one batch: the same on any number of ranks, so that their bits are too."""


class Remember:
    """One class-balanced pool a step; it moves no weights.

    The judge, which is also the bank's embedder, is the frozen reference: a model does not mark
    its own work.
    """

    name = "remember"
    owns = ()
    dropout = False

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.config = bench.config.remember
        self.batch_size = self.config.per_emotion * len(bench.model.config.emotions)

    @torch.no_grad()
    def run(self, step: int) -> dict[str, float]:
        """Offer a pool to the bank; return what became of it."""
        bench = self.bench
        pool = self._pool(step)
        seeds = Draws(bench.config.seed, "remember", step).permutation(2**20)[: len(pool)].tolist()
        numbered = list(enumerate(zip(pool, seeds, strict=True)))
        batches = [numbered[i : i + TOGETHER] for i in range(0, len(numbered), TOGETHER)]
        offers = []
        for batch in batches[ranks.rank() :: ranks.size()]:
            numbers, wanted = zip(*batch, strict=True)
            offers += zip(numbers, self._draw(*zip(*wanted, strict=True), step), strict=True)
        return bench.memory.offer(offers)

    def _draw(
        self, samples: Sequence[Sample], seeds: Sequence[int], step: int
    ) -> Iterator[Candidate]:
        """Draw what samples ask for, and judge it."""
        bench = self.bench
        requests = [
            ImageRequest(
                prompt=s.prompt or "", emotion=s.emotion, valence=s.valence, arousal=s.arousal
            )
            for s in samples
        ]
        shape = bench.model.autoencoder.latent_shape
        noise = torch.stack([Draws("image", seed).normal(*shape) for seed in seeds])
        drawn = EmoSymPipeline(bench.model).draw(requests, noise)
        seen, vectors = bench.reference.recognise(drawn)
        for seed, request, image, judged, vector in zip(
            seeds, requests, drawn, seen, vectors, strict=True
        ):
            yield Candidate(
                image=image,
                embedding=vector,
                source="synthetic",
                emotion=request.emotion,
                valence=request.valence,
                arousal=request.arousal,
                predicted=judged.emotion,
                predicted_valence=judged.valence,
                predicted_arousal=judged.arousal,
                confidence=judged.probabilities[request.emotion or judged.emotion],
                contrast=contrast(image),
                fingerprint=fingerprint(image),
                prompt=request.prompt,
                seed=seed,
                model_hash=bench.memory.model_hash,
                step=step,
            )

    def _pool(self, step: int) -> list[Sample]:
        """Pick training requests, the same number of each emotion (or any, if unlabelled)."""
        samples = self.bench.corpus.material("samples")
        order = Draws(self.bench.config.seed, "pool", step).permutation(len(samples)).tolist()
        by_emotion: dict[str | None, list[Sample]] = {}
        for place in order:
            by_emotion.setdefault(samples[place].emotion, []).append(samples[place])
        share = self.batch_size // len(by_emotion)
        return [s for name in sorted(by_emotion, key=str) for s in by_emotion[name][:share]]
