"""`make bench-bank`: the memory bank, raw FAISS, hnswlib and LanceDB on the same vectors.

All run in turns in one process; results are medians and [minimum, maximum]. The vectors form
overlapping clusters in a low-dimensional subspace, as embeddings do; half of the queries are near
entries. The bank checks and stores image files, and its data survives a power cut once `add` has
returned. LanceDB stores the same bytes in a column, but neither decodes nor syncs them, so it has
three rows: unchanged, with its files synced after each batch, and with the images decoded before as
well, as the bank does. FAISS and hnswlib store nothing on disk.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import faiss
import numpy as np
import typer
from PIL import Image

from benchmarks.timing import Times, clock
from memory_bank import Candidate, MemoryBank
from memory_bank.index.index import normalised
from memory_bank.index.kinds import AUTO, KINDS
from memory_bank.store.durable import sync_files
from memory_bank.store.images import read_images

K, BATCH, QUERIES = 10, 256, 256
"""Neighbours of a query, entries of a timed batch, queries."""
FILL = 4096
"""Entries of the batches that fill the indexes; only the last batches, of `BATCH`, are timed."""
SMALL = 16
"""Default side of an image in pixels: 200,000 of them fit on a disk."""
DIRECTIONS = 32
"""Dimension of the subspace of the clusters; other directions have only little noise."""
UNSYNCED, SYNCED = "LanceDB, never synced", "LanceDB, synced"
CHECKED = "LanceDB, checked, synced"
WIDTH, EFFORT, BREADTH = 32, 100, 128
"""hnswlib's M, ef_construction and ef, as in the bank's graph index."""

Search = Callable[[np.ndarray], np.ndarray]
"""Queries [Q, D] -> ids [Q, K], best first."""


def main(
    count: Annotated[int, typer.Option(min=2000, help="Entries.")] = 200_000,
    dim: Annotated[int, typer.Option(min=8, help="Length of a vector.")] = 768,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 5,
    side: Annotated[
        int, typer.Option(min=1, help="Side of a timed image in pixels; not with --growth.")
    ] = SMALL,
    index: Annotated[str, typer.Option(help="Kind of the bank's index.")] = AUTO,
    growth: Annotated[
        bool, typer.Option("--growth", help="Only the bank, with 1000, 10000, ... COUNT entries.")
    ] = False,
    measure: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print speed, recall and memory of the bank and of the other libraries."""
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
    modified: dict[Path, int] = {}
    for ids in batches(count, rounds):
        times = adds if len(ids) == BATCH else {}
        pixels = side if len(ids) == BATCH else SMALL
        images, batch = [noise_image(number, pixels) for number in ids], vectors[ids]
        entries = candidates(images, batch)
        clock(times, "FAISS (memory only)", raw.add, batch)
        clock(times, "hnswlib (memory only)", graph.add_items, batch, ids)
        clock(times, UNSYNCED, store, images, batch, ids)
        clock(times, SYNCED, sync_files, lance, _new_files(lance, modified))
        clock(times, CHECKED, decode, images)
        clock(times, "bank", bank.add, entries)
    for i, seconds in enumerate(adds[UNSYNCED]):
        adds[SYNCED][i] += seconds
        adds[CHECKED][i] += adds[SYNCED][i]
    bank.close()

    bank = MemoryBank.open(folder / "bank")
    kind = str(bank.stats()["index"])
    print(f"{count} x {dim}, {threads} threads, index {kind}, {rounds} rounds: median [low, high]")
    print_times(
        f"add {BATCH} images of {side} x {side} with vectors", adds, BATCH, "images/s", SYNCED
    )

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
        found: Times = {}
        for turn in range(rounds + 1):
            for name, search in searches.items():
                batch = queries[turn * rows % QUERIES :][:rows]
                clock(found if turn else {}, name, search, batch)  # the first round warms up
        print_times(title, found, rows, "queries/s", rival)
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
    print_times("open (files in the page cache)", opened, 1, "opens/s", "FAISS")

    print(f"\n{'bytes an entry':26s} {'in memory':>12s} {'on disk':>12s}")
    for name, path in (
        ("FAISS", "flat.faiss"),
        ("hnswlib", "graph.bin"),
        ("LanceDB", "lance"),
        ("bank", "bank"),
    ):
        resident = _in_new_process("--measure", f"{name}:{folder / path}", "--dim", str(dim))
        print(f"  {name:24s} {resident / count:12.0f} {_size(folder / path) / count:12.0f}")


def grow(folder: Path, largest: int, dim: int, rounds: int, index: str) -> None:
    """Measure the bank with 1000 entries, ten times as many, and so on up to `largest`."""
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
                images = [noise_image(number, SMALL) for number in ids]
                entries = candidates(images, vectors[ids])
                clock(times if len(ids) == BATCH else {}, "add", bank.add, entries)
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
            median = {name: statistics.median(values) for name, values in times.items()}
            print(
                f"{count:9d} {bank.stats()['index']:>6s} {1e3 * median['add']:6.1f} ms"
                f" {1e3 * median['open']:6.1f} ms {1e3 * median['many']:9.1f} ms"
                f" {1e3 * median['one']:6.1f} ms {recall(found, exact):7.4f}"
                f" {_size(path) / count:6.0f} B",
                flush=True,
            )
        shutil.rmtree(path)
        count *= 10


