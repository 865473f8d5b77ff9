"""Kill a writer at random moments, and look each time at what it left.

`python -m tests.memory_bank.crashes FOLDER KILLS` makes a bank in FOLDER and forks a writer for
each kill: a warm parent needs no start-up time. The writer says before each operation what the
bank will be after it, and after it that it is done. What is found after the kill has to be the last
state that was done or the one that was being tried, whole. Prints the kills of each operation.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from memory_bank import Decision, MemoryBank
from memory_bank.exchange import export_bank, import_bank
from memory_bank.store.images import read_image
from tests.memory_bank.make import DIM, MODEL, candidate, picture, vector

PICTURES = 200
EXPORTED = range(190, 200)
HASH = {read_image(picture(number)).sha256: number for number in range(PICTURES)}
LONGEST = 0.1
"""Seconds from the first operation to the kill: a few more."""

State = dict[str, object]
"""What a bank is: `version`, `oldest`, `model`, `live` (numbers of pictures), `refused`."""


def seen(bank: MemoryBank) -> State:
    entries = bank.entries()
    return {
        "version": bank.version,
        "oldest": bank.stats()["oldest"],
        "model": bank.model_hash,
        "live": sorted(HASH[entry.sha256] for entry in entries),
        "refused": bank.stats()["refused"],
    }


def quiet(done: int, total: int) -> None:
    """Show nothing."""


def embedded(number: int, model: str) -> np.ndarray:
    """Models differ in what they see, and in the length of their vectors."""
    turn = int(model.rpartition("-")[2])
    return vector(number + 1000 * turn, DIM + turn % 2)


def offers(bank: MemoryBank, numbers: Sequence[int]) -> list[Decision]:
    return [
        Decision(
            candidate=candidate(number, embedding=embedded(number, bank.model_hash)),
            admitted=True,
            reason="",
        )
        for number in numbers
    ]


def exported(folder: Path, model: str) -> Path:
    return folder / "exports" / model


def prepare(folder: Path, model: str) -> None:
    """Export some images with the vectors of a model."""
    if not exported(folder, model).exists():
        dim = embedded(0, model).size
        with MemoryBank.create(folder / "scratch" / model, dim, model) as scratch:
            scratch.record(offers(scratch, EXPORTED))
            export_bank(scratch, exported(folder, model), quiet)


def planned(
    bank: MemoryBank, folder: Path, draw: random.Random
) -> tuple[str, State, Callable[[], object]]:
    """Return an operation: its name, what the bank is to be after it, and the act."""
    now = seen(bank)
    live, version = now["live"], now["version"]
    free = [number for number in range(PICTURES) if number not in live]
    new = draw.sample(free, min(len(free), 4))
    turn = int(bank.model_hash.rpartition("-")[2]) + 1
    model, out = f"embedder-{turn}", exported(folder, bank.model_hash)
    possible = ["rollback", "compact", "rebuild"]
    possible += ["add", "evict"] if new else []
    possible += ["import"] if out.exists() else []
    what = draw.choice(possible)
    after = now | {"version": version + 1}
    if what == "add":
        after["live"] = sorted([*live, *new])
        return what, after, lambda: bank.record(offers(bank, new))
    if what == "evict":
        gone = draw.sample(bank.entries(), min(len(live), 6))
        after["live"] = sorted({*live, *new} - {HASH[entry.sha256] for entry in gone})
        ids = [entry.id for entry in gone]
        return what, after, lambda: bank.record(offers(bank, new), evict=ids)
    if what == "import":
        after["live"] = sorted({*live, *EXPORTED})
        after["refused"] = now["refused"] + len(set(live) & set(EXPORTED))
        return what, after, lambda: import_bank(bank, out, quiet)
    if what == "rebuild":
        after |= {"oldest": version + 1, "model": model}
        return (
            what,
            after,
            lambda: bank.rebuild(
                lambda paths: np.stack([embedded(HASH[path.stem], model) for path in paths]),
                DIM + turn % 2,
                model,
            ),
        )
    oldest = draw.randint(now["oldest"], version)
    if what == "compact":
        return what, now | {"oldest": oldest}, lambda: bank.compact(oldest)
    with MemoryBank.open(folder / "bank") as reader:
        reader.reload(oldest)
        return what, seen(reader), lambda: bank.rollback(oldest)


def write(folder: Path, draw: random.Random, say: Callable[[object], object]) -> None:
    """Do random operations for ever, each announced and acknowledged."""
    with MemoryBank.open(folder / "bank", "a") as bank:
        while True:
            what, after, act = planned(bank, folder, draw)
            say({"try": after, "what": what})
            act()
            say({"done": after})


def check(bank: MemoryBank, allowed: list[State]) -> None:
    problems = bank.verify()
    assert problems == [], problems
    found = seen(bank)
    assert found in allowed, f"found {found}, expected one of {allowed}"
    for entry in bank.entries():
        (kept,) = bank.embeddings([entry.id])
        np.testing.assert_array_equal(kept, embedded(HASH[entry.sha256], bank.model_hash))


def crash(folder: Path, number: int, state: State) -> tuple[State, str, int]:
    """Kill one writer; return what it left, what it was doing, and how much it had done."""
    draw, moment = random.Random(number), random.Random(-number)
    read, end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            write(folder, draw, lambda what: os.write(end, json.dumps(what).encode() + b"\n"))
        except BaseException as error:
            os.write(end, json.dumps({"error": repr(error)}).encode() + b"\n")
        os._exit(1)
    os.close(end)
    with os.fdopen(read, "rb") as pipe:
        # One in five dies while it opens the bank; the others, however slow the machine, at work.
        text = b"" if moment.random() < 0.2 else pipe.readline()
        time.sleep(moment.uniform(0, LONGEST))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        lines = [json.loads(line) for line in (text + pipe.read()).splitlines()]
    allowed, doing, done = [state], "nothing", 0
    for line in lines:
        assert "error" not in line, line
        if "try" in line:
            allowed, doing = [allowed[0], line["try"]], line["what"]
        else:
            allowed, doing, done = [line["done"]], "nothing", done + 1
    with MemoryBank.open(folder / "bank") as reader:
        check(reader, allowed)
    with MemoryBank.open(folder / "bank", "a") as bank:
        check(bank, allowed)
        files = {path.stem for path in (folder / "bank" / "images").rglob("*.*")}
        with bank._store.reading() as db:
            assert files == {row[0] for row in db.execute("SELECT sha256 FROM entries")}
        return seen(bank), doing, done


def main(folder: Path, kills: int) -> None:
    MemoryBank.create(folder / "bank", embedded(0, MODEL).size, MODEL).close()
    with MemoryBank.open(folder / "bank") as bank:
        state = seen(bank)
    doing: Counter[str] = Counter()
    done = 0
    for number in range(kills):
        prepare(folder, state["model"])
        state, what, more = crash(folder, number, state)
        doing[what] += 1
        done += more
    print(json.dumps({"kills": kills, "acknowledged": done, "during": dict(doing)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
