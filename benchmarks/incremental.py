"""The time to learn one more class when ten classes are known, and when ten thousand are.

Each class has five support embeddings of 512 numbers, on a manifold of 32 dimensions with noise. A classifier learns
one class after another with `partial_fit`. At the end it is compared with a classifier that learned all classes at
once: their sums, and their answers to one query per class. The same prototypes are added one by one to a
`PrototypeIndex`. One torch thread.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from protocol import facts, write

from fewshot import PrototypeIndex, PrototypicalClassifier

D, MANIFOLD, SHOTS = 512, 32, 5
#: A time is the median over this many classes.
WINDOW = 25


def make_data(n_classes: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return support (n_classes, shots, d) and one query per class."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(MANIFOLD, D)) / MANIFOLD**0.5
    centres = rng.normal(size=(n_classes, 1, MANIFOLD)) @ basis
    images = centres + 0.3 * rng.normal(size=(n_classes, SHOTS + 1, MANIFOLD)) @ basis
    images = (images + 0.05 * rng.normal(size=images.shape)).astype(np.float32)
    return images[:, :SHOTS], images[:, SHOTS]


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
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {**facts("incremental.py", options.seed), **measure(options.classes, options.seed)}
    write(options.out, results, table(results))
    print({k: v for k, v in results.items() if k not in ("manifest", "rows")})


if __name__ == "__main__":
    main()
