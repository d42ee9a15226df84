"""What it brings to label what `suggest` chooses, compared with images drawn at random.

A pool of 60 % of the images of each class has no labels; the others are the test. Batch by batch, as many images as 1,
2, 5 and 10 a class are chosen (fewer where the pool is too small), labelled with the truth and learned by the default
learner. Three beginnings: nothing is labelled; nothing is labelled and the classes of the pool differ up to 20 times in
size; a model of two classes with five images each meets a pool of all classes. Seeds are the same for all strategies,
so that changes from random ones are paired; intervals are Student's, over 20 seeds. The default was chosen on CIFAR-FS
validation classes, Omniglot background and glyphs, of which 5 seeds are shown; the other data only report.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from arguments import Parser
from defaults import interval
from numpy.typing import NDArray
from protocol import facts, write
from samples import CHOOSE, REPORT, Sample, add_options, samples

from fewshot import DiscriminantLearner, FewShotModel, OwnEmbedder
from fewshot.images.suggesting.suggest import STRATEGIES, StrategyName
from fewshot.utils.streams import episode_rng
from fewshot.utils.text import signed

RANDOM: StrategyName = "random"
DEFAULT = next(iter(STRATEGIES))
#: Labelled images a class, the share of the images that are the pool, and the seeds.
BUDGETS, POOL, SEEDS = (1, 2, 5, 10), 0.6, {CHOOSE: 5, REPORT: 20}
#: The ratio of the largest class to the smallest, classes known at first, and their images.
RATIO, KNOWN, TAUGHT = 20, 2, 5
#: Beginnings.
EVEN, UNEVEN, GROWN = "nothing labelled", "nothing labelled, uneven classes", "two classes known"
STARTS = (EVEN, UNEVEN, GROWN)
#: Strategies beside the default are compared from nothing, and reported on data of at most this many classes.
FEW_CLASSES = 20


def split(sample: Sample, start: str, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the pool and of the test."""
    pool, test = [], []
    for c in range(int(sample.y.max()) + 1):
        rows = rng.permutation(np.flatnonzero(sample.y == c))
        n = int(POOL * len(rows))
        test.append(rows[n:])
        pool.append(rows[: max(2, int(n * RATIO ** -float(rng.random()))) if start == UNEVEN else n])
    return rng.permutation(np.concatenate(pool)), np.concatenate(test)


def once(sample: Sample, start: str, strategy: StrategyName, seed: int) -> list[float]:
    """Return the accuracy, balanced over classes, at each budget."""
    rng, n_classes = episode_rng(seed, 0), int(sample.y.max()) + 1
    pool, test = split(sample, start, rng)
    x, y, truth = sample.X[pool], sample.y[pool], sample.y[test]
    model = FewShotModel(
        OwnEmbedder(np.stack, "embedded already"), DiscriminantLearner(power=sample.power), keep_support=True
    )
    there = rng.permutation(n_classes)[: KNOWN if start == GROWN else 0]
    labelled = [row for c in there for row in np.flatnonzero(y == c)[:TAUGHT].tolist()]
    bought, found = 0, list[float]()
    for i, budget in enumerate(BUDGETS):
        if labelled:
            model.fit(x[labelled], y[labelled])
        if (k := budget * n_classes - bought) > len(pool) - len(labelled):  # the pool is too small
            return found + [np.nan] * (len(BUDGETS) - i)
        labelled += [one.row for one in model.suggest(x, k, strategy=strategy, seed=100 * seed + i)]
        bought += k
        right = model.fit(x[labelled], y[labelled]).predict(sample.X[test]) == truth
        found.append(float((np.bincount(truth, right) / np.bincount(truth)).mean()))
    return found


def measure(sample: Sample, start: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the figures of all strategies."""
    seeds, cells = (
        range(options.seed, options.seed + (4 if options.quick else SEEDS[sample.role])),
        list[dict[str, Any]](),
    )
    accuracy: dict[str, NDArray[np.float64]] = {}
    others = start == EVEN and (sample.role == CHOOSE or sample.y.max() < FEW_CLASSES)
    for strategy in (RANDOM, DEFAULT, *(name for name in STRATEGIES if others and name not in (RANDOM, DEFAULT))):
        accuracy[strategy] = np.array([once(sample, start, strategy, seed) for seed in seeds])
        rows = zip(BUDGETS, accuracy[strategy].T, accuracy[RANDOM].T, strict=True)
        labels = {
            str(budget): {"accuracy": interval(a.tolist()), "change": interval((a - b).tolist())}
            for budget, a, b in rows
            if np.isfinite(a).all() and np.isfinite(b).all()
        }
        cell = {"data": sample.name, "role": sample.role, "start": start, "strategy": strategy, "labels": labels}
        print(json.dumps(cell), flush=True)
        cells.append({**cell, "seeds": len(seeds)})
    return cells


def table(cells: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = []
    for start in STARTS:
        heads = " | ".join(f"{budget} a class" for budget in BUDGETS)
        lines += [f"Start: {start}. Accuracy (change from random ones).", "", f"| data | role | strategy | {heads} |"]
        lines.append("|---|---|---|" + "---|" * len(BUDGETS))
        for cell in cells:
            if cell["start"] == start:
                shown = [_shown(cell["labels"].get(str(budget)), cell["strategy"]) for budget in BUDGETS]
                lines.append(f"| {cell['data']} | {cell['role']} | {cell['strategy']} | {' | '.join(shown)} |")
        lines.append("")
    for role in dict.fromkeys(cell["role"] for cell in cells):
        changes = [
            one["change"]
            for cell in cells
            if cell["role"] == role and cell["strategy"] == DEFAULT
            for one in cell["labels"].values()
        ]
        better, worse = (sum(sign * mean > half for mean, half in changes) for sign in (1, -1))
        lines.append(
            f"{role}: {DEFAULT} is better than random in {better} of {len(changes)} cells, and worse in {worse}; "
            f"lowest mean change {signed(min(mean for mean, _ in changes), 2)}."
        )
    return "\n".join(lines) + "\n"


def _shown(one: dict[str, Any] | None, strategy: str) -> str:
    if one is None:
        return ""
    change, half = one["change"] if strategy != RANDOM else (0, 0)
    change = "" if strategy == RANDOM else f" ({signed(change)} ± {half:.1f})"
    return f"{one['accuracy'][0]:.1f}{change}"


def main() -> None:
    """Run the benchmark."""
    parser = Parser("suggest.py", __doc__)
    add_options(parser, "suggest")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = sorted(samples(options, styles=()), key=lambda sample: sample.role != REPORT)
    cells = [cell for sample in found for start in STARTS for cell in measure(sample, start, options)]
    packages = ("sentence-transformers", "chatterbot-corpus") if options.text else ()
    results = {**facts("suggest.py", options.seed, packages=packages), "backbone": options.backbone, "cells": cells}
    write(options.out, results, table(cells))


if __name__ == "__main__":
    main()
