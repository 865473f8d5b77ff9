"""Remember: draw, judge, admit to the memory bank. Ref: EmoSym, memory bank."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from data_tools.dataset import open_dataset
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.randomness import Draws
from emosym.records import ImageRequest, Sample
from memory_bank import Candidate, Provenance, candidate_from
from train.data.bank_session import BankConfig
from train.distributed import ranks
from train.phases.base import Phase, PhaseContext, Text
from train.ranges import check_positive

DRAW_BATCH = 8
"""Images generated in one batch, on any number of ranks: another batch size could change their
bits."""


@dataclass(kw_only=True, slots=True)
class RememberConfig(BankConfig):
    """Generate, judge, admit. Ref: EmoSym, memory bank; thresholds: docs/memory.md."""

    per_emotion: int = 4
    """Images generated for each emotion."""
    generated: str | None = None
    """Manifest or folder of images that were generated before the run, labelled with what was
    requested. A step offers the next ones instead of generating. Null generates with the model."""

    def __post_init__(self) -> None:
        BankConfig.__post_init__(self)
        check_positive(per_emotion=self.per_emotion)
        if self.generated is not None and self.admission.delay:
            raise UserError(
                "admission.delay has no effect on images that no step drew",
                got="remember.generated and a delay",
                fix="set one of them to 0 or null",
            )


class Remember(Phase[RememberConfig, Sample]):
    """One class-balanced pool of candidates a step; no weights are trained.

    The frozen reference judges and embeds the images, so that the model does not judge its own
    work. Once the bank's breaker has stopped admission, nothing more is drawn.
    """

    name = "remember"
    Config = RememberConfig
    needs = frozenset({"bank"})
    fixed = ("real",)
    dropout = False

    def __init__(self, context: PhaseContext) -> None:
        super().__init__(context)
        self.generated = self._generated()
        self._stop_printed = False

    @classmethod
    def resolve_paths(cls, config: RememberConfig) -> None:
        """Make the path of generated images absolute."""
        if config.generated is not None:
            config.generated = str(Path(config.generated).expanduser().resolve())

    @classmethod
    def texts(cls, config: RememberConfig, item: Sample) -> Iterable[Text]:
        """Yield the prompt; images that were generated before the run need none."""
        if item.prompt is not None and config.generated is None:
            yield Text(item.prompt, decoder=True)

    @property
    def batch_size(self) -> int:
        """Return the images that a step draws, on all ranks together."""
        return self.config.per_emotion * len(self.context.model.config.emotions)

    @torch.no_grad()
    def act(self, step: int, turn: int) -> dict[str, float]:
        """Offer a pool to the bank; return how many were admitted, refused and evicted."""
        memory = self.context.memory
        reason = memory.stopped()
        if reason is not None:
            self._print_stop(reason)
            nothing = {"admitted": 0, "refused": 0, "evicted": 0}
            return {**nothing, **memory.sizes(), "stopped": 1}
        pool = self._requested(step) if self.generated is None else self._portion(turn)
        seeds = Draws(self.context.config.seed, "remember", step).permutation(2**20)[: len(pool)]
        numbered = list(enumerate(zip(pool, seeds.tolist(), strict=True)))
        batches = [numbered[i : i + DRAW_BATCH] for i in range(0, len(numbered), DRAW_BATCH)]
        offers: list[tuple[int, Candidate]] = []
        for batch in batches[ranks.rank() :: ranks.size()]:
            samples = [sample for _, (sample, _) in batch]
            candidates = self._candidates(samples, [seed for _, (_, seed) in batch], step)
            offers += zip((number for number, _ in batch), candidates, strict=True)
        return {**memory.offer(offers, step), "stopped": 0}

    def _candidates(
        self, samples: Sequence[Sample], seeds: Sequence[int], step: int
    ) -> list[Candidate]:
        """Generate an image for each sample, or open the given one, and judge it."""
        context = self.context
        drawn_with: Sequence[int | None] = seeds
        if self.generated is None:
            images = self._draw(samples, seeds)
        else:
            images = [context.training_set.image(sample.image) for sample in samples]
            drawn_with = [None] * len(samples)
        judgements, embeddings = context.reference.recognise(images)
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
            for sample, seed in zip(samples, drawn_with, strict=True)
        )
        return [
            candidate_from(origin, image, image, judged, embedding)
            for origin, image, judged, embedding in zip(
                origins, images, judgements, embeddings, strict=True
            )
        ]

    def _draw(self, samples: Sequence[Sample], seeds: Sequence[int]) -> list[Image.Image]:
        requests = [
            ImageRequest(prompt=s.prompt or "", emotion=s.emotion, affect=s.affect) for s in samples
        ]
        shape = self.context.model.autoencoder.latent_shape
        noise = torch.stack([Draws("image", seed).normal(*shape) for seed in seeds])
        return EmoSymPipeline(self.context.model).draw(requests, noise)

    def _requested(self, step: int) -> list[Sample]:
        """Choose training samples to generate for, the same number of each emotion if labelled."""
        samples = self.context.training_set.all("samples")
        order = Draws(self.context.config.seed, "pool", step).permutation(len(samples)).tolist()
        groups = _by_emotion([samples[place] for place in order])
        share = self.batch_size // len(groups)
        return [sample for group in groups for sample in group[:share]]

    def _portion(self, turn: int) -> list[Sample]:
        """Return the next generated images of each emotion; none when all have been offered."""
        first, share = turn * self.config.per_emotion, self.config.per_emotion
        groups = self.generated or []
        return [sample for group in groups for sample in group[first : first + share]]

    def _generated(self) -> list[list[Sample]] | None:
        """Open the generated images, by emotion, in an order that follows from the seed."""
        if self.config.generated is None:
            return None
        samples = open_dataset(Path(self.config.generated))
        if any(sample.emotion is None for sample in samples):
            raise UserError(
                f"remember.generated: {self.config.generated} has images without an emotion",
                expected="the requested emotion of each image",
            )
        order = Draws(self.context.config.seed, "generated").permutation(len(samples)).tolist()
        return _by_emotion([samples[place] for place in order])

    def _print_stop(self, reason: str) -> None:
        if ranks.is_first() and not self._stop_printed:
            print(f"the memory bank admits nothing more: {reason}", file=sys.stderr, flush=True)
        self._stop_printed = True


def _by_emotion(samples: Sequence[Sample]) -> list[list[Sample]]:
    groups: dict[str | None, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.emotion, []).append(sample)
    return [groups[name] for name in sorted(groups, key=str)]
