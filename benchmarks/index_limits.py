"""From how many keys `PrototypeIndex(index="auto")` searches a graph or lists: where they are faster than exact search.

Keys of 64 to 512 numbers lie on a manifold of 32 dimensions with noise, and queries near them. Exact search and the
graph (for ``dot``: lists), tuned to a recall of 0.99, answer single queries and batches in turn, in one process on one
thread. The limit of a metric and dimension is the least number of keys from which both take at most half the time: an
exact answer is worth that. `fewshot/search/limits.py` holds it, and ``--write`` regenerates the table there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import Parser
from index import make_data
from numpy.typing import NDArray
from protocol import facts, write

from fewshot import PrototypeIndex
from fewshot.search.similarity import METRICS, Metric
from fewshot.search.snapshot import Index

DIMENSIONS = (64, 256, 512)
SIZES = (10_000, 20_000, 40_000, 80_000)
N_SINGLE, N_BATCH, TURNS = 64, 512, 5


def measure(metric: Metric, d: int, n: int, seed: int) -> dict[str, Any]:
    """Return milliseconds for each query, exactly and approximately, one by one and in batches."""
    keys, queries = make_data(n, seed, d)
    kinds: tuple[Index, Index] = "exact", "ivf" if metric == "dot" else "hnsw"
    exact, approximate = (PrototypeIndex(metric, index).add(keys) for index in kinds)
    choice = approximate.build()
    took: dict[str, list[float]] = {"exact": [], "approximate": [], "exact, batch": [], "approximate, batch": []}
    for _ in range(TURNS):
        for name, index in (("exact", exact), ("approximate", approximate)):
            took[name].append(seconds(index, queries[:N_SINGLE], 1))
            took[f"{name}, batch"].append(seconds(index, queries[:N_BATCH], N_BATCH))
    times = {name: round(1000 * float(np.median(t)), 4) for name, t in took.items()}
    row = {"metric": metric, "d": d, "keys": n, "build, s": choice.seconds, "recall": choice.recall, **times}
    print(row, file=sys.stderr, flush=True)
    return row


def seconds(index: PrototypeIndex, queries: NDArray[np.float32], size: int) -> float:
    """Return the processor's seconds for each query, in batches of `size`."""
    start = time.process_time()
    for first in range(0, len(queries), size):
        index.search(queries[first : first + size])
    return (time.process_time() - start) / len(queries)


def limits(rows: list[dict[str, Any]]) -> dict[str, dict[int, int]]:
    """Return the most keys of exact search for each metric and dimension."""
    found: dict[str, dict[int, int]] = {}
    for metric in METRICS:
        for d in DIMENSIONS:
            mine = sorted(
                (row for row in rows if (row["metric"], row["d"]) == (metric, d)), key=lambda row: row["keys"]
            )
            slower = [row["keys"] for row in mine if not wins(row)]
            larger = [row["keys"] for row in mine if row["keys"] > max(slower, default=0)]
            found.setdefault(metric, {})[d] = min(larger, default=2 * mine[-1]["keys"]) if mine else 0
    return found


def wins(row: dict[str, Any]) -> bool:
    """Whether the approximate search takes at most half the time in both ways."""
    return all(2 * row[f"approximate{what}"] <= row[f"exact{what}"] for what in ("", ", batch"))


def table(rows: list[dict[str, Any]], found: dict[str, dict[int, int]]) -> str:
    """Return the results as Markdown."""
    names = ("metric", "d", "keys", "build, s", "recall", "exact", "approximate", "exact, batch", "approximate, batch")
    lines = ["Milliseconds for each query.", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows]
    return "\n".join([*lines, "", f"Limits: {found}", ""])


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("index_limits.py", __doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="seed of keys and queries (default: %(default)s)")
    parser.add_out("benchmarks/results/index_limits")
    parser.add_argument("--write", action="store_true", help="also write the limits to fewshot/search/limits.py")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(metric, d, n, options.seed) for metric in METRICS for d in DIMENSIONS for n in options.sizes]
    found = limits(rows)
    write(options.out, {**facts("index_limits.py", options.seed), "limits": found, "rows": rows}, table(rows, found))
    if options.write:
        path = Path(__file__).parents[1] / "fewshot" / "search" / "limits.py"
        head = path.read_text("utf-8").split("LIMITS = ")[0]
        lines = "".join(f'    "{metric}": {sizes},\n' for metric, sizes in found.items())
        path.write_text(f"{head}LIMITS = {{\n{lines}}}\n", "utf-8")


if __name__ == "__main__":
    main()
