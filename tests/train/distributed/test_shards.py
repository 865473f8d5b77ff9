"""A file of a checkpoint is bounded in what it unfolds to, before any of it is made."""

from __future__ import annotations

import collections
import zipfile
from pathlib import Path

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler

from emosym.errors import UserError
from tests.train.processes import in_ranks
from train.distributed.pickled import DEEPEST, LONGEST
from train.distributed.shards import Shards


def read(tmp_path, state):
    torch.save(state, tmp_path / "states.pt")
    return Shards(None).load(str(tmp_path / "states.pt"))


def laughs(levels: int, width: int, kind: type = list):
    """Return `width` ** `levels` references to one text in `levels` small containers."""
    value = kind(["a"] * width)
    for _ in range(levels - 1):
        value = kind([value] * width)
    return value


def in_attribute(value):
    """Return a mapping that holds a value as the metadata of a state dict."""
    state = collections.OrderedDict()
    state._metadata = value
    return state


def in_scaler(value):
    scaler = LossScaler(1.0)
    scaler.cur_scale = value
    return scaler


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (laughs(DEEPEST, 10), f"deeper than {DEEPEST} levels"),
        (laughs(8, 10), "more than 10,000,000 values"),
        (laughs(8, 10, tuple), "more than 10,000,000 values"),
        (in_attribute(laughs(8, 10)), "more than 10,000,000 values"),
        (in_scaler(laughs(8, 10)), "more than 10,000,000 values"),
        ([["x" * 10_000] * 2000], "more than 10,000,000 values"),
        (list(range(LONGEST)), f"more than {LONGEST:,} opcodes"),
        (collections.Counter("a"), r"got collections\.Counter;"),
        ({1}, r"got __builtin__\.set;"),
        (bytearray(2), r"got __builtin__\.bytearray;"),
        (torch.nn.Parameter(torch.ones(2)), r"got torch\._utils\._rebuild_parameter;"),
        (torch.ones(2).to_sparse(), r"got torch\._utils\._rebuild_sparse_tensor;"),
        (2**3000, "got another pickle;"),
    ],
    ids=["deep", "wide", "tuples", "metadata", "scaler", "long text", "long", "counter", "set",
         "bytes", "parameter", "sparse", "number"],
)  # fmt: skip
def test_what_unfolds_to_too_much_is_refused(tmp_path, value, reason):
    with pytest.raises(UserError, match=reason):
        read(tmp_path, {"state": value})


def test_a_list_that_holds_itself_is_refused(tmp_path):
    ring: list = []
    ring.append(ring)
    with pytest.raises(UserError, match="nested deeper"):
        read(tmp_path, {"state": ring})


def test_the_deepest_state_is_read(tmp_path):
    levels = DEEPEST - 3  # beside the mapping, and a tensor with its shape
    value: object = torch.ones(2)
    for _ in range(levels):
        value = [value]
    state = read(tmp_path, {"state": value})["state"]
    for _ in range(levels):
        [state] = state
    assert torch.equal(state, torch.ones(2))
    with pytest.raises(UserError, match="nested deeper"):
        read(tmp_path, {"state": [value]})


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_each_kind_of_number_is_read(tmp_path, kind):
    state = {"state": torch.ones(2).to(kind), "kind": kind, "place": torch.device("cpu")}
    found = read(tmp_path, state)
    assert torch.equal(found.pop("state"), state.pop("state"))
    assert found == state


