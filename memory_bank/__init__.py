"""The Online Emotional Memory Bank; the only home of faiss.

`memory_bank.distributed` keeps ranks in step; it is not imported here because it needs torch.
"""

from memory_bank.admission.admission import AdmissionResult, admit
from memory_bank.admission.candidates import candidate_from
from memory_bank.admission.diversity import diversity, stop_reason, vendi
from memory_bank.admission.gates import GATES, AdmissionPolicy
from memory_bank.admission.replacement import REPLACEMENTS
from memory_bank.admission.replay import MAX_SHARE, replay, synthetic_count
from memory_bank.bank import MemoryBank, Recorded
from memory_bank.search import AffectHit, Hit, TextHit
from memory_bank.store.compaction import Forgotten
from memory_bank.store.entry import Candidate, Decision, Entry, Provenance, Refusal
from memory_bank.store.filter import Filter
from memory_bank.store.history import Diff, Event
from memory_bank.store.images import contrast, fingerprint

__all__ = [
    "GATES",
    "MAX_SHARE",
    "REPLACEMENTS",
    "AdmissionPolicy",
    "AdmissionResult",
    "AffectHit",
    "Candidate",
    "Decision",
    "Diff",
    "Entry",
    "Event",
    "Filter",
    "Forgotten",
    "Hit",
    "MemoryBank",
    "Provenance",
    "Recorded",
    "Refusal",
    "TextHit",
    "admit",
    "candidate_from",
    "contrast",
    "diversity",
    "fingerprint",
    "replay",
    "stop_reason",
    "synthetic_count",
    "vendi",
]
