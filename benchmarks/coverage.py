"""How well sets of classes keep their promise, and how large they are.

On draws of each data set, sets are promised to hold the right class with a coverage of 80, 90 and 95 %, from the
support alone (each image left out) or from five held-out images a class, and the other images are asked. A draw counts
as right if the measured coverage lies in its binomial interval, given how many images the promise rests on and how many
were asked. Sets by the probability are compared with those by other scores at the same promise: the sum of the
probabilities of a class and those likelier (APS, without drawing lots), and that sum with a penalty for more than five
classes (RAPS). The power by which a miss counts less was chosen on CIFAR-FS validation classes, Omniglot background and
glyphs; the other data only report.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from arguments import Parser
from defaults import draw, room
from numpy.typing import NDArray
from protocol import facts, write
from samples import REPORT, Sample, add_options, samples

from fewshot import DiscriminantLearner
from fewshot.classifiers.conformal import LEARNING, least_kept, n_needed

SHOTS, DRAWS, COVERAGES, HELD_OUT = (1, 2, 5, 20), {0: 20, 5: 100}, (0.8, 0.9, 0.95), 5
Floats = NDArray[np.float64]


def scores(logs: Floats) -> dict[str, Floats]:
    """Return scores of each class (n, n_way), higher for those that come first into a set."""
    order = np.argsort(-logs, 1, kind="stable")
    share = np.take_along_axis(np.exp(logs), order, 1)
    likelier, place = np.empty_like(logs), np.empty_like(logs)
    np.put_along_axis(likelier, order, share.cumsum(1), 1)
    np.put_along_axis(place, order, np.broadcast_to(np.arange(1.0, logs.shape[1] + 1), logs.shape), 1)
    return {"probability": logs, "APS": -likelier, "RAPS": -likelier - 0.01 * np.maximum(place - 5, 0)}


@torch.inference_mode()
def once(sample: Sample, way: int, shots: int, seed: int, i: int) -> tuple[dict[str, Any], int, NDArray[np.int64]]:
    """Return for each score the values of the right class, their weights, and those of the queries, of one draw.

    With them come the number of queries, and their classes.
    """
    support, labels, queries, truth = draw(sample, way, shots, seed, i)
    learner, X = DiscriminantLearner(power=sample.power).double().eval(), torch.from_numpy(sample.X).double()
    y, n_way = torch.from_numpy(labels), int(labels.max()) + 1
    asked = learner(X[support], y, X[queries], n_way).log_softmax(-1).numpy()
    if shots > 1:
        left = learner.leave_out(X[support], y, n_way)
        own, logs = labels[left.rows.numpy()], left.logits.log_softmax(-1).numpy()
        weight = (left.n_taught / shots).numpy() ** LEARNING
    else:
        rank = np.arange(len(truth)) - np.searchsorted(truth, truth)  # draws are in the order of the classes
        held = rank < min(HELD_OUT, np.bincount(truth).min() - 1)
        own, logs, weight = truth[held], asked[held], np.ones(held.sum())
        asked, truth = asked[~held], truth[~held]
    found = {
        name: (values[np.arange(len(own)), own], weight, of_queries)
        for (name, values), of_queries in zip(scores(logs).items(), scores(asked).values(), strict=True)
    }
    return found, len(truth), truth


def measure(sample: Sample, way: int, shots: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the figures of one data set, way and number of shots, one row a coverage."""
    n = max(2, DRAWS[way] // (10 if options.quick else 1))
    draws, cells = [once(sample, way, shots, options.seed, i) for i in range(n)], []
    for coverage in COVERAGES:
        rows: dict[str, list[Any]] = {name: [] for name in draws[0][0]}
        for found, asked, truth in draws:
            for name, (own, weight, values) in found.items():
                if len(own) >= n_needed(coverage):
                    held = values >= least_kept(own, weight, coverage) - 1e-9
                    half = 1.96 * np.sqrt(coverage * (1 - coverage) * (1 / len(own) + 1 / asked))
                    kept = held[np.arange(asked), truth].mean()
                    inside = abs(kept - coverage) <= half
                    rows[name].append((kept, inside, held.sum(1).mean(), (~held.any(1)).mean(), half))
        if not rows["probability"]:
            continue  # too few images to promise it
        kept, inside, size, empty, half = np.mean(rows["probability"], 0)
        cells.append(
            {
                "data": sample.name, "role": sample.role, "way": way, "shots": shots, "draws": n,
                "from": "support" if shots > 1 else "held out", "promised": 100 * coverage,
                "kept": round(100 * kept, 1), "half interval": round(100 * half, 1),
                "in interval": round(100 * inside, 1), "classes": round(size, 2),
                "empty": round(100 * empty, 1),
                **{f"classes, {name}": round(np.mean(rows[name], 0)[2], 2) for name in rows if name != "probability"},
            }
        )  # fmt: skip
        print(json.dumps(cells[-1]), flush=True)
    return cells


def table(cells: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    head = list(cells[0])
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join('all' if k == 'way' and not v else str(v) for k, v in cell.items())} |" for cell in cells]
    for role in dict.fromkeys(cell["role"] for cell in cells):
        own = [cell for cell in cells if cell["role"] == role]
        off = np.array([cell["kept"] - cell["promised"] for cell in own])
        in_draws = np.mean([cell["in interval"] for cell in own])
        n_inside = (abs(off) <= [cell["half interval"] for cell in own]).sum()
        lines += [
            "",
            f"{role}: {in_draws:.1f} % of the draws in the interval, and the mean of {n_inside} of {len(own)} cells; "
            f"kept minus promised {off.min():.1f} to {off.max():.1f} points, {off.mean():.1f} on the mean.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = Parser("coverage.py", __doc__)
    add_options(parser, "coverage", text=False)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = [
        cell
        for sample in sorted(samples(options, styles=()), key=lambda sample: sample.role == REPORT)
        for way in DRAWS
        for shots in SHOTS
        if (few := min(shots, room(sample))) > SHOTS[-2] or few == shots
        for cell in measure(sample, way, few, options)
    ]
    results = {**facts("coverage.py", options.seed), "backbone": options.backbone, "power": LEARNING, "cells": cells}
    write(options.out, results, table(cells))


if __name__ == "__main__":
    main()
