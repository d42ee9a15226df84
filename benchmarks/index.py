"""Prototype search at 1e2 to 1e6 keys, compared with other ways: build, latency, throughput, recall, changes, memory.

Keys have 512 numbers and lie, like prototypes, on a manifold of 32 dimensions with noise; queries are slightly moved
keys. Every contestant runs in a separate process on one torch thread and answers the same queries: `PrototypeIndex`,
brute force in numpy, FAISS's flat index, and up to 1e5 keys scikit-learn's neighbours and hnswlib (extra ``peers``).
Recall is the share of the nearest key (and of the ten nearest keys) by float64 that was found. Memory is the growth of
the process by building, including its copy of the keys.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from protocol import facts, kibibytes, write

from fewshot import PrototypeIndex

D, MANIFOLD, NOISE, MOVED = 512, 32, 0.05, 0.1
SIZES = (100, 1000, 10_000, 100_000, 1_000_000)
CONTESTANTS = ("PrototypeIndex", "numpy", "FAISS flat", "scikit-learn", "hnswlib")
#: scikit-learn and hnswlib are left out above this many keys.
PEERS_LIMIT = 100_000
N_SINGLE, N_BATCH, K = 200, 1024, 10
#: Least and most turns of search and product; turns end after two seconds.
TURNS = (7, 401)

Search = Callable[[NDArray[np.float32], int], NDArray[np.int64]]


def make_data(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return keys (n, d) and queries."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(MANIFOLD, D)).astype(np.float32) / np.float32(MANIFOLD**0.5)
    keys = np.empty((n, D), np.float32)
    for start in range(0, n, 65536):
        part = keys[start : start + 65536]
        part[:] = rng.standard_normal((len(part), MANIFOLD), np.float32) @ basis
        part += NOISE * rng.standard_normal(part.shape, np.float32)
    rows = rng.choice(n, N_BATCH)
    return keys, keys[rows] + MOVED * rng.standard_normal((N_BATCH, D), np.float32)


def build(name: str, keys: NDArray[np.float32]) -> tuple[Search, Any]:
    """Return a search function, and the index if it is ours."""
    if name == "PrototypeIndex":
        index = PrototypeIndex().add(keys)
        index.build()
        return lambda x, k: index.search(x, k)[0], index
    if name == "numpy":
        squares = np.einsum("ij,ij->i", keys, keys)

        def brute(x: NDArray[np.float32], k: int) -> NDArray[np.int64]:
            apart = squares - 2 * (x @ keys.T)
            if k == 1:
                return apart.argmin(1)[:, None]
            near = np.argpartition(apart, k, axis=1)[:, :k] if k < len(keys) else np.arange(len(keys))[None]
            order = np.take_along_axis(apart, near, 1).argsort(1)
            return np.take_along_axis(near, order, 1)

        return brute, None
    if name == "FAISS flat":
        import faiss

        faiss.omp_set_num_threads(1)
        flat = faiss.IndexFlatL2(D)
        flat.add(keys)
        return lambda x, k: flat.search(x, k)[1], None
    if name == "scikit-learn":
        from sklearn.neighbors import KNeighborsClassifier

        model = KNeighborsClassifier(1).fit(keys, np.arange(len(keys)))
        return lambda x, k: model.kneighbors(x, k, return_distance=False), None
    import hnswlib

    graph = hnswlib.Index("l2", D)
    graph.init_index(len(keys), ef_construction=200, M=16)
    graph.set_num_threads(1)
    graph.add_items(keys)
    graph.set_ef(64)
    return lambda x, k: graph.knn_query(x, k)[0].astype(np.int64), None


def work(name: str, n: int, seed: int, threads: int) -> dict[str, Any]:
    """Measure one contestant in this process."""
    torch.set_num_threads(threads)
    keys, queries = make_data(n, seed)
    before = kibibytes("VmRSS")
    start = time.perf_counter()
    search, index = build(name, keys)
    built = time.perf_counter() - start
    singles = single_latencies(search, queries)
    batch = throughput(search, queries, N_BATCH if n <= PEERS_LIMIT or index is not None else 64)
    row = {
        "what": name,
        "keys": n,
        "build, s": round(built, 3),
        "one query, ms (p50, p99)": [round(1000 * float(t), 4) for t in np.quantile(singles, [0.5, 0.99])],
        "queries a second, in batches": round(batch),
        "MiB": round((kibibytes("VmRSS") - before) / 1024),
    }
    row |= recalls(search, keys, queries[: 256 if n <= PEERS_LIMIT else 64])
    if index is not None:
        row |= {"chosen": vars(index.build()), **changes(index, seed)}
        row["product / ours"] = product_by_search(index, keys, queries)
    return row


def single_latencies(search: Search, queries: NDArray[np.float32]) -> list[float]:
    """Return the seconds of each single query."""
    search(queries[:1], 1)
    took = []
    for i in range(N_SINGLE):
        x = queries[i : i + 1]
        start = time.perf_counter()
        search(x, 1)
        took.append(time.perf_counter() - start)
        if sum(took) > 20:
            break
    return took


def throughput(search: Search, queries: NDArray[np.float32], n: int) -> float:
    """Return queries per second, the best of three batches."""
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        search(queries[:n], 1)
        best = max(best, n / (time.perf_counter() - start))
    return best


def recalls(search: Search, keys: NDArray[np.float32], queries: NDArray[np.float32]) -> dict[str, float]:
    """Return recall@1 and recall@10 against float64."""
    k = min(K, len(keys))
    truth = np.concatenate([true_neighbours(keys, queries[i : i + 16], k) for i in range(0, len(queries), 16)])
    found = search(queries, k)
    ten = np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
    return {"recall@1": round(float((found[:, 0] == truth[:, 0]).mean()), 4), "recall@10": round(float(ten), 4)}


def true_neighbours(keys: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the nearest keys by float64, computed over blocks of keys."""
    best, places = np.full((len(queries), 0), np.inf), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(keys), 65536):
        part = keys[start : start + 65536].astype(np.float64)
        x = queries.astype(np.float64)
        apart = (part**2).sum(1) - 2 * x @ part.T
        best = np.concatenate([best, apart], 1)
        places = np.concatenate([places, np.broadcast_to(np.arange(start, start + len(part)), apart.shape)], 1)
        order = np.argsort(best, 1, kind="stable")[:, :k]
        best, places = np.take_along_axis(best, order, 1), np.take_along_axis(places, order, 1)
    return places


