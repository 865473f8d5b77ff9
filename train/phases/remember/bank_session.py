"""The memory bank in a run: who judges, what is offered, what is replayed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

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
from train.config import RememberConfig
from train.data.dataset import TrainingSet
from train.distributed import ranks
from train.phases.remember.queue import CandidateQueue
from train.reference import ReferenceModel

EMPTY = {"size": 0, "real": 0, "synthetic": 0, "admitted": 0, "refused": 0}


class BankSession:
    """The run's bank, there after `restore`; absent (and empty) in a run without `remember`."""

    def __init__(
        self,
        path: Path | None,
        config: RememberConfig,
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
        self.policy = AdmissionPolicy(
            gates=list(config.gates),
            top_quantile=config.top_share,
            max_affect_error=config.affect_bound,
            quality_quantile=config.quality,
            near_copy_quantile=config.novelty,
            outlier_quantile=config.manifold,
            min_agreement=config.agreement,
            capacity_per_class=config.capacity,
            replacement=config.replacement,
            delay=config.delay,
            max_diversity_loss=config.diversity_loss,
            min_admission_rate=config.admission_low,
            max_admission_rate=config.admission_high,
        )
        self._replayable: tuple[int, list] = (-1, [])

    def fill(self, training_set: TrainingSet) -> None:
        """Open an empty bank with real images, the same number of each emotion."""
        if self.bank is None or len(self.bank):
            return
        by_emotion: dict[str | None, list[Sample]] = {}
        for sample in training_set.take("samples", "bank", 0, len(training_set.samples)):
            kept = by_emotion.setdefault(sample.emotion, [])
            if len(kept) < self.config.real:
                kept.append(sample)
        chosen = [sample for name in sorted(by_emotion, key=str) for sample in by_emotion[name]]

        def write(bank: MemoryBank) -> int:
            seen, vectors = self.reference.recognise(
                training_set.image(sample.image) for sample in chosen
            )
            pictures = (training_set.image(sample.image) for sample in chosen)
            bank.add(
                map(self._real, chosen, pictures, seen, vectors),
                reason="real image that opened the bank",
            )
            return bank.version

        write_on_rank_zero(self.bank, write)

    def stopped(self) -> str | None:
        """Return why the bank takes nothing more, if so; every rank finds the same."""
        if self.bank is None:
            raise RuntimeError("phase remember runs without a bank")
        return stop_reason(self.bank, self.policy)

    def offer(self, candidates: list[tuple[int, Candidate]], step: int) -> dict[str, float]:
        """Put what is due of a numbered pool, scattered over the ranks, before the gates."""
        self.waiting.candidates += [
            offer for _, offer in sorted(gather(candidates), key=lambda pair: pair[0])
        ]
        due = self.waiting.due(step, self.policy.delay)

        def write(bank: MemoryBank) -> tuple[int, int, int]:
            ruling = admit(due, bank, self.policy, step=step)
            taken = bank.record(ruling.decisions, evict=ruling.evict)
            return len(taken.admitted), len(taken.refused), len(ruling.evict)

        admitted, refused, evicted = write_on_rank_zero(self.bank, write)
        return {"admitted": admitted, "refused": refused, "evicted": evicted, **self.sizes()}

    def mix(self, samples: list[Sample], key: tuple[int, ...]) -> list[Sample]:
        """Replace the last samples of a global batch by remembered images, up to the cap.

        Under the published replacement the bank is the training set: all are replaced.
        """
        if self.bank is None:
            return samples
        published = self.config.replacement == PUBLISHED
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
        """Put real images of the bank before a batch that show what others of it show, and evoke
        another emotion: as many as there are, up to a share of the batch, whose last ones go."""
        if self.bank is None or not share:
            return samples
        most = int(len(samples) * share)
        kept = samples[: len(samples) - most]
        found = hard_negatives(
            self.bank.entries(source="real"), [(one.prompt, one.emotion) for one in kept]
        )
        harder = list({one.id: one for one in found if one is not None}.values())[:most]
        return list(map(self._sample, harder)) + samples[: len(samples) - len(harder)]

    def stats(self) -> dict[str, int | str]:
        """Return the bank in numbers, and why admission stopped where it did, for reports."""
        if self.bank is None:
            return dict(EMPTY)
        stats = self.bank.stats()
        found = {name: stats[name] for name in EMPTY}
        why = self.stopped()
        return found if why is None else found | {"stopped": why}

    @property
    def version(self) -> int:
        """The bank's version; 0 without a bank."""
        return 0 if self.bank is None else self.bank.version

    def digest(self) -> str:
        """Return what tells this bank at its version from any other."""
        return "" if self.bank is None else _digest(self.bank)

    def restore(self, version: int, digest: str) -> None:
        """Open the bank as it was at a checkpoint; at version 0 it is made, or emptied.

        Raises:
            UserError: the bank is gone, older, or another; nothing in it was changed.
        """
        if self.path is None:
            return
        if version:
            with ranks.raise_once():
                self._check(self.path, version, digest)
        ranks.barrier()  # all have looked before one writes
        self.bank = self._open(self.path)
        if self.bank.version != version:
            write_on_rank_zero(self.bank, lambda bank: bank.rollback(version))

    def close(self) -> None:
        """Release the bank."""
        if self.bank is not None:
            self.bank.close()

    def _sample(self, entry: Entry) -> Sample:
        """Return what an entry teaches."""
        return Sample(
            id=f"bank-{entry.id}",
            image=self.bank.image_path(entry),
            split="train",
            emotion=entry.emotion,
            valence=entry.valence,
            arousal=entry.arousal,
            prompt=entry.prompt,
            source="bank",
        )

    def _check(self, path: Path, version: int, digest: str) -> None:
        expected = f"the run's own bank, at version {version} or later"
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
        if ranks.is_first():
            bank = (
                MemoryBank.open(path, "a", model_hash=self.model_hash)
                if path.exists()
                else MemoryBank.create(path, width, self.model_hash)
            )
        ranks.barrier()
        if not ranks.is_first():
            bank = MemoryBank.open(path, "r", model_hash=self.model_hash)
        return bank

    def sizes(self) -> dict[str, float]:
        """Return how many images the bank holds, for the log."""
        stats = self.bank.stats()
        return {"size": stats["size"], "synthetic": stats["synthetic"]}

    def _real(
        self, sample: Sample, picture: Image.Image, judged: Understanding, vector: np.ndarray
    ) -> Candidate:
        origin = Provenance(
            source="real",
            emotion=sample.emotion,
            valence=sample.valence,
            arousal=sample.arousal,
            prompt=sample.prompt,
            model_hash=self.model_hash,
        )
        return candidate_from(origin, sample.image, picture, judged, vector)


def _digest(bank: MemoryBank) -> str:
    total = hashlib.sha256()
    for entry in bank.entries():
        total.update(f"{entry.id} {entry.sha256}\n".encode())
    return total.hexdigest()
