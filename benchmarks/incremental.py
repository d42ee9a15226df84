"""The time to learn one more class when ten classes are known, and when ten thousand are; bounds of the default.

Each class has five support embeddings of 512 numbers, on a manifold of 32 dimensions with noise. A classifier learns
one class after another with `partial_fit`. At the end it is compared with a classifier that learned all classes at
once: their sums, and their answers to one query per class. The same prototypes are added one by one to a
`PrototypeIndex`. One torch thread.

Then the default learner, which keeps its support, learns embeddings of 1280 numbers, up to 20,000: CPU time of one
thread, and how far the peak memory of the process rises above what it holds with the data. Each size has its own
process; ``--bounds`` measures this part alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from protocol import facts, kibibytes, write

from fewshot import DiscriminantClassifier, PrototypeIndex, PrototypicalClassifier

D, MANIFOLD, SHOTS = 512, 32, 5
#: Embedding length, classes and shots of the default learner.
WIDE, SIZES = 1280, ((5, 5), (100, 5), (1000, 5), (100, 200))
#: Times of the default learner are the least of this many.
REPEATS = 3
#: A time is the median over this many classes.
WINDOW = 25


def make_data(
    n_classes: int, seed: int, d: int = D, shots: int = SHOTS
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return support (n_classes, shots, d) and one query per class."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(MANIFOLD, d)) / MANIFOLD**0.5
    centres = rng.normal(size=(n_classes, 1, MANIFOLD)) @ basis
    images = centres + 0.3 * rng.normal(size=(n_classes, shots + 1, MANIFOLD)) @ basis
    images = (images + 0.05 * rng.normal(size=images.shape)).astype(np.float32)
    return images[:, :shots], images[:, shots]


def grow(support: NDArray[np.float32], order: NDArray[np.int64]) -> tuple[PrototypicalClassifier, list[float]]:
    """Learn one class after another; return the classifier and the seconds per class."""
    model, took = PrototypicalClassifier("cosine", 0.05), []
    for label in order.tolist():
        start = time.perf_counter()
        model.partial_fit(support[label], [label] * SHOTS)
        took.append(time.perf_counter() - start)
    return model, took


def fill(prototypes: NDArray[np.float32]) -> list[float]:
    """Add one prototype after another to an index; return the seconds per prototype."""
    index, took = PrototypeIndex("cosine"), []
    for label, key in enumerate(prototypes):
        start = time.perf_counter()
        index.add(key[None], [label])
        took.append(time.perf_counter() - start)
    return took


def measure(n_classes: int, seed: int) -> dict[str, Any]:
    """Return the figures."""
    support, queries = make_data(n_classes, seed)
    order = np.random.default_rng(seed).permutation(n_classes)  # new labels fall between known ones
    model, took = grow(support, order)
    at_once = PrototypicalClassifier("cosine", 0.05).fit(support.reshape(-1, D), np.arange(n_classes).repeat(SHOTS))
    sums, expected = (m.model_.statistics.sums["x"].numpy() for m in (model, at_once))
    scale = np.abs(support.astype(np.float64)).sum(1)
    added = fill(support.mean(1))
    counts = [n for n in (10, 100, 1000, 10_000, 100_000) if n <= n_classes]

    def at(seconds: list[float], n: int) -> float:
        return round(1000 * float(np.median(seconds[max(0, n - WINDOW) : n])), 3)

    return {
        "classes": n_classes,
        "rows": [{"classes": n, "learn one, ms": at(took, n), "add to an index, ms": at(added, n)} for n in counts],
        "all, s": round(sum(took), 1),
        "largest difference of sums, by the sum of absolute values": float((np.abs(sums - expected) / scale).max()),
        "same answers": float((model.predict(queries) == at_once.predict(queries)).mean()),
        "accuracy": float((model.predict(queries) == np.arange(n_classes)).mean()),
    }


def bounds(n_classes: int, shots: int, seed: int) -> dict[str, Any]:
    """Return time and memory of the default learner."""
    support, queries = make_data(n_classes, seed, WIDE, shots)
    X, y = support.reshape(-1, WIDE), np.arange(n_classes).repeat(shots)
    before = kibibytes("VmRSS")
    model = DiscriminantClassifier().fit(X, y)
    fit = _least(lambda: DiscriminantClassifier().fit(X, y))
    grow = _least(lambda: model.partial_fit(queries[:1], [0]))
    model.predict(queries[:1])
    return {
        "classes": n_classes,
        "shots": shots,
        "fit, s": fit,
        "partial_fit of one row, s": grow,
        "predict one, ms": round(1000 * _least(lambda: model.predict(queries[:1])), 3),
        "MiB of the rows": round(X.nbytes / 2**20, 1),
        "MiB above": round((kibibytes("VmHWM") - before) / 1024, 1),
        "accuracy": float((model.predict(queries) == np.arange(n_classes)).mean()),
    }


def _least(act: Callable[[], Any]) -> float:
    """Return the least CPU time of an act, in seconds."""
    took = []
    for _ in range(REPEATS):
        start = time.process_time()
        act()
        took.append(time.process_time() - start)
    return round(min(took), 5)


def apart(n_classes: int, shots: int, seed: int) -> dict[str, Any]:
    """Measure the bounds of one size in a process of its own."""
    command = [sys.executable, __file__, "--seed", str(seed), "--worker", str(n_classes), str(shots)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps(found), flush=True)
    return found


def table_of_bounds(rows: list[dict[str, Any]]) -> str:
    """Return the bounds as Markdown."""
    titles = ("default learner, classes x shots", "fit, s", "partial_fit of one row, s", "predict one, ms", "MiB")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    lines += [
        f"| {r['classes']} x {r['shots']} | {r['fit, s']:.3f} | {r['partial_fit of one row, s']:.3f} "
        f"| {r['predict one, ms']:.2f} | {r['MiB above']:.0f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| classes known | learn one more from 5 embeddings, ms | add its prototype to an index, ms |",
        "|---|---|---|",
    ]
    lines += [
        f"| {r['classes']} | {r['learn one, ms']:.2f} | {r['add to an index, ms']:.3f} |" for r in results["rows"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(prog="incremental.py", description=__doc__)
    parser.add_argument("--classes", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="seed of the embeddings (default: %(default)s)")
    parser.add_argument("--out", default="benchmarks/results/incremental", metavar="NAME", help="NAME.json, NAME.md")
    parser.add_argument("--bounds", action="store_true", help="the default learner alone, to NAME_bounds")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        n_classes, shots = options.worker
        print(json.dumps(bounds(n_classes, shots, options.seed)))
        return
    if not options.bounds:
        results = {**facts("incremental.py", options.seed), **measure(options.classes, options.seed)}
        write(options.out, results, table(results))
        print({k: v for k, v in results.items() if k not in ("manifest", "rows")})
    rows = [apart(*size, options.seed) for size in SIZES if size[0] <= options.classes]
    write(f"{options.out}_bounds", {**facts("incremental.py", options.seed), "rows": rows}, table_of_bounds(rows))


if __name__ == "__main__":
    main()
