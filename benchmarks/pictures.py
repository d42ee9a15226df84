"""Images of EuroSAT, CIFAR-FS and Omniglot, a few of each class: how well and how fast embedders tell them apart.

Accuracy is that of the default learner: 5-way and all classes at once, 1 and 5 shots, on the same draws for every
embedder. CIFAR-FS validation classes and Omniglot background are for choosing; the other data only report.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import Parser
from numpy.typing import NDArray
from PIL import Image
from samples import CHOOSE, REPORT, drawings, pictures_of

from fewshot import Embedder, FewShotClassifier, LabeledImages
from fewshot.utils.streams import episode_rng

#: Way (0: all classes) and shot; and draws of 5-way and of all classes.
CELLS, DRAWS = ((5, 1), (5, 5), (0, 1), (0, 5)), {5: 200, 0: 20}
#: Images whose time is taken at once, and how often.
BLOCK, ROUNDS = 8, 7
#: Name, role, images and labels.
Pictures = tuple[str, str, list[Image.Image], NDArray[Any]]
Accuracies = dict[tuple[int, int], NDArray[np.float64]]


def add_options(parser: Parser) -> None:
    """Add the options that name the data."""
    parser.add_pictures()
    parser.add_argument(
        "--roles", nargs="+", default=[CHOOSE, REPORT], choices=(CHOOSE, REPORT), help="of the data sets"
    )
    parser.add_argument("--classes", type=int, default=20, metavar="N", help="classes of a data set (%(default)s)")
    parser.add_argument("--images", type=int, default=15, metavar="N", help="images of a class (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: %(default)s)")


def pictures(options: argparse.Namespace) -> list[Pictures]:
    """Return the data sets that the options name."""
    found: list[tuple[str, str, Sequence[Image.Image], Sequence[Any]]] = []
    if options.cifar:
        for role, split, name in ((CHOOSE, "val", "CIFAR-FS validation"), (REPORT, "test", "CIFAR-FS test")):
            found.append((name, role, *pictures_of(LabeledImages.open(options.cifar, split))))
    if options.eurosat:
        found.append(("EuroSAT", REPORT, *pictures_of(LabeledImages.open(options.eurosat))))
    if options.omniglot:
        for role, part in ((CHOOSE, "background"), (REPORT, "evaluation")):
            found.append((f"Omniglot {part}", role, *drawings(Path(options.omniglot), part)))
    return [(name, role, *_few(x, y, options)) for name, role, x, y in found if role in options.roles]


def _few(
    images: Sequence[Image.Image], labels: Sequence[Any], options: argparse.Namespace
) -> tuple[list[Image.Image], NDArray[Any]]:
    """Return the first images of classes evenly spaced in their order."""
    y = np.asarray(labels)
    classes = np.unique(y)
    kept = classes[np.linspace(0, len(classes) - 1, min(len(classes), options.classes)).astype(int)]
    rows = np.concatenate([np.flatnonzero(y == label)[: options.images] for label in kept])
    return [images[i] for i in rows], y[rows]


def milliseconds(embedders: Sequence[Embedder], images: Sequence[Image.Image]) -> list[float]:
    """Return the milliseconds an image on one thread: the fastest round, since other processes disturb some.

    The embedders take turns, so that a slower hour of the machine affects all of them.
    """
    threads, few = torch.get_num_threads(), images[:BLOCK]
    torch.set_num_threads(1)
    took = np.empty((ROUNDS, len(embedders)))
    for turn, (i, embedder) in product(range(ROUNDS), enumerate(embedders)):
        embedder.set_params(n_jobs=1, progress=False).transform(few[:1])
        start = time.perf_counter()
        embedder.transform(few)
        took[turn, i] = 1e3 * (time.perf_counter() - start) / len(few)
    torch.set_num_threads(threads)
    return [round(float(ms), 1) for ms in took.min(axis=0)]


def accuracies(x: NDArray[np.float32], y: NDArray[Any], seed: int) -> Accuracies:
    """Return the accuracy of each draw, in %, for every cell."""
    return {
        (way, shot): np.array([_accuracy(x, y, way, shot, episode_rng(seed, i)) for i in range(DRAWS[way])])
        for way, shot in CELLS
    }


def _accuracy(x: NDArray[np.float32], y: NDArray[Any], way: int, shot: int, rng: np.random.Generator) -> float:
    classes = np.unique(y)
    drawn = rng.choice(classes, way, replace=False) if way else classes
    rows = [rng.permutation(np.flatnonzero(y == label)) for label in drawn]
    support, queries = np.concatenate([r[:shot] for r in rows]), np.concatenate([r[shot:] for r in rows])
    return 100 * float(FewShotClassifier("discriminant").fit(x[support], y[support]).score(x[queries], y[queries]))


def summed(found: Accuracies, base: Accuracies | None = None) -> list[dict[str, Any]]:
    """Return the mean of each cell with its interval, and the paired gain over `base`."""
    rows = []
    for (way, shot), values in found.items():
        row = {"way": way, "shot": shot, "accuracy": values.mean(), "ci95": _ci95(values)}
        if base is not None:
            gain = values - base[way, shot]
            row |= {"gain": gain.mean(), "gain ci95": _ci95(gain)}
        rows.append({key: round(float(value), 2) if isinstance(value, float) else value for key, value in row.items()})
    return rows


def _ci95(values: NDArray[np.float64]) -> float:
    return float(1.96 * values.std(ddof=1) / len(values) ** 0.5)


def heading(*names: str) -> list[str]:
    """Return the first lines of a table in Markdown, with a column for each cell."""
    columns = [*names, *(f"{f'{way}-way' if way else 'all classes'} {shot}-shot" for way, shot in CELLS)]
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
