"""The Online Emotional Memory Bank; the only home of faiss.

Ranks keep in step through `memory_bank.sync`, which is imported by itself because it needs torch.
"""

from memory_bank.admission import Ruling, admit
from memory_bank.bank import AffectHit, Hit, MemoryBank, Recorded, TextHit
from memory_bank.compaction import Forgotten
from memory_bank.diversity import Breaker, diversity, vendi
from memory_bank.entry import Candidate, Decision, Entry, Refusal
from memory_bank.filter import Filter
from memory_bank.gates import GATES
from memory_bank.history import Diff, Event
from memory_bank.images import contrast, fingerprint
from memory_bank.policy import AdmissionPolicy
from memory_bank.replacement import REPLACEMENTS
from memory_bank.replay import DEFAULT_SHARE, MAX_SHARE, replay, synthetic_count

__all__ = [
    "DEFAULT_SHARE",
    "GATES",
    "MAX_SHARE",
    "REPLACEMENTS",
    "AdmissionPolicy",
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
    "Ruling",
    "TextHit",
    "admit",
    "contrast",
    "diversity",
    "fingerprint",
    "replay",
    "synthetic_count",
    "vendi",
]
