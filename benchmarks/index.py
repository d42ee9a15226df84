"""Prototype search at 1e2 to 1e6 keys, compared with other ways: build, latency, throughput, recall, changes, memory.

Keys have 512 numbers and lie, like prototypes, on a manifold of 32 dimensions with noise. Queries are slightly moved
keys; recall is also measured for queries that are drawn as the keys are. Every contestant runs in a separate process on
one torch thread and answers the same queries: `PrototypeIndex` with whole keys, in half precision and in 8 bits, brute
force in numpy, FAISS's flat index, lists and graph, scikit-learn's neighbours, hnswlib and usearch (extra ``peers``).
Graphs and lists of others get the least effort that finds 99 % of the nearest key, and of the ten nearest, of both
kinds of queries; ours tunes itself. At a million keys the graphs of others take an hour to build on one thread, so the
results are written after each contestant. Recall is the share of the nearest key (and of the ten nearest keys) by
float64 that was found. Memory is the growth of the process by building, including its copy of the keys. Times are the
processor's, because other programs may run. The mixed load is 90 % queries and 10 % changes by four threads; the others
must not be changed while they are searched.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from arguments import Parser
from numpy.typing import NDArray
from protocol import facts, kibibytes, write

from fewshot import PrototypeIndex
from fewshot.errors import pip_install
from fewshot.search.packing import Precision
from fewshot.utils.malloc import give_back_memory

D, MANIFOLD, NOISE, MOVED = 512, 32, 0.05, 0.1
SIZES = (100, 1000, 10_000, 100_000, 1_000_000)
OURS: dict[str, Precision] = {
    "PrototypeIndex": "full",
    "PrototypeIndex float16": "float16",
    "PrototypeIndex int8": "int8",
}
CONTESTANTS = (*OURS, "numpy", "FAISS flat", "FAISS IVF", "FAISS HNSW", "scikit-learn", "hnswlib", "usearch")
#: Contestants of packages that the library does not need.
PEERS = ("hnswlib", "usearch")
#: The ratio to the matrix product is measured up to this many keys.
PRODUCT_LIMIT = 100_000
#: Efforts of other graphs (search width) and lists (lists read), and the recall that they must reach.
EFFORTS, RECALL = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024), 0.99
#: Seconds, threads and share of changes of the mixed load.
MIXED, WRITING = (3.0, 4), 0.1
N_SINGLE, N_BATCH, K = 200, 1024, 10
#: Least and most turns of search and product; turns end after two seconds.
TURNS = (7, 401)
#: Queries of each kind for which efforts of others are tuned.
N_TUNING = 256

Search = Callable[[NDArray[np.float32], int], NDArray[np.int64]]


def make_data(n: int, seed: int, d: int = D) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return keys (n, d) and queries that are moved keys."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(MANIFOLD, d)).astype(np.float32) / np.float32(MANIFOLD**0.5)
    keys = np.empty((n, d), np.float32)
    for start in range(0, n, 65536):
        part = keys[start : start + 65536]
        part[:] = rng.standard_normal((len(part), MANIFOLD), np.float32) @ basis
        part += NOISE * rng.standard_normal(part.shape, np.float32)
    rows = rng.choice(n, N_BATCH)
    return keys, keys[rows] + MOVED * rng.standard_normal((N_BATCH, d), np.float32)


def drawn_queries(n: int, seed: int, d: int) -> NDArray[np.float32]:
    """Return queries (n, d) that are drawn as the keys of `make_data` are."""
    basis = np.random.default_rng(seed).normal(size=(MANIFOLD, d)).astype(np.float32) / np.float32(MANIFOLD**0.5)
    rng = np.random.default_rng((seed, 1))
    drawn = rng.standard_normal((n, MANIFOLD), np.float32) @ basis
    return drawn + NOISE * rng.standard_normal((n, d), np.float32)


def build(name: str, keys: NDArray[np.float32]) -> tuple[Any, Any]:
    """Return ``search(queries, k)``, or ``search(queries, k, effort)`` where `tuned` must set it; and our index."""
    n, d = keys.shape
    if name in OURS:
        index = PrototypeIndex(keys=OURS[name]).add(keys)
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
    if name.startswith("FAISS"):
        return build_faiss(name, keys), None
    if name == "scikit-learn":
        from sklearn.neighbors import KNeighborsClassifier

        model = KNeighborsClassifier(1).fit(keys, np.arange(len(keys)))
        return lambda x, k: model.kneighbors(x, k, return_distance=False), None
    if name == "usearch":
        from usearch.index import Index

        other = Index(ndim=d, metric="l2sq", dtype="f32", connectivity=16, expansion_add=128)
        other.add(np.arange(n), keys, threads=1)

        def wide(x: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
            other.expansion_search = max(effort, k)
            return np.asarray(other.search(x, k, threads=1).keys, np.int64).reshape(len(x), -1)

        return wide, None
    import hnswlib

    graph = hnswlib.Index("l2", d)
    graph.init_index(n, ef_construction=200, M=16)
    graph.set_num_threads(1)
    graph.add_items(keys)

    def follow(x: NDArray[np.float32], k: int, effort: int) -> NDArray[np.int64]:
        graph.set_ef(max(effort, k))
        return graph.knn_query(x, k)[0].astype(np.int64)

    return follow, None


def build_faiss(name: str, keys: NDArray[np.float32]) -> Any:
    """Return the search of one of FAISS's indexes."""
    faiss = import_module("faiss")
    faiss.omp_set_num_threads(1)
    n, d = keys.shape
    if name == "FAISS flat":
        flat = faiss.IndexFlatL2(d)
        flat.add(keys)
        return lambda x, k: flat.search(x, k)[1]
    if name == "FAISS HNSW":
        graph = faiss.IndexHNSWFlat(d, 16)
        graph.hnsw.efConstruction = 200
        graph.add(keys)
        return lambda x, k, effort: graph.search(x, k, params=faiss.SearchParametersHNSW(efSearch=max(effort, k)))[1]
    n_lists = max(1, round(n**0.5))
    lists = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, n_lists)
    lists.cp.min_points_per_centroid, lists.cp.max_points_per_centroid = 1, 40
    lists.train(keys)
    lists.add(keys)
    return lambda x, k, effort: lists.search(x, k, params=faiss.SearchParametersIVF(nprobe=min(effort, n_lists)))[1]


