"""Each gate at its bound, by hand; then whole pools."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emosym.config import load_config
from emosym.errors import UserError
from memory_bank import (
    GATES,
    REPLACEMENTS,
    AdmissionPolicy,
    Candidate,
    Decision,
    MemoryBank,
    contrast,
)
from memory_bank import admit as ruling
from memory_bank.admission.gates import Context
from tests.memory_bank.make import MODEL, candidate

GOOD: dict[str, object] = {
    "source": "synthetic",
    "emotion": "awe",
    "predicted": "awe",
    "valence": 1.0,
    "arousal": 0.5,
    "predicted_valence": 1.5,
    "predicted_arousal": 0.0,
    "confidence": 0.8,
    "contrast": 0.2,
    "fingerprint": 0,
    "step": 10,
}
CONTEXT = Context(
    policy=AdmissionPolicy(delay=5, quality_quantile=0.2),
    step=15,
    confidence_floor=0.8,
    quality_floor=0.2,
    nearest_cosine=0.95,
    max_cosine=0.95,
    real_cosine=0.5,
    min_cosine=0.5,
    nearest_bits=7,
    agreement=0.6,
    full=False,
)


@pytest.fixture
def bank(tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", 3, MODEL) as bank:
        yield bank


def made(number: int = 1, embedding: tuple[float, ...] = (1, 0, 0), **changes) -> Candidate:
    own = {"embedding": np.array(embedding), "fingerprint": far_apart(number)}
    return candidate(number, **(GOOD | own | changes))


def far_apart(number: int) -> int:
    """Return a fingerprint whose distance to that of any other number is about 32 bits."""
    return int(np.random.default_rng([3, number]).integers(-(2**63), 2**63 - 1))


def admit(pool: list[Candidate], bank: MemoryBank, policy: AdmissionPolicy) -> list[Decision]:
    found = ruling(pool, bank, policy)
    assert found.evict == []
    return found.decisions


@pytest.mark.parametrize("gate", GATES)
def test_a_candidate_at_every_bound_passes(gate: str):
    assert GATES[gate](made(), CONTEXT) is None


@pytest.mark.parametrize(
    ("gate", "changes", "context", "reason"),
    [
        ("label", {"predicted": "fear"}, {}, "requested awe, judged fear"),
        ("label", {"predicted": None}, {}, "no predicted emotion"),
        (
            "confidence",
            {"confidence": 0.799},
            {},
            "confidence 0.799 below 0.800, the top 20% of its class",
        ),
        ("confidence", {"confidence": None}, {}, "no confidence"),
        (
            "confidence",
            {"confidence": math.nan},
            {},
            "confidence nan below 0.800, the top 20% of its class",
        ),
        (
            "affect",
            {"predicted_valence": 1.51},  # 0.51 + 0.5
            {},
            "valence-arousal error 1.01 above 1.00",
        ),
        (
            "affect",
            {"predicted_arousal": math.nan},
            {},
            "valence-arousal error nan above 1.00",
        ),
        ("affect", {"predicted_arousal": None}, {}, "no judged valence and arousal"),
        ("quality", {"contrast": 0.019}, {}, "contrast 0.019 below 0.020"),
        ("quality", {"contrast": math.inf}, {}, "pixels are not finite"),
        ("quality", {"contrast": None}, {}, "contrast not measured"),
        (
            "quality",
            {"contrast": 0.199},
            {},
            "contrast 0.199 below 0.200, the lowest 20% of the real images",
        ),
        (
            "quality",
            {},
            {"policy": AdmissionPolicy(quality_score="clip", quality_quantile=0.2)},
            "no score clip",
        ),
        (
            "quality",
            {"scores": {"clip": 0.1}},
            {"policy": AdmissionPolicy(quality_score="clip", quality_quantile=0.2)},
            "clip 0.100 below 0.200, the lowest 20% of the real images",
        ),
        (
            "novelty",
            {},
            {"nearest_cosine": 0.951},
            "cosine 0.951 to a known image above 0.950",
        ),
        (
            "novelty",
            {},
            {"real_cosine": 0.499},
            "cosine 0.499 to the nearest real image below 0.500",
        ),
        (
            "copy",
            {},
            {"nearest_bits": 6},
            "fingerprint differs in 6 bits from that of a known image, copies differ in at most 6",
        ),
        ("copy", {"fingerprint": None}, {}, "no fingerprint"),
        (
            "agreement",
            {},
            {"agreement": 0.5},
            "50% of the 10 nearest real images are awe, below 60%",
        ),
        ("delay", {}, {"step": 14}, "generated at step 10, may be admitted from step 15 on"),
        (
            "capacity",
            {},
            {"full": True},
            "class awe is full, and replacement reservoir evicts no image for it",
        ),
    ],
)
def test_a_gate_refuses_by_hand(gate: str, changes: dict, context: dict, reason: str):
    assert GATES[gate](made(**changes), replace(CONTEXT, **context)) == reason


def test_gates_ask_only_what_was_wanted():
    free = made(emotion=None, valence=None, arousal=None, predicted_valence=None)
    assert GATES["label"](free, CONTEXT) is None
    assert GATES["affect"](free, CONTEXT) is None
    real = made(source="real")
    assert GATES["capacity"](real, replace(CONTEXT, full=True)) is None
    assert GATES["delay"](made(step=None), CONTEXT) is None
    assert GATES["delay"](made(), replace(CONTEXT, step=None)) is None


def test_gates_do_not_ask_what_the_bank_cannot_tell():
    blind = replace(CONTEXT, max_cosine=None, min_cosine=None, agreement=None, quality_floor=None)
    away = replace(blind, nearest_cosine=1.0, real_cosine=-1.0)
    for gate in ("novelty", "agreement", "quality"):
        assert GATES[gate](made(), away) is None


def test_contrast_by_hand():
    picture = Image.new("L", (2, 2))
    assert contrast(picture) == 0
    picture.putpixel((0, 0), 255)
    picture.putpixel((1, 1), 255)
    assert contrast(picture) == 0.5


def spread(count: int, of: int) -> list[tuple[float, ...]]:
    """Directions 20 degrees apart: cosine 0.940 between neighbours, below the window's edge."""
    angles = np.deg2rad(20 * np.arange(count))
    return [(np.cos(a), np.sin(a), float(of)) for a in angles]


