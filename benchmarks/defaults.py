"""What the default learner gives, compared with the former default and with what users would try instead.

Accuracy, balanced over classes, of a frozen network's embeddings: all classes of a data set at once and 5-way, from 1
to 50 images a class, and from support of 1, 2, 3, 5, 10 or 20 images, drawn for each class. Every learner sees the same
draws, so that changes from cosine prototypes are paired; intervals are Student's, over draws. Logistic regression on
unit vectors gives all classes the same weight, with ``class_weight="balanced"``; the plain one has scikit-learn's
defaults. The calibration error is that of the probabilities right after fitting, with the answers of all draws in 15
bins. Defaults are chosen on CIFAR-FS validation classes, Omniglot background, glyphs and sentences; the other data only
report. ``fewshot data cifar-fs`` prepares CIFAR-FS; Omniglot is read from its official archives.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from arguments import Parser
from numpy.typing import NDArray
from protocol import facts, write
from samples import REPORT, Sample, add_options, samples
from scipy.stats import t as student

from fewshot import Learner
from fewshot.benchmark.references import ScikitLearn
from fewshot.classifiers.calibration import expected_calibration_error, reliability_bins
from fewshot.learners.registry import learner_class
from fewshot.utils.streams import episode_rng
from fewshot.utils.text import signed

#: The former default, which others are compared with, and the default.
BEFORE, DEFAULT = "cosine-prototypical", "discriminant"
UNIT = "logistic regression, unit vectors, C = 100, balanced"
REFERENCES: dict[str, dict[str, Any]] = {
    UNIT: {"classifier": "LogisticRegression", "unit": True, "C": 100, "max_iter": 1000, "class_weight": "balanced"},
    "logistic regression": {"classifier": "LogisticRegression", "max_iter": 1000},
    "nearest neighbour": {"classifier": "KNeighborsClassifier", "n_neighbors": 1},
    "nearest centroid": {"classifier": "NearestCentroid"},
}
ROWS = (BEFORE, DEFAULT, "prototypical", "ridge", *REFERENCES)
#: Rows without probabilities.
HARD = ROWS[6:]
SHOTS, UNEVEN = (1, 2, 5, 10, 20, 50), (1, 2, 3, 5, 10, 20)
#: Shots where queries come in another style, and the fewest and most queries of a class: all classes at once and 5-way.
STYLED, LEAST, MOST = (1, 5, 20), 5, {0: 30, 5: 15}
#: Draws, all classes at once and 5-way; as many times more where queries come in another style, since one point has to
#: be told from none there.
DRAWS, STYLED_TIMES = {0: 6, 5: 80}, 4
#: Draws are doubled, this many times at most, while the interval of the default's change holds this many points.
MARGIN, DOUBLED = -0.5, 4
#: Rows of support and queries, and their classes.
Draw = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def make(row: str, power: float) -> Learner:
    """Return the learner of a row."""
    if row in REFERENCES:
        return ScikitLearn(**REFERENCES[row])
    params: dict[str, Any] = {"power": power} if row == DEFAULT else {}
    return learner_class(row)(**params).double().eval()


def room(sample: Sample) -> int:
    """Return the most shots that leave every class its queries."""
    if sample.asked is not None:
        return int(np.bincount(sample.y[~sample.asked]).min())
    return int(np.bincount(sample.y).min()) - LEAST


def draw(sample: Sample, way: int, shots: int, seed: int, i: int) -> Draw:
    """Return draw `i`: `way` classes, or all if 0; `shots` images of each, or uneven numbers if 0."""
    rng, n = episode_rng(seed, i), int(sample.y.max()) + 1
    parts: list[list[NDArray[np.int64]]] = [[], [], [], []]
    for label, c in enumerate(rng.choice(n, way, replace=False) if way else range(n)):
        rows = rng.permutation(np.flatnonzero(sample.y == c))
        k = shots or int(rng.choice([few for few in UNEVEN if few <= room(sample)]))
        if sample.asked is None:
            support, queries = rows[:k], rows[k:]
        else:
            support, queries = rows[~sample.asked[rows]][:k], rows[sample.asked[rows]]
        queries = queries[: MOST[way]]
        values = support, np.full(len(support), label), queries, np.full(len(queries), label)
        for part, value in zip(parts, values, strict=True):
            part.append(value)
    return tuple(map(np.concatenate, parts))  # type: ignore[return-value]


@torch.inference_mode()
def answer(learner: Learner, sample: Sample, drawn: Draw) -> tuple[float, NDArray[np.float64], NDArray[np.bool_]]:
    """Return the accuracy balanced over classes, and the confidence and correctness of each answer."""
    support, labels, queries, truth = drawn
    X = torch.from_numpy(sample.X)
    n_way = int(labels.max()) + 1
    logits = learner(X[support].double(), torch.from_numpy(labels), X[queries].double(), n_way)
    right = logits.argmax(-1).numpy() == truth
    accuracy = float((np.bincount(truth, right) / np.bincount(truth)).mean())
    return accuracy, logits.softmax(-1).amax(-1).numpy(), right


def interval(values: Sequence[float]) -> list[float]:
    """Return mean and half the 95 % interval, in %."""
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return [round(100 * float(np.mean(values)), 2), round(100 * float(half), 2)]


def enough(sample: Sample, draws: Callable[[int], Draw], n: int) -> int:
    """Return how many draws tell whether the default falls behind the former one by more than the margin."""
    changes: list[float] = []
    for _ in range(DOUBLED + 1):
        for i in range(len(changes), n):
            ours, before = (answer(make(row, sample.power), sample, draws(i))[0] for row in (DEFAULT, BEFORE))
            changes.append(ours - before)
        mean, half = interval(changes)
        if not mean - half < MARGIN < mean + half:
            break
        n *= 2
    return len(changes)


def measure(sample: Sample, way: int, shots: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of all rows on the same draws."""
    draws = partial(draw, sample, way, shots, options.seed)
    n = max(2, DRAWS[way] * (1 if sample.asked is None else STYLED_TIMES) // options.fewer)
    if sample.asked is None and not options.quick:
        n = enough(sample, draws, n)
    found = {row: [answer(make(row, sample.power), sample, draws(i)) for i in range(n)] for row in ROWS}
    accuracy = {row: [one[0] for one in answers] for row, answers in found.items()}
    rows: dict[str, dict[str, Any]] = {}
    for row, values in accuracy.items():
        rows[row] = {"accuracy": interval(values)}
        if row != BEFORE:
            rows[row]["change"] = interval(np.subtract(values, accuracy[BEFORE]).tolist())
        if row not in HARD:
            confidence, right = (np.concatenate([one[part] for one in found[row]]) for part in (1, 2))
            rows[row]["calibration error"] = round(
                100 * expected_calibration_error(reliability_bins(confidence, right)), 2
            )
    cell = {"data": sample.name, "role": sample.role, "styled": sample.asked is not None, "way": way, "shots": shots}
    print(json.dumps({**cell, **{row: figures["accuracy"][0] for row, figures in rows.items()}}), flush=True)
    return {**cell, "draws": n, "rows": rows}


def cells(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the figures of every data set, way and number of shots; 0 shots are uneven support, 0 ways all classes."""
    for sample in samples(options):
        sizes = STYLED if sample.asked is not None else (*SHOTS, 0)
        for way in DRAWS:
            for shots in (1, 5) if options.quick else sizes:
                if max(shots, 1) <= room(sample):
                    yield measure(sample, way, shots, options)


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means over the cells of each role, and the cell where the default falls furthest behind the former."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in found:
        name = cell["role"] + (", queries in another style" if cell["styled"] else "")
        groups.setdefault(name, []).append(cell)
    return {name: _summary(group) for name, group in groups.items()}


def _summary(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows = [cell["rows"] for cell in group]

    def errors(row: str, *, one_shot: bool) -> list[float]:
        return [c["rows"][row]["calibration error"] for c in group if (c["shots"] == 1 if one_shot else c["shots"] > 4)]

    worst = min(group, key=lambda cell: cell["rows"][DEFAULT]["change"][0])
    return {
        "cells": len(group),
        "accuracy": {row: round(float(np.mean([one[row]["accuracy"][0] for one in rows])), 2) for row in ROWS},
        "worst change of the default": [worst["data"], worst["way"], worst["shots"], worst["rows"][DEFAULT]["change"]],
        "calibration error, 1 shot": {r: _mean(errors(r, one_shot=True)) for r in (BEFORE, DEFAULT)},
        "calibration error, 5 shots and more": {r: _mean(errors(r, one_shot=False)) for r in (BEFORE, DEFAULT)},
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 2) if len(values) else None


def short(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of what a user gets: a line per data set, all classes at once, with the shots side by side."""
    shown = (BEFORE, DEFAULT, UNIT, "nearest neighbour")
    lines = [
        "| all classes at once, accuracy in % | shots | " + " | ".join(shown) + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    for name in dict.fromkeys(c["data"] for c in found if c["role"] == REPORT and not c["styled"]):
        own = [c for c in found if c["data"] == name and not c["way"]]
        values = (" / ".join(f"{c['rows'][row]['accuracy'][0]:.0f}" for c in own) for row in shown)
        lines.append(f"| {name} | {' / '.join(_shots(c) for c in own)} | {' | '.join(values)} |")
    return lines


def table(found: Sequence[dict[str, Any]], summed: dict[str, Any]) -> str:
    """Return all results as Markdown."""
    lines = [
        *short(found),
        "",
        "| mean accuracy in % over | cells | " + " | ".join(ROWS) + " |",
        "|---|---|" + "---|" * len(ROWS),
    ]
    for name, group in summed.items():
        lines.append(f"| {name} | {group['cells']} | " + " | ".join(f"{group['accuracy'][r]:.1f}" for r in ROWS) + " |")
    for way in DRAWS:
        ends = f"change of {DEFAULT}", f"calibration error of {BEFORE} → {DEFAULT}"
        lines += ["", *_head(f"{way}-way" if way else "all classes at once", "role", "shots", *ROWS, *ends)]
        lines += [_line(cell) for cell in found if cell["way"] == way]
    return "\n".join(lines) + "\n"


def _head(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]


def _line(cell: dict[str, Any]) -> str:
    rows = cell["rows"]
    values = " | ".join(f"{rows[row]['accuracy'][0]:.1f}" for row in ROWS)
    change, half = rows[DEFAULT]["change"]
    before, after = (rows[row]["calibration error"] for row in (BEFORE, DEFAULT))
    start = f"| {cell['data']} | {cell['role']} | {_shots(cell)} | {values}"
    return f"{start} | {signed(change)} ± {half:.1f} | {before:.1f} → {after:.1f} |"


def _shots(cell: dict[str, Any]) -> str:
    return str(cell["shots"] or "uneven")


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("defaults.py", __doc__)
    add_options(parser, "defaults")
    options = parser.parse_args()
    options.fewer = 10 if options.quick else 1
    found = list(cells(options))
    summed = summary(found)
    results = {**facts("defaults.py", options.seed, packages=("sentence-transformers", "chatterbot-corpus"))}
    write(
        options.out, {**results, "backbone": options.backbone, "summary": summed, "cells": found}, table(found, summed)
    )


if __name__ == "__main__":
    main()