def changes(index: PrototypeIndex, seed: int) -> dict[str, Any]:
    """Return the median milliseconds to add and to remove one class."""
    rng, added, removed = np.random.default_rng(seed), [], []
    index.add(rng.standard_normal((1, D), np.float32), [10**9]).remove([10**9])  # sorts the labels once
    for i in range(100):
        key = rng.standard_normal((1, D), np.float32)
        start = time.perf_counter()
        index.add(key, [2 * 10**9 + i])
        added.append(time.perf_counter() - start)
    for i in range(100):
        start = time.perf_counter()
        index.remove([2 * 10**9 + i])
        removed.append(time.perf_counter() - start)
    return {f"{what}, ms": round(1000 * float(np.median(t)), 3) for what, t in (("add", added), ("remove", removed))}


def product_by_search(index: PrototypeIndex, keys: NDArray[np.float32], queries: NDArray[np.float32]) -> float | None:
    """Return the time of the bare matrix product divided by that of exact batch search at k=1; the median of turns."""
    if len(keys) > PEERS_LIMIT:
        return None
    index.compact()
    x, y = torch.from_numpy(queries), torch.from_numpy(keys).T.contiguous()
    ratios: list[float] = []
    began = time.perf_counter()
    while len(ratios) < TURNS[0] or (len(ratios) < TURNS[1] and time.perf_counter() - began < 2):
        start = time.perf_counter()
        x @ y
        bare = time.perf_counter() - start
        start = time.perf_counter()
        index.search(queries, 1)
        ratios.append(bare / (time.perf_counter() - start))
    return round(float(np.median(ratios)), 3)


def measure(name: str, n: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one contestant in a separate process."""
    command = [sys.executable, __file__, "--worker", name, "--sizes", str(n), "--seed", str(options.seed)]
    limits = {f"{library}_NUM_THREADS": str(options.threads) for library in ("OMP", "OPENBLAS", "MKL")}
    environment = {**os.environ, **limits}
    run = subprocess.run(
        [*command, "--threads", str(options.threads)], capture_output=True, text=True, check=False, env=environment
    )
    if run.returncode:
        raise RuntimeError(f"{name} at {n} keys: {run.stderr.strip().splitlines()[-1]}")
    row: dict[str, Any] = json.loads(run.stdout)
    print(row, file=sys.stderr, flush=True)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| keys | | build, s | one query, ms (p50, p99) | queries a second | product / ours | recall@1 | recall@10 "
        "| add, remove, ms | MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        p50, p99 = row["one query, ms (p50, p99)"]
        change = f"{row['add, ms']:.2f}, {row['remove, ms']:.2f}" if "add, ms" in row else ""
        product = f"{row['product / ours']:.2f}" if row.get("product / ours") else ""
        chosen = f" ({row['chosen']['kind']})" if "chosen" in row else ""
        lines.append(
            f"| {row['keys']} | {row['what']}{chosen} | {row['build, s']:.2f} | {p50:.3f}, {p99:.3f} | "
            f"{row['queries a second, in batches']} | {product} | {row['recall@1']:.3f} | {row['recall@10']:.3f} | "
            f"{change} | {row['MiB']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(prog="index.py", description=__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=list(SIZES), metavar="N", help="keys (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="seed of keys and queries (default: %(default)s)")
    parser.add_argument("--out", default="benchmarks/results/index", metavar="NAME", help="NAME.json and NAME.md")
    parser.add_argument("--worker", metavar="CONTESTANT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.worker, options.sizes[0], options.seed, options.threads)))
        return
    names = [name for name in CONTESTANTS if name != "hnswlib" or find_spec("hnswlib")]
    if "hnswlib" not in names:
        print("hnswlib is not installed and is left out; run: pip install 'fewshot[peers]'", file=sys.stderr)
    rows = [
        measure(name, n, options)
        for n in options.sizes
        for name in names
        if n <= PEERS_LIMIT or name in CONTESTANTS[:3]
    ]
    results = {**facts("index.py", options.seed), "worker threads": options.threads, "dimensions": D, "rows": rows}
    write(options.out, results, table(rows))


if __name__ == "__main__":
    main()