DOUBLED = b")" + b"q\x00h\x00\x86" * 60
"""A tuple that holds twice one that holds twice one, and so on: 2 ** 60 values in 300 bytes."""
STAGE = b"cdeepspeed.runtime.zero.config\nZeroStageEnum\n"
FROM_ABOVE = b"]q\x00" + b"(]q\x01h\x01eh\x01" * 60
"""The same of lists, each filled after it was put into the one above; the first is number 0."""
ENDLESS = {
    "a key": b"}" + DOUBLED + b"K\x01s",
    "a key of several": b"}(" + DOUBLED + b"K\x01u",
    "a key that is dropped": b"}" + DOUBLED + b"K\x01sq\x01K\x01",
    "a number of a stage": STAGE + DOUBLED + b"\x85R",
    "a name of a tensor": b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    + DOUBLED
    + b"X\x03\x00\x00\x00cpuK\x01tQ",
    "a list that grows from above": FROM_ABOVE,
    "a list in an error of a stage": FROM_ABOVE + STAGE + b"h\x00\x85R",
}
OTHER = {
    "nothing": b"",
    "a mark": b"(",
    "an end without a mark": b"t",
    "too few values": b"K\x01\x86",
    "an unknown opcode": b"\x95" + bytes(8),
    "an unknown reference": b"h\x07",
    "a list of a number": b"K\x01K\x01a",
    "a text": b"K\x01X\xff\xff\xff\xff",
    "a text of no encoding": b"X\x01\x00\x00\x00\xff",
    "a call": b"cposix\nsystem\n",
}


def written(path: Path, pickle: bytes) -> Path:
    """Write a file of torch.save with another pickle in it."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            own = b"\x80\x02" + pickle + b"." if name.endswith("data.pkl") else data
            archive.writestr(name, own)
    return path


def told(paths: list[Path]) -> list[str]:
    """Return why each file is refused."""
    found = []
    for path in paths:
        with pytest.raises(UserError) as caught:
            Shards(None).load(str(path))
        found.append(str(caught.value))
    return found


def test_what_would_be_hashed_or_printed_for_ever_is_refused(tmp_path):
    """In a process that is ended: a hash cannot be interrupted."""
    paths = [written(tmp_path / f"{n}.pt", each) for n, each in enumerate(ENDLESS.values())]
    [found] = in_ranks(told, paths)
    for name, text in zip(ENDLESS, found, strict=True):
        assert "got values nested deeper than 20 levels; it was not written" in text, name


def test_what_is_no_pickle_of_torch_is_refused(tmp_path):
    paths = [written(tmp_path / f"{n}.pt", each) for n, each in enumerate(OTHER.values())]
    for name, text in zip(OTHER, told(paths), strict=True):
        got = "posix.system" if name == "a call" else "another pickle"
        assert f"of an optimizer or a model; got {got}; it was not written by EmoSym" in text, name


def test_an_older_format_beside_an_archive_is_refused(tmp_path):
    """zipfile finds an archive at the end of a file, torch one at its start."""
    old, new = tmp_path / "old.pt", tmp_path / "new.pt"
    torch.save({"a": 1}, old, _use_new_zipfile_serialization=False)
    torch.save({"a": 1}, new)
    old.write_bytes(old.read_bytes() + new.read_bytes())
    assert zipfile.is_zipfile(old)
    [text] = told([old])
    assert text == f"{old} is not a file of torch.save; got no archive"


def test_the_pickle_that_is_checked_is_the_one_that_is_read(tmp_path):
    """An archive may have two members of a name."""
    bad = written(tmp_path / "states.pt", ENDLESS["a key"])
    good = written(tmp_path / "good.pt", b"}")
    for path, second in ((bad, b"}"), (good, ENDLESS["a key"])):
        with zipfile.ZipFile(path, "a") as archive:
            [name] = [name for name in archive.namelist() if name.endswith("data.pkl")]
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr(name, b"\x80\x02" + second + b".")
    [found] = in_ranks(read_or_told, [bad, good])
    assert len(found) == 2
    assert all(one == "{}" or "values nested deeper" in one for one in found)


def read_or_told(paths: list[Path]) -> list[str]:
    """Return what each file holds, or why it is refused."""
    found = []
    for path in paths:
        try:
            found.append(repr(Shards(None).load(str(path))))
        except UserError as error:
            found.append(str(error))
    return found