def tuned(search: Any, keys: NDArray[np.float32], queries: NDArray[np.float32]) -> tuple[Search, dict[int, int]]:
    """Return a search with the least effort that reaches the recall for each k, and these efforts."""
    truth, efforts = true_neighbours(keys, queries, min(K, len(keys))), {}
    for k in (1, min(K, len(keys))):
        for effort in EFFORTS:
            share = shares(search(queries, k, effort), truth[:, :k])
            efforts[k] = effort
            if min(part.mean() for part in np.split(share, 2)) >= RECALL:
                break
    return lambda x, k: search(x, k, efforts[k]), efforts


def shares(found: NDArray[np.int64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share (q,) of the nearest keys (q, k) that was found."""
    return np.array([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)])


def work(name: str, n: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one contestant in this process."""
    seed, d = options.seed, options.dimensions
    torch.set_num_threads(options.threads)
    keys, queries = make_data(n, seed, d)
    give_back_memory()
    before = kibibytes("VmRSS")
    start = time.process_time()
    search, index = build(name, keys)
    built, efforts = time.process_time() - start, None
    give_back_memory()
    size = round((kibibytes("VmRSS") - before) / 1024)
    if name in ("FAISS IVF", "FAISS HNSW", "hnswlib", "usearch"):
        search, efforts = tuned(search, keys, np.r_[queries[-N_TUNING:], drawn_queries(N_TUNING, seed, d)])
    k = min(K, n)
    singles, tens = (single_latencies(search, queries, k) for k in (1, k))
    batch = throughput(search, queries, N_BATCH if n <= PRODUCT_LIMIT or index is not None else 64)
    row = {
        "what": name,
        "keys": n,
        "build, s": round(built, 3),
        "one query, ms (p50, p99)": [round(1000 * float(t), 4) for t in np.quantile(singles, [0.5, 0.99])],
        "ten neighbours, ms": round(1000 * float(np.median(tens)), 4),
        "queries a second, in batches": round(batch),
        "MiB": size,
    }
    some = 256 if n <= PRODUCT_LIMIT else 64
    row |= recalls(search, keys, queries[:some], "")
    row |= recalls(search, keys, drawn_queries(some, seed, d), ", drawn")
    if efforts:
        row["efforts"] = efforts
    if index is not None:
        row |= {"chosen": vars(index.build()), **changes(index, d, seed)}
        row["product / ours"] = product_by_search(index, keys, queries)
        row |= mixed_load(index, queries, seed)
    return row


def single_latencies(search: Search, queries: NDArray[np.float32], k: int) -> list[float]:
    """Return the seconds of each single query."""
    search(queries[:1], k)
    took = []
    for i in range(N_SINGLE):
        x = queries[i : i + 1]
        start = time.process_time()
        search(x, k)
        took.append(time.process_time() - start)
        if sum(took) > 20:
            break
    return took


def throughput(search: Search, queries: NDArray[np.float32], n: int) -> float:
    """Return queries per second, the best of three batches."""
    best = 0.0
    for _ in range(3):
        start = time.process_time()
        search(queries[:n], 1)
        best = max(best, n / (time.process_time() - start))
    return best


def recalls(search: Search, keys: NDArray[np.float32], queries: NDArray[np.float32], what: str) -> dict[str, float]:
    """Return recall@1 and recall@10 against float64."""
    k = min(K, len(keys))
    truth = np.concatenate([true_neighbours(keys, queries[i : i + 64], k) for i in range(0, len(queries), 64)])
    found = {1: search(queries, 1), 10: search(queries, k)}
    return {f"recall@{k}{what}": round(float(shares(x, truth[:, : x.shape[1]]).mean()), 4) for k, x in found.items()}


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


def changes(index: PrototypeIndex, d: int, seed: int) -> dict[str, Any]:
    """Return the median milliseconds to add and to remove one class."""
    rng, added, removed = np.random.default_rng(seed), [], []
    index.add(rng.standard_normal((1, d), np.float32), [10**9]).remove([10**9])  # sorts the labels once
    for i in range(100):
        key = rng.standard_normal((1, d), np.float32)
        start = time.process_time()
        index.add(key, [2 * 10**9 + i])
        added.append(time.process_time() - start)
    for i in range(100):
        start = time.process_time()
        index.remove([2 * 10**9 + i])
        removed.append(time.process_time() - start)
    return {f"{what}, ms": round(1000 * float(np.median(t)), 3) for what, t in (("add", added), ("remove", removed))}


def mixed_load(index: PrototypeIndex, queries: NDArray[np.float32], seed: int) -> dict[str, Any]:
    """Return operations a second, and the milliseconds of a query, while threads search and change the index."""
    took: list[float] = []
    n_changes, stop, (seconds, n_threads) = [0], time.perf_counter() + MIXED[0], MIXED

    def use(number: int) -> None:
        rng, label = np.random.default_rng((seed, number)), 3 * 10**9 + number * 10**6
        while time.perf_counter() < stop:
            x = queries[rng.integers(len(queries))][None]
            if rng.random() < WRITING:
                label += 1
                index.add(x, [label])
                n_changes[0] += 1
                continue
            start = time.perf_counter()
            index.search(x)
            took.append(time.perf_counter() - start)

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(use, range(n_threads)))
    p50, p99 = (round(1000 * float(t), 3) for t in np.quantile(took, [0.5, 0.99]))
    return {
        "mixed, operations a second": round((len(took) + n_changes[0]) / seconds),
        "mixed, ms (p50, p99)": [p50, p99],
    }


def product_by_search(index: PrototypeIndex, keys: NDArray[np.float32], queries: NDArray[np.float32]) -> float | None:
    """Return the time of the bare matrix product divided by that of exact batch search at k=1; the median of turns."""
    if len(keys) > PRODUCT_LIMIT:
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
    command += ["--dimensions", str(options.dimensions)]
    limits = {f"{library}_NUM_THREADS": str(options.threads) for library in ("OMP", "OPENBLAS", "MKL")}
    environment = {**os.environ, **limits}
    run = subprocess.run(
        [*command, "--threads", str(options.threads)], capture_output=True, text=True, check=False, env=environment
    )
    if run.returncode:
        raise RuntimeError(f"{name} at {n} keys: {run.stderr.strip().splitlines()[-1]}")
    row: dict[str, Any] = json.loads(run.stdout)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| keys | | build, s | one query, ms (p50, p99) | ten neighbours, ms | queries a second | product / ours "
        "| recall@1 | recall@10 | drawn: @1, @10 | add, remove, ms | mixed: operations a second, ms (p50, p99) | MiB |",
        "|---" * 13 + "|",
    ]
    for row in rows:
        p50, p99 = row["one query, ms (p50, p99)"]
        change = f"{row['add, ms']:.2f}, {row['remove, ms']:.2f}" if "add, ms" in row else ""
        product = f"{row['product / ours']:.2f}" if row.get("product / ours") else ""
        chosen = f" ({row['chosen']['kind']})" if "chosen" in row else ""
        load = row.get("mixed, ms (p50, p99)")
        mixed = f"{row['mixed, operations a second']}, {load[0]:.2f}, {load[1]:.2f}" if load else ""
        lines.append(
            f"| {row['keys']} | {row['what']}{chosen} | {row['build, s']:.2f} | {p50:.3f}, {p99:.3f} | "
            f"{row['ten neighbours, ms']:.3f} | {row['queries a second, in batches']} | {product} | "
            f"{row['recall@1']:.3f} | {row['recall@10']:.3f} | "
            f"{row['recall@1, drawn']:.3f}, {row['recall@10, drawn']:.3f} | {change} | {mixed} | {row['MiB']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("index.py", __doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=list(SIZES), metavar="N", help="keys (default: %(default)s)"
    )
    parser.add_argument(
        "--dimensions", type=int, default=D, metavar="N", help="numbers of a key (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=CONTESTANTS, metavar="NAME")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="seed of keys and queries (default: %(default)s)")
    parser.add_out("benchmarks/results/index")
    parser.add_argument("--worker", metavar="CONTESTANT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.worker, options.sizes[0], options)))
        return
    missing = [name for name in PEERS if name in options.only and not find_spec(name)]
    if missing:
        print(f"left out, not installed: {', '.join(missing)}; run: {pip_install('peers')}", file=sys.stderr)
    names = [name for name in options.only if name not in missing]
    about = facts("index.py", options.seed, packages=[name for name in PEERS if name in names])
    about |= {"worker threads": options.threads, "dimensions": options.dimensions}
    rows: list[dict[str, Any]] = []
    for n in options.sizes:
        for name in names:
            rows.append(measure(name, n, options))
            write(options.out, {**about, "rows": rows}, table(rows))


if __name__ == "__main__":
    main()
