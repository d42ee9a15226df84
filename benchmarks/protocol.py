"""What the benchmarks share: cells of way and shot, test episodes and their hash, tables, result files."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Sampler

from fewshot import EpisodeSampler, Learner, evaluate
from fewshot.episodes.evaluate import EvalResult
from fewshot.persistence.files import write_text
from fewshot.persistence.provenance import manifest
from fewshot.utils.text import signed

#: Queries per class, and the number and seed of the episodes, which are the same for every network.
N_QUERY, N_EPISODES, SEED = 15, 1000, 0
#: Pairs (way, shot).
Cells = Sequence[tuple[int, int]]


def measure(
    learner: str | Learner, embeddings: NDArray[Any], labels: ArrayLike, cells: Cells, n_episodes: int = N_EPISODES
) -> list[EvalResult]:
    """Return the result of each cell."""
    draw = partial(evaluate, learner, embeddings, labels, n_query=N_QUERY, n_episodes=n_episodes, seed=SEED)
    return [draw(n_way=way, n_shot=shot) for way, shot in cells]


def figures(results: Sequence[EvalResult], cells: Cells) -> list[dict[str, Any]]:
    """Return the figures of each cell, in %."""
    return [
        {"way": way, "shot": shot, "accuracy": round(100 * r.mean, 3), "ci95": round(100 * r.ci95, 3)}
        for (way, shot), r in zip(cells, results, strict=True)
    ]


def episodes(labels: ArrayLike, cells: Cells, n_episodes: int = N_EPISODES) -> dict[str, Any]:
    """Return sizes, seed and the SHA-256 of all rows of the episodes."""
    found = hashlib.sha256()
    for way, shot in cells:
        sampler = EpisodeSampler(labels, way, shot, N_QUERY, seed=SEED)
        for i in range(n_episodes):
            found.update(sampler[i].support.tobytes() + sampler[i].query.tobytes())
    return {"sha256": found.hexdigest(), "n": n_episodes, "n_query": N_QUERY, "seed": SEED}


def as_results(rows: Sequence[dict[str, Any]], n_episodes: int = N_EPISODES) -> dict[str, Any]:
    """Return rows, each with the figures of its ``cells``, in the schema of the page of all results."""
    made = [
        {
            "dataset": row["dataset"],
            "split": "test",
            "method": row["method"],
            "backbone": row["backbone"],
            "n_way": cell["way"],
            "n_shot": cell["shot"],
            "n_query": N_QUERY,
            "n_episodes": n_episodes,
            "accuracy": round(cell["accuracy"] / 100, 5),
            "ci95": round(cell["ci95"] / 100, 5),
            "external": row["external"],
            "transductive": False,
            "supposes_balance": False,
        }
        for row in rows
        for cell in row["cells"]
    ]
    return {"schema": "fewshot-results-1", "results": made}


def head(title: str, cells: Cells) -> list[str]:
    """Return the first lines of a table in Markdown."""
    columns = " | ".join(f"{way}-way {shot}-shot" for way, shot in cells)
    return [f"| {title} | {columns} |", "|---|" + "---|" * len(cells)]


def line(name: str, found: Sequence[dict[str, Any]], sign: str = "") -> str:
    """Return a table line of figures with their intervals."""
    return f"| {name} | " + " | ".join(f"{_figure(c['accuracy'], sign)} ± {c['ci95']:.2f}" for c in found) + " |"


def _figure(value: float, sign: str) -> str:
    return signed(value, 2) if sign else f"{value:.2f}"


def published(name: str, values: Sequence[float]) -> str:
    """Return a table line of published figures."""
    return f"| {name}, published | " + " | ".join(str(value) for value in values) + " |"


def over_seeds(name: str, rows: Sequence[Sequence[dict[str, Any]]], sign: str = "") -> list[str]:
    """Return a table line with mean and range over seeds; no line for a single seed."""
    if len(rows) < 2:
        return []
    columns = [[cell["accuracy"] for cell in column] for column in zip(*rows, strict=True)]
    shown = " | ".join("{} ({} to {})".format(*(_figure(f(c), sign) for f in (mean, min, max))) for c in columns)
    return [f"| {name}, mean of {len(rows)} seeds (range) | {shown} |"]


def facts(script: str, seed: int, device: str = "cpu", packages: Sequence[str] = ()) -> dict[str, Any]:
    """Return the manifest of this run for a result file, with the name of the device and versions of more packages."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    found = manifest(f"python benchmarks/{script} {shlex.join(sys.argv[1:])}".strip(), seed, packages)
    return {"manifest": {**found, "device": name}}


def write(out: str, results: dict[str, Any], table: str) -> None:
    """Write NAME.json and NAME.md, and print the table."""
    write_text(f"{out}.json", json.dumps(results, indent=1) + "\n")
    write_text(f"{out}.md", table)
    print(table)


def kibibytes(what: str) -> int:
    """Return memory of this process as Linux counts it: ``VmRSS`` is the current, ``VmHWM`` the peak."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0])


def restore_sampler_init() -> None:
    """Give torch's `Sampler` the constructor that newer versions dropped and easyfsl still calls."""
    if Sampler.__init__ is object.__init__:
        Sampler.__init__ = lambda self, data_source=None: None  # type: ignore[method-assign, misc]
