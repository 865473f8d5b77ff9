"""The Online Emotional Memory Bank; the only home of faiss.

Ranks keep in step through `memory_bank.sync`, which is imported by itself because it needs torch.
"""

from memory_bank.admission import GATES, AdmissionPolicy, admit
from memory_bank.bank import AffectHit, Hit, MemoryBank, Recorded
from memory_bank.entry import Candidate, Decision, Entry, Refusal
from memory_bank.images import contrast, fingerprint
from memory_bank.replay import DEFAULT_SHARE, MAX_SHARE, replay, synthetic_count

__all__ = [
    "DEFAULT_SHARE",
    "GATES",
    "MAX_SHARE",
    "AdmissionPolicy",
    "AffectHit",
    "Candidate",
    "Decision",
    "Entry",
    "Hit",
    "MemoryBank",
    "Recorded",
    "Refusal",
    "admit",
    "contrast",
    "fingerprint",
    "replay",
    "synthetic_count",
]