def test_the_top_fifth_of_each_class_passes(bank: MemoryBank):
    # A class where the judge is sure and a hard one where it is not: both keep their share.
    scores = {"awe": [0.99, 0.98, 0.97, 0.96, 0.95], "fear": [0.30, 0.31, 0.35, 0.34, 0.33, 0.32]}
    pool = [
        made(10 * at + place, where, emotion=name, predicted=name, confidence=score)
        for at, (name, values) in enumerate(scores.items())
        for place, (score, where) in enumerate(zip(values, spread(6, 9 * at), strict=False))
    ]
    wide = AdmissionPolicy(max_cosine=1.0)
    admitted = [one.candidate.confidence for one in admit(pool, bank, wide) if one.admitted]
    assert admitted == [0.99, 0.35, 0.34]  # ceil(5 / 5) = 1 and ceil(6 / 5) = 2


def test_ties_at_the_floor_pass(bank: MemoryBank):
    pool = [made(n, where, confidence=0.5) for n, where in enumerate(spread(4, 0))]
    assert [one.admitted for one in admit(pool, bank, AdmissionPolicy())] == [True] * 4


def test_near_copies_yield_to_the_better_one_and_to_the_bank(bank: MemoryBank):
    bank.add([made(50, (0, 0, 1))])
    policy = AdmissionPolicy(top_quantile=1.0, max_cosine=0.95)
    pool = [
        made(1, (1, 0, 0), confidence=0.6),
        made(2, (1, 0.1, 0), confidence=0.9),  # cosine to the first: 1 / sqrt(1.01) = 0.995
        made(3, (0, 1, 0), confidence=0.5),
        made(4, (0, 0.2, 2), confidence=0.7),  # cosine to the bank: the same
    ]
    decisions = admit(pool, bank, policy)
    assert [one.admitted for one in decisions] == [False, True, True, False]
    assert decisions[0].reason == "cosine 0.995 to a known image above 0.950"
    assert decisions[3].reason == "cosine 0.995 to a known image above 0.950"
    assert decisions[1].reason == (
        "passed label, confidence, affect, quality, novelty, copy, agreement, delay, capacity;"
        " not checked in full: novelty (0 real images, 20 needed),"
        " agreement (0 labelled real images, 10 needed)"
    )
    assert [one.candidate for one in decisions] == pool


