"""How well the accuracy that a model expects of itself agrees with what it gives.

On draws of each data set, leaving out each image of the support gives the accuracy to expect and its interval, and the
other images the accuracy. A draw counts as right if the two differ by no more than the interval says, together with
that of the measured accuracy, which comes from few images itself. Where there are images enough, the accuracy to expect
with twice the images is compared with that of twice as many. What the estimate assumes was chosen on CIFAR-FS
validation classes, Omniglot background, glyphs and sentences; the other data only report.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from arguments import Parser
from defaults import draw, room
from protocol import facts, write
from samples import REPORT, Sample, add_options, samples

from fewshot import DiscriminantLearner
from fewshot.images.checked import LEARNING, CheckResult
from fewshot.images.curve import Point, measure_curve, slope_of
from fewshot.images.tested import TestResult

SHOTS, DRAWS = (2, 3, 5, 10, 20, 50), {0: 8, 5: 40}


@torch.inference_mode()
def once(sample: Sample, way: int, shots: int, seed: int, i: int) -> tuple[float, ...]:
    """Return, of one draw, the accuracy to expect, its interval, the accuracy, and the number of queries.

    And with twice the images: the accuracy to expect by the learning curve and by a fixed slope, and the accuracy; NaN
    if there are too few.
    """
    support, labels, queries, truth = draw(sample, way, shots, seed, i)
    learner, X = DiscriminantLearner(power=sample.power).double().eval(), torch.from_numpy(sample.X).double()
    y, n_way = torch.from_numpy(labels), int(labels.max()) + 1
    found = learner.leave_out(X[support], y, n_way)
    classes, kept = np.arange(n_way), labels[found.rows.numpy()]
    answers = TestResult(classes, kept, found.logits.argmax(-1).numpy(), found.logits.softmax(-1).amax(-1).numpy(), 0)
    expected = CheckResult(answers, found.n_taught.numpy(), [])
    accuracy, twice = _accuracy(learner, X, support, labels, queries, truth), (np.nan,) * 3
    if 2 * shots <= room(sample):
        points = measure_curve(learner, X[support], y, n_way)
        points.append(Point(shots - 0.5, answers.accuracy, len(kept)))
        error, fixed = 1 - expected.accuracy, 2**-LEARNING
        more = _accuracy(learner, X, *draw(sample, way, 2 * shots, seed, i))
        twice = (1 - error * 2 ** -slope_of(points), 1 - error * fixed, more)
    return expected.accuracy, *expected.interval, accuracy, len(queries), *twice


def _accuracy(
    learner: DiscriminantLearner, X: torch.Tensor, support: Any, labels: Any, queries: Any, truth: Any
) -> float:
    """Return the accuracy balanced over classes."""
    right = learner(X[support], torch.from_numpy(labels), X[queries], int(labels.max()) + 1).argmax(-1).numpy() == truth
    return float((np.bincount(truth, right) / np.bincount(truth)).mean())


def measure(sample: Sample, way: int, shots: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one data set, way and number of shots."""
    n = max(2, DRAWS[way] // (10 if options.quick else 1))
    found = np.array([once(sample, way, shots, options.seed, i) for i in range(n)])
    expected, low, high, accuracy, asked, by_curve, by_slope, twice = found.T
    half = np.where(accuracy < expected, expected - low, high - expected)
    half_asked = 1.96 * np.sqrt(accuracy * (1 - accuracy) / asked)
    inside = np.abs(expected - accuracy) <= np.hypot(half, half_asked) + 1e-9
    gains = {name: round(100 * float((value - base).mean()), 2)
             for name, value, base in (("gain with twice", twice, accuracy), ("gain expected", by_curve, expected),
                                       ("gain by a fixed slope", by_slope, expected))}  # fmt: skip
    cell = {
        "data": sample.name, "role": sample.role, "way": way, "shots": shots, "draws": n,
        "accuracy": round(100 * accuracy.mean(), 2), "expected": round(100 * expected.mean(), 2),
        "off": round(100 * float(np.abs(expected - accuracy).mean()), 2),
        "half interval": round(50 * float((high - low).mean()), 2),
        "in interval": round(100 * float(inside.mean()), 1),
        "off with twice": round(100 * float(np.abs(by_curve - twice).mean()), 2),
        "by a fixed slope": round(100 * float(np.abs(by_slope - twice).mean()), 2), **gains,
    }  # fmt: skip
    cell = {name: None if value != value else value for name, value in cell.items()}  # JSON has no NaN
    print(json.dumps(cell), flush=True)
    return cell


def table(cells: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    head = list(cells[0])
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for cell in cells:
        shown = ("all" if k == "way" and not v else "" if v is None else str(v) for k, v in cell.items())
        lines.append(f"| {' | '.join(shown)} |")
    for role in dict.fromkeys(cell["role"] for cell in cells):
        shares = [cell["in interval"] for cell in cells if cell["role"] == role]
        cells_right = f"90 % or more in {sum(share >= 90 for share in shares)} of {len(shares)} cells"
        lines += ["", f"{role}: {np.mean(shares):.1f} % of the draws in the interval; {cells_right}."]
        more = [cell for cell in cells if cell["role"] == role and cell["gain with twice"] is not None]
        curve, slope = (np.mean([cell[name] for cell in more]) for name in ("off with twice", "by a fixed slope"))
        gains = [np.mean([abs(cell[name] - cell["gain with twice"]) for cell in more])
                 for name in ("gain expected", "gain by a fixed slope")]  # fmt: skip
        told = f"accuracy off by {curve:.2f} points, by a fixed slope {slope:.2f}"
        told += f"; mean gain of a cell off by {gains[0]:.2f}, by a fixed slope {gains[1]:.2f}"
        lines += ["", f"{role}, twice the images: {told}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = Parser("check.py", __doc__)
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
