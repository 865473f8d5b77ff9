"""The Online Emotional Memory Bank; the only home of faiss.

Ranks keep in step through `memory_bank.sync`, which is imported by itself because it needs torch.
"""

from memory_bank.admission.admission import AdmissionResult, admit
from memory_bank.admission.diversity import Breaker, diversity, vendi
from memory_bank.admission.gates import GATES
from memory_bank.admission.policy import AdmissionPolicy
from memory_bank.admission.replacement import REPLACEMENTS
from memory_bank.admission.replay import DEFAULT_SHARE, MAX_SHARE, replay, synthetic_count
from memory_bank.bank import AffectHit, Hit, MemoryBank, Recorded, TextHit
from memory_bank.store.compaction import Forgotten
from memory_bank.store.entry import Candidate, Decision, Entry, Refusal
from memory_bank.store.filter import Filter
from memory_bank.store.history import Diff, Event
from memory_bank.store.images import contrast, fingerprint

__all__ = [
    "DEFAULT_SHARE",
    "GATES",
    "MAX_SHARE",
    "REPLACEMENTS",
    "AdmissionPolicy",
    "AdmissionResult",
    "AffectHit",
    "Breaker",
    "Candidate",
    "Decision",
    "Diff",
    "Entry",
    "Event",
    "Filter",
    "Forgotten",
    "Hit",
    "MemoryBank",
    "Recorded",
    "Refusal",
    "TextHit",
    "admit",
    "contrast",
    "diversity",
    "fingerprint",
    "replay",
    "synthetic_count",
    "vendi",
]
