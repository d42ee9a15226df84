"""How well the accuracy that a model expects of itself agrees with what it gives.

On draws of each data set, leaving out each image of the support gives the accuracy to expect and its interval, and the
other images the accuracy. A draw counts as right if the two differ by no more than the interval says, together with
that of the measured accuracy, which comes from few images itself. What the estimate assumes was chosen on CIFAR-FS
validation classes, Omniglot background, glyphs and sentences; the other data only report.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from defaults import draw, room
from protocol import facts, write
from samples import REPORT, Sample, add_options, samples

from fewshot import DiscriminantLearner
from fewshot.images.checked import CheckResult
from fewshot.images.tested import TestResult

SHOTS, DRAWS = (2, 3, 5, 10, 20, 50), {0: 8, 5: 40}


@torch.inference_mode()
def once(sample: Sample, way: int, shots: int, seed: int, i: int) -> tuple[float, float, float, float, int]:
    """Return the accuracy to expect, its interval, the accuracy, and the number of queries, of one draw."""
    support, labels, queries, truth = draw(sample, way, shots, seed, i)
    learner, X = DiscriminantLearner(power=sample.power).double().eval(), torch.from_numpy(sample.X).double()
    y, n_way = torch.from_numpy(labels), int(labels.max()) + 1
    found = learner.leave_out(X[support], y, n_way)
    classes, kept = np.arange(n_way), labels[found.rows.numpy()]
    answers = TestResult(classes, kept, found.logits.argmax(-1).numpy(), found.logits.softmax(-1).amax(-1).numpy(), 0)
    expected = CheckResult(answers, found.n_taught.numpy(), [])
    right = learner(X[support], y, X[queries], n_way).argmax(-1).numpy() == truth
    accuracy = float((np.bincount(truth, right) / np.bincount(truth)).mean())
    return expected.accuracy, *expected.interval, accuracy, len(queries)


def measure(sample: Sample, way: int, shots: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one data set, way and number of shots."""
    n = max(2, DRAWS[way] // (10 if options.quick else 1))
    found = np.array([once(sample, way, shots, options.seed, i) for i in range(n)])
    expected, low, high, accuracy, asked = found.T
    half = np.where(accuracy < expected, expected - low, high - expected)
    half_asked = 1.96 * np.sqrt(accuracy * (1 - accuracy) / asked)
    inside = np.abs(expected - accuracy) <= np.hypot(half, half_asked) + 1e-9
    cell = {
        "data": sample.name, "role": sample.role, "way": way, "shots": shots, "draws": n,
        "accuracy": round(100 * accuracy.mean(), 2), "expected": round(100 * expected.mean(), 2),
        "off": round(100 * float(np.abs(expected - accuracy).mean()), 2),
        "half interval": round(50 * float((high - low).mean()), 2),
        "in interval": round(100 * float(inside.mean()), 1),
    }  # fmt: skip
    print(json.dumps(cell), flush=True)
    return cell


def table(cells: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    head = list(cells[0])
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join('all' if k == 'way' and not v else str(v) for k, v in cell.items())} |" for cell in cells]
    for role in dict.fromkeys(cell["role"] for cell in cells):
        shares = [cell["in interval"] for cell in cells if cell["role"] == role]
        cells_right = f"90 % or more in {sum(share >= 90 for share in shares)} of {len(shares)} cells"
        lines += ["", f"{role}: {np.mean(shares):.1f} % of the draws in the interval; {cells_right}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="check.py", description=__doc__)
    add_options(parser, "check")
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain = samples(options, styles=())
    cells = [
        measure(sample, way, shots, options)
        for sample in sorted(plain, key=lambda sample: sample.role == REPORT)
        for way in DRAWS
        for shots in SHOTS
        if shots <= room(sample)
    ]
    packages = ("sentence-transformers", "chatterbot-corpus") if options.text else ()
    results = {**facts("check.py", options.seed, packages=packages), "backbone": options.backbone, "cells": cells}
    write(options.out, results, table(cells))


if __name__ == "__main__":
    main()