def test_capacity_counts_the_bank_and_the_pool_but_no_real_image(bank: MemoryBank):
    bank.add([made(50, (0, 0, 1)), made(51, (0, 0, -1), source="real")])
    policy = AdmissionPolicy(top_quantile=1.0, capacity_per_class=3, replacement="none")
    pool = [made(n, where, confidence=0.9 - n / 100) for n, where in enumerate(spread(4, 0))]
    pool.append(made(9, (0, -1, 0), emotion="fear", predicted="fear"))
    decisions = admit(pool, bank, policy)
    assert [one.admitted for one in decisions] == [True, True, False, False, True]
    assert decisions[2].reason == "class awe is full, and replacement none evicts no image for it"


def test_every_refusal_is_named(bank: MemoryBank):
    pool = [
        made(1, confidence=0.9),
        made(2, (0, 1, 0), confidence=0.1, predicted="fear", contrast=0.0, predicted_valence=3.0),
        made(3, (math.nan, 0, 0), confidence=0.95, emotion="fear", predicted="fear"),
        made(4, (0, 0, 0), confidence=math.nan),
    ]
    decisions = admit(pool, bank, AdmissionPolicy())
    assert decisions[1].reason == (
        "requested awe, judged fear; confidence 0.100 below 0.900, the top 20% of its class; "
        "valence-arousal error 2.50 above 1.00; contrast 0.000 below 0.020"
    )
    assert decisions[2].reason == decisions[3].reason == "embedding is not finite or zero"
    recorded = bank.record(decisions)
    assert (len(recorded.admitted), len(recorded.refused)) == (1, 3)
    assert [one.reason for one in bank.refusals()] == [one.reason for one in decisions[1:]]
    assert bank.refusals()[2].confidence is None  # SQLite has no NaN
    assert bank.stats()["refused"] == 3


def test_gates_can_be_chosen_by_name(bank: MemoryBank):
    pool = [made(1, predicted="fear"), made(2, predicted="fear")]
    decisions = admit(pool, bank, AdmissionPolicy(gates=[]))
    assert [one.reason for one in decisions] == ["passed no gates"] * 2
    with pytest.raises(UserError, match=r"unknown gate 'labels'.*did you mean 'label'\?"):
        AdmissionPolicy(gates=["labels"])
    with pytest.raises(UserError, match=r"unknown replacement 'rando'.*did you mean 'random'\?"):
        AdmissionPolicy(replacement="rando")
    with pytest.raises(UserError, match="the gate copy twice"):
        AdmissionPolicy(gates=["copy", "label", "copy"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_quantile", 0.0),
        ("top_quantile", 1.1),
        ("max_affect_error", -1.0),
        ("max_affect_error", math.nan),
        ("min_contrast", 0.6),
        ("max_cosine", 1.5),
        ("min_cosine", -1.5),
        ("quality_quantile", 1.1),
        ("near_copy_quantile", -0.1),
        ("outlier_quantile", 0.96),
        ("copy_bits", 65),
        ("neighbours", 0),
        ("min_agreement", 1.1),
        ("capacity_per_class", -1),
        ("delay", -1),
    ],
)
def test_a_policy_out_of_range_is_refused(name: str, value: float):
    with pytest.raises(UserError, match=f"admission policy: {name}; got {value}; expected"):
        AdmissionPolicy(**{name: value})


def test_a_policy_is_read_from_a_configuration():
    values = ("gates=[copy, label]", "max_cosine=0.9", "replacement=none", "delay=3")
    policy = load_config(AdmissionPolicy, None, values)
    assert policy == AdmissionPolicy(
        gates=["copy", "label"], max_cosine=0.9, replacement="none", delay=3
    )
    assert load_config(AdmissionPolicy, None) == AdmissionPolicy()
    with pytest.raises(UserError, match="admission policy: min_agreement; got 2"):
        load_config(AdmissionPolicy, None, ["min_agreement=2"])


def test_every_replacement_can_be_chosen():
    """The type of the field and the registry name the same policies."""
    for name in REPLACEMENTS:
        assert load_config(AdmissionPolicy, None, [f"replacement={name}"]).replacement == name
    with pytest.raises(UserError, match="replacement"):
        load_config(AdmissionPolicy, None, ["replacement=newest"])


def test_a_vector_of_another_length_is_an_error_not_a_refusal(bank: MemoryBank):
    with pytest.raises(UserError, match=r"wrong shape; got \[2\]; expected dimension 3"):
        admit([made(1, (1, 0))], bank, AdmissionPolicy())


def test_an_empty_pool(bank: MemoryBank):
    assert admit([], bank, AdmissionPolicy()) == []
