"""The memory bank of a run: opened with real images, offered candidates, replayed into batches."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
from PIL import Image

from emosym.console.progress import progress
from emosym.errors import UserError
from emosym.models.model import EmoSym
from emosym.records import Sample, Understanding
from memory_bank import (
    AdmissionPolicy,
    Candidate,
    Entry,
    MemoryBank,
    Provenance,
    admit,
    candidate_from,
    stop_reason,
    synthetic_count,
)
from memory_bank.admission.hard_negatives import hard_negatives
from memory_bank.admission.replacement import PUBLISHED
from memory_bank.admission.replay import replay
from memory_bank.distributed import gather, write_on_rank_zero
from train.data.candidate_queue import CandidateQueue
from train.data.dataset import TrainingSet
from train.distributed import ranks
from train.ranges import check_range
from train.reference import ReferenceModel

Result = TypeVar("Result")
EMPTY = {"size": 0, "real": 0, "synthetic": 0, "admitted": 0, "refused": 0}


@dataclass(kw_only=True, slots=True)
class BankConfig:
    """Options of a phase that needs the memory bank. Ref: EmoSym, memory bank (docs/papers.md)."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "gates": "admission.gates",
        "top_share": "admission.top_quantile",
        "affect_bound": "admission.max_affect_error",
        "quality": "admission.quality_quantile",
        "novelty": "admission.near_copy_quantile",
        "manifold": "admission.outlier_quantile",
        "agreement": "admission.min_agreement",
        "capacity": "admission.capacity_per_class",
        "replacement": "admission.replacement",
        "delay": "admission.delay",
        "diversity_loss": "admission.max_diversity_loss",
        "admission_low": "admission.min_admission_rate",
        "admission_high": "admission.max_admission_rate",
    }

    real: int = 32
    """Real training images of each emotion that the bank holds at the start."""
    synthetic_share: float = 0.25
    """Largest share of bank images in an understanding batch, at most 0.5. With the published
    `admission.replacement` (highest_confidence) batches are drawn from the bank alone."""
    admission: AdmissionPolicy = field(default_factory=AdmissionPolicy)
    """Which images are admitted and evicted, and when admission stops."""

    def __post_init__(self) -> None:
        check_range(0.5, synthetic_share=self.synthetic_share)
        check_range(math.inf, real=self.real)


