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
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memory_bank import Decision, MemoryBank
from memory_bank.exchange import export_bank, import_bank
from memory_bank.images import read_image
from tests.memory_bank.make import DIM, MODEL, candidate, picture, vector

PICTURES = 60
EXPORTED = range(50, 60)
OPERATIONS = ("add", "evict", "rollback", "compact", "rebuild", "import")
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


def write(folder: Path, draw: random.Random, say) -> None:
    """Do random operations for ever, each announced and acknowledged."""
    with MemoryBank.open(folder / "bank", "a") as bank:
        while True:
            what = draw.choice(OPERATIONS)
            before = seen(bank)
            live, version = before["live"], before["version"]
            free = [number for number in range(PICTURES) if number not in live]
            taken = draw.sample(free, min(len(free), 4))
            after = before | {"version": version + 1}
            if what == "add":
                after["live"] = sorted([*live, *taken])
                act = lambda: bank.record(offers(bank, taken))  # noqa: E731
            elif what == "evict":
                gone = draw.sample(bank.entries(), min(len(live), 3))
                left = {HASH[entry.sha256] for entry in gone}
                after["live"] = sorted({*live, *taken} - left)
                act = lambda: bank.record(  # noqa: E731
                    offers(bank, taken), evict=[entry.id for entry in gone]
                )
            elif what == "rollback":
                target = draw.randint(before["oldest"], version)
                with MemoryBank.open(folder / "bank") as reader:
                    reader.reload(target)
                    after = seen(reader)
                act = lambda: bank.rollback(target)  # noqa: E731
            elif what == "compact":
                oldest = draw.randint(max(before["oldest"], version - 2), version)
                after = before | {"oldest": oldest}
                act = lambda: bank.compact(oldest)  # noqa: E731
            elif what == "rebuild":
                turn = int(bank.model_hash.rpartition("-")[2]) + 1
                model = f"embedder-{turn}"
                after |= {"oldest": version + 1, "model": model}

                def embed(paths: Sequence[Path]) -> np.ndarray:
                    return np.stack([embedded(HASH[path.stem], model) for path in paths])

                act = lambda: bank.rebuild(embed, DIM + turn % 2, model)  # noqa: E731
            else:
                out = exported(folder, bank.model_hash)
                if not out.exists():
                    continue
                after["live"] = sorted({*live, *EXPORTED})
                after["refused"] = before["refused"] + len(set(live) & set(EXPORTED))
                act = lambda: import_bank(bank, out, quiet)  # noqa: E731
            if what in ("add", "evict") and not taken and after["live"] == live:
                continue
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
    MemoryBank.create(folder / "bank", DIM, MODEL).close()
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
