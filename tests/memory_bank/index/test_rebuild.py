"""A bank rebuilt with another embedder."""

from __future__ import annotations

import resource
import signal

import numpy as np
import pytest

from emosym.errors import UserError
from memory_bank import MemoryBank
from tests.memory_bank.make import (
    DIM,
    MODEL,
    candidate,
    ids,
    image_names,
)


@pytest.fixture
def bank(three_versions: MemoryBank) -> MemoryBank:
    return three_versions


def other(paths) -> np.ndarray:
    """Another embedder: from the first bytes of the image."""
    return np.stack([np.frombuffer(path.read_bytes()[-28:-16], np.uint8) + 1.0 for path in paths])


def test_another_embedder(bank: MemoryBank):
    bank.tag("old")
    before = bank.entries()
    done: list[tuple[int, int]] = []
    with MemoryBank.open(bank.path) as reader:
        assert bank.rebuild(other, 12, "embedder-2", lambda *show: done.append(show)) == 4
        with pytest.raises(UserError, match="was changed by its writer"):
            reader.entries()
        with pytest.raises(UserError, match="rebuilt for another model; got model embedder-2"):
            reader.reload()
    assert done == [(4, 4)]
    assert (bank.dim, bank.model_hash, bank.tags()) == (12, "embedder-2", {})
    assert bank.entries() == before
    expected = other([bank.image_path(entry) for entry in before])
    np.testing.assert_array_equal(bank.embeddings(ids(before)), expected.astype(np.float32))
    for row, entry in zip(expected, before, strict=True):
        assert bank.search(row, 1)[0][0].entry == entry
    assert len(image_names(bank)) == 4
    with pytest.raises(UserError, match="has forgotten; got 3; expected 4 to 4"):
        bank.rollback(3)
    with pytest.raises(UserError, match="made by another model; got model embedder-1"):
        MemoryBank.open(bank.path, model_hash=MODEL)
    assert bank.add([candidate(7, embedding=expected[0])]).admitted
    assert ids(bank.entries()) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("embed", "dim", "message"),
    [
        (other, 11, r"embedding of the wrong shape; got \[4, 12\]; expected dimension 11"),
        (lambda paths: other(paths) * np.nan, 12, "NaN or infinite"),
        (lambda paths: other(paths) * 0, 12, "zero vector"),
        (other, 0, "the dimension of a bank; got 0"),
    ],
)
def test_a_rebuild_that_fails_changes_nothing(bank: MemoryBank, embed, dim, message):
    bank.tag("old")
    before = (bank.entries(), bank.events(), bank.embeddings(ids(bank.entries())).tobytes())
    with pytest.raises(UserError, match=message):
        bank.rebuild(embed, dim, "embedder-2")
    assert before == (bank.entries(), bank.events(), bank.embeddings([2, 3, 4, 5]).tobytes())
    assert (bank.dim, bank.model_hash, bank.tags()) == (DIM, MODEL, {"old": 3})


def test_a_full_disk_while_rebuilding_or_compacting(bank: MemoryBank):
    """The journal may not grow: nothing changes, and later it works."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = (bank.entries(), bank.events())
    size = (bank.path / "bank.sqlite-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
    try:
        for act in (lambda: bank.rebuild(other, 12, "embedder-2"), lambda: bank.compact(3)):
            with pytest.raises(UserError, match=r"cannot write to .*; the bank is unchanged"):
                act()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert before == (bank.entries(), bank.events())
    bank.compact(3)
