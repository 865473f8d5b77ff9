"""Adding, evicting and reading entries; versions that a reader sees."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from memory_bank import Decision, MemoryBank
from memory_bank.store.store import DUPLICATE
from tests.memory_bank.make import (
    DIM,
    MODEL,
    candidate,
    picture,
    refused,
    vector,
)


def test_an_entry_keeps_everything_it_was_given(bank: MemoryBank):
    given = {
        "source": "synthetic",
        "emotion": "awe",
        "valence": 1.5,
        "arousal": -0.5,
        "predicted": "awe",
        "predicted_valence": np.float32(1.25),
        "predicted_arousal": -0.75,
        "confidence": 0.875,
        "contrast": 0.25,
        "prompt": "a hill; DROP TABLE entries",
        "seed": 2**63 - 1,
        "model_hash": "generator-7",
        "step": np.int64(40),
        "fingerprint": -(2**63),
        "scores": {"pickscore": 0.25},
    }
    recorded = bank.add([candidate(3, **given)], reason="passed all")

    (entry,) = bank.entries()
    assert recorded.version == bank.version == 1
    assert {name: getattr(entry, name) for name in given} == given
    assert (entry.id, entry.added, entry.reason, entry.label) == (1, 1, "passed all", "awe")
    assert bank.image_path(entry).read_bytes() == picture(3)
    assert bank.image_path(entry).parts[-2:] == (entry.sha256[:2], f"{entry.sha256}.png")
    np.testing.assert_array_equal(bank.embeddings([1]), vector(3)[None])


def test_what_is_evicted_leaves_in_the_version_of_what_comes(bank: MemoryBank):
    bank.add([candidate(0), candidate(1)])
    decisions = [Decision(candidate=candidate(2), admitted=True, reason="better")]
    assert bank.record(decisions, evict=[1]).version == 2
    assert [entry.id for entry in bank.entries()] == [2, 3]
    with pytest.raises(UserError, match="no such entry in the memory bank; got id 1"):
        bank.record([Decision(candidate=candidate(3), admitted=True, reason="")], evict=[1, 2])
    assert (bank.version, len(bank), bank.verify()) == (2, 2, [])
    bank.rollback(1)
    assert [entry.id for entry in bank.entries()] == [1, 2]


def test_pictures_paths_and_jpegs_are_taken(bank: MemoryBank, tmp_path: Path):
    (tmp_path / "photo.jpeg").write_bytes(picture(1, "JPEG"))
    drawn = Image.new("RGB", (4, 4), "red")
    bank.add([candidate(1, image=tmp_path / "photo.jpeg"), candidate(2, image=drawn)])
    photo, drawing = bank.entries()
    assert bank.image_path(photo).read_bytes() == picture(1, "JPEG")
    assert (photo.suffix, drawing.suffix) == ("jpg", "png")
    with Image.open(bank.image_path(drawing)) as kept:
        assert kept.getpixel((0, 0)) == (255, 0, 0)


def test_a_duplicate_is_refused_by_name_and_the_rest_goes_in(bank: MemoryBank):
    bank.add([candidate(1)])
    recorded = bank.add([candidate(2), candidate(1), candidate(2)])
    assert [one.candidate.emotion for one in recorded.admitted] == [MIKELS8[2]]
    assert [one.reason for one in recorded.refused] == [DUPLICATE, DUPLICATE]
    assert [one.reason for one in bank.refusals()] == [DUPLICATE, DUPLICATE]
    assert (len(bank), bank.version, bank.stats()["refused"]) == (2, 2, 2)


def test_a_duplicate_brings_its_lost_file_back(bank: MemoryBank):
    bank.add([candidate(0), candidate(1), candidate(2)])
    paths = [bank.image_path(entry) for entry in bank.entries()]
    paths[0].unlink()
    paths[1].write_bytes(b"rubbish")
    taken = bank.add([candidate(number) for number in (0, 1, 2, 0)])
    restored = "duplicate image, whose lost file is restored"
    assert [one.reason for one in taken.refused] == [restored] * 2 + ["duplicate image"] * 2
    assert [path.read_bytes() for path in paths] == [picture(number) for number in range(3)]
    assert (len(bank), bank.verify()) == (3, [])
    shutil.rmtree(paths[2].parents[1])
    bank.add([candidate(number) for number in range(3)])
    assert bank.verify() == []


def test_stats_by_hand(bank: MemoryBank):
    bank.add([candidate(number) for number in range(6)])  # 0, 2, 4 real; 1, 3, 5 synthetic
    bank.record([refused(7), Decision(candidate=candidate(9), admitted=True, reason="good")])
    stats = bank.stats()
    assert stats == {
        "version": 2,
        "oldest": 0,
        "size": 7,
        "real": 3,
        "synthetic": 4,
        "admitted": 4,
        "refused": 1,
        "by_emotion": dict(zip(MIKELS8, (1, 2, 1, 1, 1, 1, 0, 0), strict=True)),
        "by_emotion_synthetic": dict(zip(MIKELS8, (0, 2, 0, 1, 0, 1, 0, 0), strict=True)),
        "dim": DIM,
        "model_hash": MODEL,
        "index": "flat",
    }
    (refusal,) = bank.refusals()
    assert (refusal.reason, refusal.version, refusal.emotion) == ("too dull", 2, MIKELS8[7])


def test_an_empty_batch_makes_no_version(bank: MemoryBank):
    assert bank.add([]).version == 0
    assert bank.remove([]) == 0


def test_a_reader_stays_at_its_version_until_it_reloads(bank: MemoryBank):
    bank.add([candidate(0)])
    with MemoryBank.open(bank.path) as reader:
        bank.add([candidate(1)])
        bank.add([candidate(2), candidate(3)])
        bank.remove([1])
        assert [entry.id for entry in reader.entries()] == [1]
        assert [hit.entry.id for hit in reader.search(vector(0), 5)[0]] == [1]
        assert reader.stats()["size"] == reader.version == 1
        assert reader.reload(2) == 2
        assert {hit.entry.id for hit in reader.search(vector(0), 5)[0]} == {1, 2}
        assert reader.reload() == 4
        assert {hit.entry.id for hit in reader.search(vector(0), 5)[0]} == {2, 3, 4}
        assert reader.reload(3) == 3
        assert {hit.entry.id for hit in reader.search(vector(0), 5)[0]} == {1, 2, 3, 4}
        assert reader.verify() == []
