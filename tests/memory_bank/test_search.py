"""Searches by embedding, affect, words and filters, against brute force."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from emosym.affect.scales import UNIT, Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from memory_bank import MemoryBank
from memory_bank.store.filter import Filter
from tests.memory_bank.make import (
    DIM,
    MODEL,
    candidate,
    cosine,
    ids,
    vector,
)


@pytest.mark.parametrize(
    "filters",
    [{}, {"emotion": "awe"}, {"source": "real"}, {"emotion": "Fear", "source": "real"}],
)
def test_search_equals_brute_force(bank: MemoryBank, filters: dict):
    for start in range(0, 120, 40):
        bank.add([candidate(number) for number in range(start, start + 40)])
    entries = bank.entries(**filters)
    queries = np.stack([vector(1000 + q) * 10.0**q for q in range(5)])
    scores = cosine(queries, bank.embeddings([entry.id for entry in entries]))
    best = np.argsort(-scores, axis=1)[:, :7]

    hits = bank.search(queries, 7, **filters)

    assert [[hit.entry for hit in row] for row in hits] == [[entries[i] for i in r] for r in best]
    found = np.array([[hit.cosine for hit in row] for row in hits])
    np.testing.assert_allclose(found, np.take_along_axis(scores, best, 1), atol=1e-6)


def test_one_query_and_fewer_entries_than_asked(bank: MemoryBank):
    assert bank.search(vector(0), 3) == [[]]
    bank.add([candidate(0), candidate(1)])
    (hits,) = bank.search(vector(1) * 1e30, 10)
    assert [hit.entry.id for hit in hits] == [2, 1]
    assert hits[0].cosine == pytest.approx(1.0, abs=1e-6)
    assert bank.search(vector(1), 10, emotion="sadness") == [[]]
    assert bank.search(np.empty((0, DIM)), 3) == []


def test_affect_is_searched_on_record(tmp_path: Path):
    """Asked for (1, 1) and (-2, 0), seen as (0, 0.5), and one of which nothing is known."""
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add(
            [
                candidate(
                    1, valence=1.0, arousal=1.0, predicted_valence=0.0, predicted_arousal=0.0
                ),
                candidate(3, valence=-2.0, arousal=0.0),
                candidate(5, predicted_valence=0.0, predicted_arousal=0.5),
                candidate(7),
            ]
        )
        hits = bank.search_affect(Affect(0.5, 0.5, UNIT))  # (0, 0) on [-3, 3]
        assert [(hit.entry.id, hit.distance) for hit in hits] == [(3, 0.5), (1, 2.0), (2, 2.0)]
        assert [hit.entry.id for hit in bank.search_affect(Affect(0, 0), 1)] == [3]
        assert [hit.entry.id for hit in bank.search_affect(Affect(0, 0), emotion=MIKELS8[1])] == [1]
        with pytest.raises(UserError, match="number of neighbours; got 0"):
            bank.search_affect(Affect(0, 0), 0)


def test_filters_against_brute_force(tmp_path: Path):
    draw = np.random.default_rng(3)
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add(
            candidate(
                number,
                confidence=None if number % 5 == 0 else float(draw.integers(0, 5)) / 4,
                step=None if number % 7 == 0 else int(draw.integers(0, 9)),
                scores={
                    name: float(draw.integers(0, 5)) / 4 for name in ("a'b", 'c"d')[: number % 3]
                },
            )
            for number in range(60)
        )
        entries = bank.entries()
        bounds = st.dictionaries(
            st.sampled_from(["confidence", "a'b", 'c"d']), st.sampled_from([0.25, 0.5, 1.0])
        )
        steps = st.none() | st.integers(0, 9)

        @settings(
            max_examples=60,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            bounds,
            bounds,
            steps,
            steps,
            st.sampled_from([None, "real"]),
            st.sampled_from([None, "awe"]),
        )
        def check(low, high, first, last, source, emotion):
            def score(entry, name):
                return entry.confidence if name == "confidence" else entry.scores.get(name)

            def fits(entry) -> bool:
                return (
                    all(
                        score(entry, n) is not None and score(entry, n) >= v for n, v in low.items()
                    )
                    and all(
                        score(entry, n) is not None and score(entry, n) <= v
                        for n, v in high.items()
                    )
                    and (first is None or (entry.step is not None and entry.step >= first))
                    and (last is None or (entry.step is not None and entry.step <= last))
                    and source in (None, entry.source)
                    and emotion in (None, entry.label)
                )

            wanted = {
                "min_scores": low, "max_scores": high, "min_step": first, "max_step": last,
                "source": source, "emotion": emotion,
            }  # fmt: skip
            assert bank.entries(**wanted) == [entry for entry in entries if fits(entry)]
            hits = bank.search(vector(99), 100, **wanted)[0]
            assert sorted(hit.entry.id for hit in hits) == ids(filter(fits, entries))

        check()
        assert not Filter()
        assert Filter(min_step=0)


PROMPTS = {
    1: "a lonely street at night",
    2: "nights of lonely streets, lonely lamps and rain over the old harbour of a town",
    3: "a sunny meadow",
    4: None,
    5: 'STREET — lights; "quoted" AND (brackets) OR *stars* NEAR x:y',
}


def test_words_find_prompts(tmp_path: Path):
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        bank.add(candidate(number, prompt=prompt) for number, prompt in PROMPTS.items())

        def found(words: str, k: int = 10, **wanted: object) -> list[int]:
            hits = bank.search_text(words, k, **wanted)
            assert [hit.match for hit in hits] == sorted((hit.match for hit in hits), reverse=True)
            return [hit.entry.id for hit in hits]

        assert set(found("lonely night street")) == {1, 2, 5}
        assert found("lonely night street")[0] == 1  # the same words, fewer others
        assert found("Meadows") == [3]
        assert found("absent") == []
        assert found("street", source="real") == [2]  # odd numbers are synthetic
        assert len(found("street", 1)) == 1
        for words in (
            '"',
            "sunny*",
            "prompt:sunny",
            "sunny NOT a",
            "NEAR(sunny, 2)",
            "^sunny",
            "{sunny}",
        ):
            assert words == '"' or found(words)[0] == 3
        for words in ("", " ", "*", '"', "();--", "the", "of a The"):
            with pytest.raises(UserError, match="a search without words; got"):
                bank.search_text(words)
        with pytest.raises(UserError, match="number of neighbours; got 0"):
            bank.search_text("x", 0)
        bank.remove([3])
        assert found("meadow") == []
        with MemoryBank.open(bank.path) as reader:
            reader.reload(1)
            assert [hit.entry.id for hit in reader.search_text("meadow")] == [3]
        bank.rollback(1)
        assert found("meadow") == [3]
        bank.remove([1])
        bank.compact()
        assert found("sunny night") in ([3, 2], [2, 3])
        assert bank.verify() == []


def ranked(bank: MemoryBank, words: str, k: int = 10, **wanted: object) -> list[int]:
    return [hit.entry.id for hit in bank.search_text(words, k, **wanted)]


BOATS = {
    3: "a boat",
    5: "a boat on a stormy sea with a lighthouse and a pier",
    8: "boats, boats, boats",
}
OTHERS = ("a tree on a hill", "a cat in the snow", "an old house of stone", "the sea", "a lamp")


@pytest.mark.parametrize("size", [1, 9, 1000])
def test_words_rank_in_banks_of_any_size(tmp_path: Path, size: int):
    """What shares no word is no hit, what shares more words comes first, whatever the size."""
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        boats = {number: BOATS[number] for number in BOATS if number <= size} or {1: "a boat"}
        bank.add(
            candidate(number, prompt=boats.get(number, OTHERS[number % len(OTHERS)]))
            for number in range(1, size + 1)
        )
        hits = bank.search_text("a boat", size)
        assert sorted(hit.entry.id for hit in hits) == sorted(boats)
        assert all(hit.match > 0.1 for hit in hits)
        if size > 1:
            assert [hit.entry.id for hit in hits] == [8, 3, 5]
            assert ranked(bank, "a boat at the stormy pier", 1) == [5]
            sea = [n for n in range(1, size + 1) if n not in boats and n % len(OTHERS) == 3]
            assert sorted(ranked(bank, "sea", size)) == sorted([5, *sea])
            assert ranked(bank, "boat", size, source="real") == [8]  # odd numbers are synthetic
        assert bank.search_text("a zebra", size) == []


def test_scores_by_hand(tmp_path: Path):
    """Two of three prompts, of 4, 8 and 12 characters, have the word: once and twice."""
    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        for number, prompt in enumerate(("boat", "boats ok", "a cat asleep", None)):
            bank.add([candidate(number, prompt=prompt)])
        first, second = bank.search_text("boat")
        weight = np.log(1 + 1.5 / 2.5)
        assert (first.entry.id, second.entry.id) == (1, 2)
        assert first.match == pytest.approx(weight * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 4 / 8)))
        assert second.match == pytest.approx(weight * 2.2 / (1 + 1.2))
        bank.remove([2])  # statistics are of what is live
        (only,) = bank.search_text("boat")
        assert only.match == pytest.approx(
            np.log(1 + 1.5 / 1.5) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 4 / 8))
        )


def test_prompts_near_in_meaning_follow_those_that_share_words(tmp_path: Path):
    asked: list[str] = []
    axes = {"a boat": 0.0, "a boat at sea": 0.1, "a ship": 0.5, "a vessel": 0.8, "a cat": 1.5}

    def encode(texts) -> np.ndarray:
        asked.extend(texts)
        return np.array([[np.cos(axes[text]), np.sin(axes[text])] for text in texts])

    with MemoryBank.create(tmp_path / "bank", DIM, MODEL) as bank:
        prompts = ["a cat", "a vessel", "a ship", "a boat at sea", "a ship", None]
        bank.add(candidate(number, prompt=prompt) for number, prompt in enumerate(prompts))
        hits = bank.search_text("a boat", encode=encode)
        assert [hit.entry.id for hit in hits] == [4, 3, 5, 2]  # the cat is far
        assert [hit.meaning for hit in hits] == [
            None,
            *(pytest.approx(np.cos(angle), abs=1e-6) for angle in (0.5, 0.5, 0.8)),
        ]
        assert [hit.match > 0 for hit in hits] == [True, False, False, False]
        assert asked == ["a boat", "a cat", "a ship", "a vessel"]  # each prompt once
        assert ranked(bank, "a boat", 1, encode=encode) == [4]
        assert len(asked) == 4  # enough words in common: nothing is encoded
        assert ranked(bank, "a boat", encode=encode, source="real") == [3, 5]
        assert ranked(bank, "a boat") == [4]
