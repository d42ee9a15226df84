"""Seconds to embed images on an idle machine and next to busy processes, by how OpenMP's threads wait.

"asleep" is the setting of the commands and their workers; "OpenMP's own" is what a program gets by default. Contestants
take turns. Each runs in a separate process, which embeds once before it is timed; figures are medians.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from arguments import Parser
from protocol import facts, write

CHILD = """
import os, sys, time
from fewshot.utils.threads import wait_passively
if sys.argv[1] == "asleep":
    wait_passively()
import numpy as np
from fewshot import Embedder
images = np.random.default_rng(0).integers(0, 256, (int(sys.argv[2]), 224, 224, 3), np.uint8)
embedder = Embedder(progress=False)
embedder.transform(images[:16])
start = time.perf_counter()
embedder.transform(images)
print(time.perf_counter() - start)
"""
WAYS = ("OpenMP's own", "asleep")
SETTINGS = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Keep `n` processes busy for the length of the block."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def seconds(way: str, images: int) -> float:
    """Return the seconds to embed in a separate process."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-c", CHILD, way, str(images)]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def measure(images: int, rounds: int, others: list[int]) -> list[dict[str, Any]]:
    """Return one row per number of busy processes."""
    took: dict[tuple[int, str], list[float]] = {(n, way): [] for n in others for way in WAYS}
    for _ in range(rounds):
        for n, way in took:
            with busy(n):
                took[n, way].append(round(seconds(way, images), 3))
    return [{"busy processes": n, **{way: took[n, way] for way in WAYS}} for n in others]


def table(rows: list[dict[str, Any]], images: int) -> str:
    """Return the figures as Markdown."""
    heads = [f"{images} images, s: busy processes", *WAYS, "times faster"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        own, asleep = (median(row[way]) for way in WAYS)
        lines.append(f"| {row['busy processes']} | {own:.2f} | {asleep:.2f} | {own / asleep:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("waiting.py", __doc__)
    parser.add_out("benchmarks/results/waiting")
    parser.add_argument("--images", type=int, default=96, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--others", type=int, nargs="+", default=[0, 1, os.cpu_count() or 1], metavar="N", help="busy processes"
    )
    options = parser.parse_args()
    rows = measure(options.images, options.rounds, sorted(set(options.others)))
    write(
        options.out,
        {**facts("waiting.py", 0), "load average before": os.getloadavg(), "images": options.images, "rows": rows},
        table(rows, options.images),
    )


if __name__ == "__main__":
    main()
