"""`make bench-bank`: the bank beside raw FAISS, hnswlib and LanceDB, on the same vectors.

One process, one contender after the other in every round; medians and [lowest, highest]. Vectors
lie in overlapping clusters of few directions, as embeddings do; half of the queries are near
entries. The bank checks and keeps image files, and survives a power cut when `add` returns.
LanceDB keeps the same bytes in a column, looks at none and syncs nothing, so it has three rows: as
it is, with what it wrote synced after each batch, and with the images decoded beforehand too, which
is the bank's own job. FAISS and hnswlib keep nothing on the disk.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import faiss
import numpy as np
import typer
from PIL import Image

from memory_bank import Candidate, MemoryBank
from memory_bank.index.index import normalised
from memory_bank.index.kinds import AUTO, KINDS
from memory_bank.store.durable import sync_files
from memory_bank.store.images import read_images

K, BATCH, QUERIES = 10, 256, 256
FILL = 4096
"""Entries a batch while all are filled; only the last batches, of `BATCH`, are timed."""
SMALL = 16
"""Pixels of a picture's side where `--side` says nothing else: 200,000 of them fit on a disk."""
DIRECTIONS = 32
"""Of the vectors' clusters; the rest is a little noise."""
UNSYNCED, SYNCED = "LanceDB, never synced", "LanceDB, synced"
CHECKED = "LanceDB, checked, synced"
WIDTH, EFFORT, BREADTH = 32, 100, 128
"""hnswlib's M, ef_construction and ef: those of the bank's own graph."""

Times = dict[str, list[float]]
Search = Callable[[np.ndarray], np.ndarray]
"""Queries [Q, D] -> ids [Q, K], best first."""