def draw(count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random unit vectors [N, D] in overlapping clusters, and queries [QUERIES, D]."""
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((DIRECTIONS, dim)).astype(np.float32) / np.sqrt(DIRECTIONS)
    centres = rng.standard_normal((max(8, count // 200), DIRECTIONS)).astype(np.float32)

    def clustered(number: int) -> np.ndarray:
        inner = centres[rng.integers(len(centres), size=number)]
        inner = inner + 0.5 * rng.standard_normal(inner.shape).astype(np.float32)
        noise = rng.standard_normal((number, dim), np.float32)
        return normalised(inner @ spread + 0.1 * noise)

    vectors = np.concatenate([clustered(min(FILL, count - at)) for at in range(0, count, FILL)])
    near = vectors[rng.integers(count, size=QUERIES // 2)]
    near = near + 0.2 * rng.standard_normal(near.shape).astype(np.float32) / np.sqrt(dim)
    queries = np.concatenate([clustered(QUERIES - len(near)), normalised(near)])
    return vectors, queries[rng.permutation(QUERIES)]


def batches(count: int, timed: int) -> list[np.ndarray]:
    """Return the ids of each batch: large batches, then `timed` ones of exactly `BATCH`."""
    first = max(count - timed * BATCH, 0)
    parts = [np.arange(at, min(at + FILL, first)) for at in range(0, first, FILL)]
    return parts + [np.arange(at, at + BATCH) for at in range(first, count - BATCH + 1, BATCH)]


def noise_image(number: int, side: int) -> bytes:
    """Return a PNG file of side x side random pixels, seeded by `number`."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def decode(images: Sequence[bytes]) -> None:
    """Decode every image completely, as the bank does before it stores them."""
    read_images(images)


def candidates(images: Sequence[bytes], vectors: np.ndarray) -> list[Candidate]:
    """Return candidates for `MemoryBank.add`."""
    return [
        Candidate(source="real", image=image, embedding=vector, emotion="awe", prompt="a hill")
        for image, vector in zip(images, vectors, strict=True)
    ]


def open_bank(path: Path, mode: Literal["r", "a"]) -> None:
    """Open a bank and close it."""
    MemoryBank.open(path, mode).close()


def print_times(title: str, times: Times, items: int, unit: str, baseline: str) -> None:
    """Print medians, ranges and throughput, and the speed relative to the baseline."""
    print(f"\n{title}")
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        spread = f"[{1e3 * min(values):.1f}, {1e3 * max(values):.1f}]"
        ratio = f"  {median[baseline] / median[name]:5.2f} x {baseline}" if name != baseline else ""
        print(f"  {name:24s} {1e3 * median[name]:9.1f} ms {spread:20s}"
              f" {items / median[name]:10.1f} {unit}{ratio}", flush=True)  # fmt: skip


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the fraction of the true neighbours [Q, K] among those found [Q, K]."""
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
    """Return the ids [Q, K] of a LanceDB search without index, which compares all vectors."""
    found = table.search(queries if len(queries) > 1 else queries[0]).distance_type("dot").limit(K)
    columns = found.select(["id", "_distance"]).to_arrow()
    ids = columns["id"].to_numpy()
    if "query_index" in columns.column_names:
        ids = ids[np.argsort(columns["query_index"].to_numpy(), kind="stable")]
    return ids.reshape(len(queries), K)


def _new_files(folder: Path, modified: dict[Path, int]) -> list[Path]:
    """Return the files written since the last call; `modified` keeps their modification times."""
    now = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    new = [path for path, when in now.items() if modified.get(path) != when]
    modified.update(now)
    return new


def _open(name: str, path: Path, dim: int) -> Any:
    """Open the stored index of a contender."""
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
    """Return the bytes by which opening and one search raise the memory of this process."""
    query = normalised(np.ones((1, dim)))
    import hnswlib  # noqa: F401  (the libraries' code is not counted)
    import lancedb  # noqa: F401

    before = _process_memory()
    index = _open(name, path, dim)
    if name == "hnswlib":
        index.knn_query(query, K)
    elif name == "LanceDB":
        _lance_search(index, query)
    else:
        index.search(query, K)
    return _process_memory() - before


def _process_memory() -> int:
    """Return the resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _in_new_process(*arguments: str) -> int:
    """Return what a new process measures; this one keeps memory that it once allocated."""
    command = [sys.executable, "-m", "benchmarks.bank", *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _size(path: Path) -> int:
    """Return the bytes that a file or folder takes on the disk."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(512 * file.stat().st_blocks for file in files)


if __name__ == "__main__":
    typer.run(main)