class BankSession:
    """The memory bank of a run; `restore` opens it. With `path=None` the run has no bank."""

    def __init__(
        self,
        path: Path | None,
        config: BankConfig,
        model: EmoSym,
        reference: ReferenceModel,
        model_hash: str,
    ) -> None:
        self.path = path
        self.config = config
        self.model = model
        self.reference = reference
        self.model_hash = model_hash
        self.bank: MemoryBank | None = None
        self.waiting = CandidateQueue()
        self.policy = config.admission
        self._replayable: tuple[int, list[Entry]] = (-1, [])

    def fill(self, training_set: TrainingSet) -> None:
        """Add real images to an empty bank, the same number of each emotion."""
        if self.bank is None or len(self.bank):
            return
        by_emotion: dict[str | None, list[Sample]] = {}
        for sample in training_set.take("samples", "bank", 0, len(training_set.samples)):
            kept = by_emotion.setdefault(sample.emotion, [])
            if len(kept) < self.config.real:
                kept.append(sample)
        chosen = [sample for name in sorted(by_emotion, key=str) for sample in by_emotion[name]]

        def write(bank: MemoryBank) -> int:
            with progress("judging the bank's real images", len(chosen)) as show:
                judged, embeddings = self.reference.recognise(
                    _shown((training_set.image(sample.image) for sample in chosen), chosen, show)
                )
            images = (training_set.image(sample.image) for sample in chosen)
            bank.add(
                map(self._real, chosen, images, judged, embeddings),
                reason="real image that opened the bank",
            )
            return bank.version

        self._write(write)

    def stopped(self) -> str | None:
        """Return why the bank admits nothing more, or None; the same on every rank."""
        return stop_reason(self._opened(), self.policy)

    def _write(self, write: Callable[[MemoryBank], Result]) -> Result:
        """Let rank 0 write to the bank; return the result on all ranks. One reports an error."""
        with ranks.raise_once():
            return write_on_rank_zero(self._opened(), write, ranks.patient_group())

    def _opened(self) -> MemoryBank:
        if self.bank is None:
            raise RuntimeError("the run has no memory bank, or it is not open yet")
        return self.bank

    def offer(self, candidates: list[tuple[int, Candidate]], step: int) -> dict[str, float]:
        """Put candidates into the queue, and offer those that are due (`admission.delay`).

        Args:
            candidates: this rank's, each with its number in the pool of all ranks.
            step: of the run.
        """
        pool = sorted(gather(candidates, ranks.patient_group()), key=lambda pair: pair[0])
        self.waiting.candidates += [candidate for _, candidate in pool]
        due = self.waiting.due(step, self.policy.delay)

        def write(bank: MemoryBank) -> tuple[int, int, int]:
            result = admit(due, bank, self.policy, step=step)
            recorded = bank.record(result.decisions, evict=result.evict)
            return len(recorded.admitted), len(recorded.refused), len(result.evict)

        admitted, refused, evicted = self._write(write)
        return {"admitted": admitted, "refused": refused, "evicted": evicted, **self.sizes()}

    def mix(self, samples: list[Sample], key: tuple[int, ...]) -> list[Sample]:
        """Replace the last samples of a global batch by images of the bank, up to the cap.

        Under the published replacement all samples are replaced: the bank is the training set.
        """
        if self.bank is None:
            return samples
        published = self.policy.replacement == PUBLISHED
        if self._replayable[0] != self.bank.version:
            source = None if published else "synthetic"
            self._replayable = (self.bank.version, self.bank.entries(source=source))
        entries = self._replayable[1]
        count = synthetic_count(len(samples), self.config.synthetic_share, len(entries))
        if published and entries:
            count = len(samples)
        picked = replay(entries, count, key)
        return samples[: len(samples) - count] + list(map(self._sample, picked))

    def contrast(self, samples: list[Sample], share: float) -> list[Sample]:
        """Replace the last samples of a batch by hard negatives, which come first.

        Hard negatives are real images of the bank with nearly the prompt of a sample of the batch
        and another emotion. As many as are found are taken, up to a share of the batch.
        """
        if self.bank is None or not share:
            return samples
        most = int(len(samples) * share)
        kept = samples[: len(samples) - most]
        nearest = hard_negatives(
            self.bank.entries(source="real"), [(one.prompt, one.emotion) for one in kept]
        )
        negatives = list({one.id: one for one in nearest if one is not None}.values())[:most]
        return list(map(self._sample, negatives)) + samples[: len(samples) - len(negatives)]

    def stats(self) -> dict[str, int | str]:
        """Return the bank's counts for reports, and the reason if admission has stopped."""
        if self.bank is None:
            return dict(EMPTY)
        stats = self.bank.stats()
        counts: dict[str, int | str] = {name: stats[name] for name in EMPTY}
        reason = self.stopped()
        return counts if reason is None else counts | {"stopped": reason}

    @property
    def version(self) -> int:
        """The bank's version; 0 without a bank."""
        return 0 if self.bank is None else self.bank.version

    def digest(self) -> str:
        """Return a hash of the bank at its version; '' without a bank."""
        return "" if self.bank is None else _digest(self.bank)

    def restore(self, version: int, digest: str) -> None:
        """Open the bank as it was at a checkpoint; at version 0 it is created, or emptied.

        Raises:
            UserError: the bank is gone, older, or another; nothing in it was changed.
        """
        if self.path is None:
            return
        self.check(version, digest)
        ranks.barrier()  # every rank has checked the bank before rank 0 writes to it
        self.bank = self._open(self.path)
        if self.bank.version != version:
            self._write(lambda bank: bank.rollback(version))

    def check(self, version: int, digest: str) -> None:
        """Check that `restore` can open the bank as it was; raises as `restore`."""
        if self.path is not None and version:
            with ranks.raise_once():
                self._check(self.path, version, digest)

    def close(self) -> None:
        """Release the bank."""
        if self.bank is not None:
            self.bank.close()

    def _sample(self, entry: Entry) -> Sample:
        """Return an entry of the bank as a training sample."""
        return Sample(
            id=f"bank-{entry.id}",
            image=self._opened().image_path(entry),
            split="train",
            emotion=entry.emotion,
            valence=entry.valence,
            arousal=entry.arousal,
            prompt=entry.prompt,
            source="bank",
        )

    def _check(self, path: Path, version: int, digest: str) -> None:
        expected = f"the bank of this run, at version {version} or later"
        fix = "put it back, or start a new run"
        if not path.exists():
            raise UserError(f"the memory bank {path} is gone", expected=expected, fix=fix)
        with MemoryBank.open(path, model_hash=self.model_hash) as bank:
            newest = bank.version
            if newest >= version:
                bank.reload(version)
            if newest < version or _digest(bank) != digest:
                raise UserError(
                    f"the memory bank {path} is not the one of the checkpoint",
                    got=f"version {newest}" if newest < version else "other images",
                    expected=expected,
                    fix=fix,
                )

    def _open(self, path: Path) -> MemoryBank:
        width = self.model.understander.backbone.width
        with ranks.raise_together():
            if ranks.is_first():
                bank = (
                    MemoryBank.open(path, "a", model_hash=self.model_hash)
                    if path.exists()
                    else MemoryBank.create(path, width, self.model_hash)
                )
        with ranks.raise_together():
            if not ranks.is_first():
                bank = MemoryBank.open(path, "r", model_hash=self.model_hash)
        return bank

    def sizes(self) -> dict[str, float]:
        """Return how many images the bank holds, for the log."""
        stats = self._opened().stats()
        return {name: stats[name] for name in ("size", "synthetic")}

    def _real(
        self, sample: Sample, image: Image.Image, judged: Understanding, embedding: np.ndarray
    ) -> Candidate:
        """Return a training image as a candidate with the frozen reference's judgement of it."""
        origin = Provenance(
            source="real",
            emotion=sample.emotion,
            valence=sample.valence,
            arousal=sample.arousal,
            prompt=sample.prompt,
            model_hash=self.model_hash,
        )
        return candidate_from(origin, sample.image, image, judged, embedding)


def _shown(
    images: Iterable[Image.Image], chosen: Sequence[Sample], show: Callable[[int, int], None]
) -> Iterator[Image.Image]:
    """Yield images, and show how many of the chosen ones were."""
    for done, image in enumerate(images):
        show(done, len(chosen))
        yield image


def _digest(bank: MemoryBank) -> str:
    total = hashlib.sha256()
    for entry in bank.entries():
        total.update(f"{entry.id} {entry.sha256}\n".encode())
    return total.hexdigest()