def main(
    count: Annotated[int, typer.Option(min=2000, help="Entries.")] = 200_000,
    dim: Annotated[int, typer.Option(min=8, help="Length of a vector.")] = 768,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured.")] = 5,
    side: Annotated[
        int, typer.Option(min=1, help="Pixels of a timed picture; not of --growth.")
    ] = SMALL,
    index: Annotated[str, typer.Option(help="Kind of the bank's index.")] = AUTO,
    growth: Annotated[
        bool, typer.Option("--growth", help="The bank alone, from 1000 entries to COUNT by tens.")
    ] = False,
    measure: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print speed, recall and memory of the bank and of others."""
    if measure:
        kind, _, path = measure.partition(":")
        print(_resident(kind, Path(path), dim))
        return
    with tempfile.TemporaryDirectory(prefix="emosym-bench-") as name:
        if growth:
            grow(Path(name), count, dim, rounds, index)
        else:
            compare(Path(name), count, dim, rounds, side, index)


def compare(folder: Path, count: int, dim: int, rounds: int, side: int, index: str) -> None:
    """Measure all contenders at one size."""
    import hnswlib
    import lancedb

    threads = faiss.omp_get_max_threads()
    vectors, queries = draw(count, dim)
    raw = faiss.IndexFlatIP(dim)
    graph = hnswlib.Index("ip", dim)
    graph.init_index(count, M=WIDTH, ef_construction=EFFORT)
    graph.set_num_threads(threads)
    graph.set_ef(BREADTH)
    lance = folder / "lance"
    table = lancedb.connect(lance).create_table("bench", schema=_schema(dim))
    bank = MemoryBank.create(folder / "bank", dim, "bench", index=index)

    def store(images: Sequence[bytes], batch: np.ndarray, ids: np.ndarray) -> None:
        table.add(_rows(images, batch, ids))

    adds: Times = {}
    seen: dict[Path, int] = {}
    for ids in batches(count, rounds):
        timed = adds if len(ids) == BATCH else {}
        large = side if len(ids) == BATCH else SMALL
        images, batch = [picture(number, large) for number in ids], vectors[ids]
        taken = candidates(images, batch)
        clock(timed, "FAISS (memory only)", raw.add, batch)
        clock(timed, "hnswlib (memory only)", graph.add_items, batch, ids)
        clock(timed, UNSYNCED, store, images, batch, ids)
        clock(timed, SYNCED, sync_files, lance, _new_files(lance, seen))
        clock(timed, CHECKED, check, images)
        clock(timed, "bank", bank.add, taken)
    for place, seconds in enumerate(adds[UNSYNCED]):
        adds[SYNCED][place] += seconds
        adds[CHECKED][place] += adds[SYNCED][place]
    bank.close()

    bank = MemoryBank.open(folder / "bank")
    kind = bank.stats()["index"]
    print(f"{count} x {dim}, {threads} threads, index {kind}, {rounds} rounds: median [low, high]")
    table_of(f"add {BATCH} images of {side} x {side} with vectors", adds, BATCH, "images/s", SYNCED)

    searches: dict[str, Search] = {
        "FAISS, flat": lambda q: raw.search(q, K)[1],
        "hnswlib": lambda q: graph.knn_query(q, K)[0].astype(np.int64),
        "LanceDB": lambda q: _lance_search(table, q),
        "bank": lambda q: np.array([[hit.entry.id - 1 for hit in row] for row in bank.search(q)]),
    }
    if kind != "flat":
        same = faiss.read_index(str(folder / "bank" / "index.faiss"))
        searches[f"FAISS, {kind}"] = lambda q: KINDS[kind](same).search(q, K)[1] - 1
    exact = raw.search(queries, K)[1]
    for title, rows, rival in (
        (f"search {QUERIES} queries at once, k = {K}", QUERIES, f"FAISS, {kind}"),
        ("search one query", 1, f"FAISS, {kind}"),
    ):
        times: Times = {}
        for turn in range(rounds + 1):
            for name, search in searches.items():
                asked = queries[turn * rows % QUERIES :][:rows]
                clock(times if turn else {}, name, search, asked)  # the first warms up
        table_of(title, times, rows, "queries/s", rival)
    print(f"\nrecall@{K}")
    for name, search in searches.items():
        print(f"  {name:24s} {recall(search(queries), exact):.4f}")
    bank.close()

    faiss.write_index(raw, str(folder / "flat.faiss"))
    graph.save_index(str(folder / "graph.bin"))
    opened: Times = {}
    for _ in range(rounds):
        for name, path in (("FAISS", "flat.faiss"), ("hnswlib", "graph.bin"), ("LanceDB", "lance")):
            clock(opened, name, _open, name, folder / path, dim)
        clock(opened, "bank, to read", open_bank, folder / "bank", "r")
        clock(opened, "bank, to write", open_bank, folder / "bank", "a")
    table_of("open (files in the page cache)", opened, 1, "opens/s", "FAISS")

    print(f"\n{'bytes an entry':26s} {'in memory':>12s} {'on disk':>12s}")
    for name, path in (
        ("FAISS", "flat.faiss"),
        ("hnswlib", "graph.bin"),
        ("LanceDB", "lance"),
        ("bank", "bank"),
    ):
        resident = _of_its_own("--measure", f"{name}:{folder / path}", "--dim", str(dim))
        print(f"  {name:24s} {resident / count:12.0f} {_size(folder / path) / count:12.0f}")


def grow(folder: Path, largest: int, dim: int, rounds: int, index: str) -> None:
    """Measure the bank at each power of ten from 1000 entries to the largest."""
    print(f"the bank as it grows, {dim} dimensions, {faiss.omp_get_max_threads()} threads, medians")
    print(f"{'entries':>9s} {'index':>6s} {'add 256':>9s} {'open':>9s} {'256 queries':>12s}"
          f" {'1 query':>9s} {'recall':>7s} {'disk':>8s}")  # fmt: skip
    count = 1000
    while count <= largest:
        vectors, queries = draw(count, dim)
        path = folder / str(count)
        times: Times = {}
        with MemoryBank.create(path, dim, "bench", index=index) as bank:
            for ids in batches(count, min(rounds, 3)):
                taken = candidates([picture(number, SMALL) for number in ids], vectors[ids])
                clock(times if len(ids) == BATCH else {}, "add", bank.add, taken)
        for _ in range(rounds):
            clock(times, "open", open_bank, path, "r")
        flat = faiss.IndexFlatIP(dim)
        flat.add(vectors)
        exact = flat.search(queries, K)[1]
        with MemoryBank.open(path) as bank:
            for turn in range(rounds):
                clock(times, "many", bank.search, queries)
                clock(times, "one", bank.search, queries[turn])
            found = np.array([[hit.entry.id - 1 for hit in row] for row in bank.search(queries)])
            middle = {name: statistics.median(values) for name, values in times.items()}
            print(
                f"{count:9d} {bank.stats()['index']:>6s} {1e3 * middle['add']:6.1f} ms"
                f" {1e3 * middle['open']:6.1f} ms {1e3 * middle['many']:9.1f} ms"
                f" {1e3 * middle['one']:6.1f} ms {recall(found, exact):7.4f}"
                f" {_size(path) / count:6.0f} B",
                flush=True,
            )
        shutil.rmtree(path)
        count *= 10


def draw(count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors [N, D] in overlapping clusters, and queries [QUERIES, D]."""
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((DIRECTIONS, dim)).astype(np.float32) / np.sqrt(DIRECTIONS)
    centres = rng.standard_normal((max(8, count // 200), DIRECTIONS)).astype(np.float32)

    def some(number: int) -> np.ndarray:
        inner = centres[rng.integers(len(centres), size=number)]
        inner = inner + 0.5 * rng.standard_normal(inner.shape).astype(np.float32)
        noise = rng.standard_normal((number, dim), np.float32)
        return normalised(inner @ spread + 0.1 * noise)

    vectors = np.concatenate([some(min(FILL, count - at)) for at in range(0, count, FILL)])
    near = vectors[rng.integers(count, size=QUERIES // 2)]
    near = near + 0.2 * rng.standard_normal(near.shape).astype(np.float32) / np.sqrt(dim)
    queries = np.concatenate([some(QUERIES - len(near)), normalised(near)])
    return vectors, queries[rng.permutation(QUERIES)]


def batches(count: int, timed: int) -> list[np.ndarray]:
    """Return the ids of each batch: large ones, then `timed` of `BATCH` (none but them)."""
    first = max(count - timed * BATCH, 0)
    parts = [np.arange(at, min(at + FILL, first)) for at in range(0, first, FILL)]
    return parts + [np.arange(at, at + BATCH) for at in range(first, count - BATCH + 1, BATCH)]


def picture(number: int, side: int) -> bytes:
    """Return a PNG file of side x side pixels of noise, other ones for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def check(images: Sequence[bytes]) -> None:
    """Decode every image completely as the bank does before it keeps one, large ones at once."""
    read_images(images)


def candidates(images: Sequence[bytes], vectors: np.ndarray) -> list[Candidate]:
    """Return what the bank is given."""
    return [
        Candidate(source="real", image=image, embedding=vector, emotion="awe", prompt="a hill")
        for image, vector in zip(images, vectors, strict=True)
    ]


def clock(times: Times, name: str, run: Callable[..., object], *arguments: object) -> None:
    """Add the seconds of `run(*arguments)` to those of its name."""
    began = time.perf_counter()
    run(*arguments)
    times.setdefault(name, []).append(time.perf_counter() - began)


def open_bank(path: Path, mode: Literal["r", "a"]) -> None:
    """Open a bank and close it."""
    MemoryBank.open(path, mode).close()


def table_of(title: str, times: Times, items: int, unit: str, rival: str) -> None:
    """Print medians with their spread, and the bank's speed in units of its rival's."""
    print(f"\n{title}")
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        spread = f"[{1e3 * min(values):.1f}, {1e3 * max(values):.1f}]"
        ratio = f"  {middle[rival] / middle[name]:5.2f} x {rival}" if name != rival else ""
        print(f"  {name:24s} {1e3 * middle[name]:9.1f} ms {spread:20s}"
              f" {items / middle[name]:10.1f} {unit}{ratio}", flush=True)  # fmt: skip


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the share of the true neighbours [Q, K] that were found [Q, K]."""
    pairs = zip(found, exact, strict=True)
    return float(np.mean([np.isin(truth, row).mean() for row, truth in pairs]))


def _schema(dim: int) -> Any:
    import pyarrow as pa

    text = ("source", "emotion", "prompt", "reason")
    return pa.schema(
        [("id", pa.int64()), ("vector", pa.list_(pa.float32(), dim)), ("image", pa.binary())]
        + [(name, pa.string()) for name in text]
    )


def _rows(images: Sequence[bytes], vectors: np.ndarray, ids: np.ndarray) -> Any:
    import pyarrow as pa

    count, dim = vectors.shape
    columns = {
        "id": ids,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim),
        "image": list(images),
        "source": ["real"] * count,
        "emotion": ["awe"] * count,
        "prompt": ["a hill"] * count,
        "reason": ["added by hand"] * count,
    }
    return pa.table(columns, schema=_schema(dim))


def _lance_search(table: Any, queries: np.ndarray) -> np.ndarray:
    """LanceDB without an index compares all, as flat does; its rows carry the query's number."""
    found = table.search(queries if len(queries) > 1 else queries[0]).distance_type("dot").limit(K)
    columns = found.select(["id", "_distance"]).to_arrow()
    ids = columns["id"].to_numpy()
    if "query_index" in columns.column_names:
        ids = ids[np.argsort(columns["query_index"].to_numpy(), kind="stable")]
    return ids.reshape(len(queries), K)


def _new_files(folder: Path, seen: dict[Path, int]) -> list[Path]:
    """Return the files that were written since the last call, and note them in `seen`."""
    now = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    new = [path for path, when in now.items() if seen.get(path) != when]
    seen.update(now)
    return new


def _open(name: str, path: Path, dim: int) -> object:
    if name == "FAISS":
        return faiss.read_index(str(path))
    if name == "hnswlib":
        import hnswlib

        graph = hnswlib.Index("ip", dim)
        graph.load_index(str(path))
        return graph
    if name == "LanceDB":
        import lancedb

        return lancedb.connect(path).open_table("bench")
    return MemoryBank.open(path)


def _resident(name: str, path: Path, dim: int) -> int:
    """Return the bytes that opening and one search add to this process."""
    query = normalised(np.ones((1, dim)))
    import hnswlib  # noqa: F401  (its and LanceDB's code is not counted)
    import lancedb  # noqa: F401

    before = _own_memory()
    held = _open(name, path, dim)
    if name == "FAISS":
        held.search(query, K)
    elif name == "hnswlib":
        held.knn_query(query, K)
    elif name == "LanceDB":
        _lance_search(held, query)
    else:
        held.search(query, K)
    return _own_memory() - before


def _own_memory() -> int:
    """Return the resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _of_its_own(*arguments: str) -> int:
    """Return what a fresh process measures: what this one once allocated it keeps."""
    command = [sys.executable, "-m", "benchmarks.bank", *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _size(path: Path) -> int:
    """Return the bytes that a file or folder takes on the disk."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(512 * file.stat().st_blocks for file in files)


if __name__ == "__main__":
    typer.run(main)
