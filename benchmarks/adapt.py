"""Measure what `fewshot.adapt` gains on held-out classes, against cosine prototypes on embeddings as they are.

Some classes of each data set are the domain; episodes come from the others, the same for every row. This is repeated
for several draws of the domain's classes. One table: accuracy and the paired gain in points, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from arguments import Parser, named
from numpy.typing import NDArray
from protocol import facts, write

from fewshot import CosinePrototypicalLearner, Domain, Embedder, LabeledImages, evaluate
from fewshot.episodes.evaluate import mean_and_ci95
from fewshot.utils.text import signed

WAY, SHOTS = 5, (1, 5)


def few(data: LabeledImages, n_classes: int, n_images: int) -> tuple[Any, NDArray[Any]]:
    """Return at most `n_images` images of each of at most `n_classes` classes, evenly spaced, with labels."""
    classes = np.unique(data.labels)
    chosen = classes[np.linspace(0, len(classes) - 1, min(n_classes, len(classes))).astype(int)]
    rows = np.concatenate([np.flatnonzero(data.labels == label)[:n_images] for label in chosen])
    return [data.images[row] for row in rows.tolist()], data.labels[rows]


def gains(x: NDArray[np.float32], y: NDArray[Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per size of the domain, way to adapt and number of shots: accuracies before and after."""
    classes, counts = np.unique(y, return_counts=True)
    n_domain = min(options.domain, len(classes) - WAY)
    sizes = sorted({min(n_images, int(counts.max())) for n_images in options.domain_images})
    return [row for n_images in sizes for row in _gains(x, y, n_domain, n_images, options)]


def _gains(
    x: NDArray[np.float32], y: NDArray[Any], n_domain: int, n_images: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    found: dict[tuple[str, int], dict[str, list[Any]]] = {}
    for draw in range(options.draws):
        domain = np.random.default_rng((options.seed, draw)).permutation(np.unique(y))[:n_domain]
        known = np.concatenate([np.flatnonzero(y == label)[:n_images] for label in domain])
        others, start = ~np.isin(y, domain), time.perf_counter()
        maps = {"labelled": Domain.fit(x[known], y[known], embedder="")}
        seconds = time.perf_counter() - start
        maps["unlabelled"] = Domain.fit(x[known], None, embedder="")
        for shot in SHOTS:
            sizes = {"n_way": WAY, "n_shot": shot, "n_episodes": options.episodes, "seed": options.seed + draw}
            before = evaluate(CosinePrototypicalLearner(), x[others], y[others], **sizes)
            for name, one in maps.items():
                after = evaluate(CosinePrototypicalLearner(), one(x[others]), y[others], **sizes)
                values = (before.accuracies, after.accuracies, seconds, one.shrinkage)
                row = found.setdefault((name, shot), {"before": [], "after": [], "seconds": [], "shrinkage": []})
                for part, value in zip(row.values(), values, strict=True):
                    part.append(value)
    rows = []
    for (name, shot), row in found.items():
        old, new = (100 * np.concatenate(row[part]) for part in ("before", "after"))
        gain, ci95 = mean_and_ci95(new - old)
        about = {"domain": f"{n_domain} classes x {n_images} images", "map": name, "shot": shot}
        figures = {"before": old.mean(), "after": new.mean(), "gain": gain, "ci95": ci95}
        rows.append({**about, **figures, "shrinkage": row["shrinkage"], "seconds": max(row["seconds"])})
    return rows


def main() -> None:
    """Measure, print and write the results."""
    parser = Parser("adapt.py", __doc__)
    parser.add_argument(
        "data", nargs="+", metavar="NAME=PATH", type=named(mark=":"), help="data sets; NAME=PATH:SPLIT selects a split"
    )
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--domain", type=int, default=10, metavar="N", help="classes to adapt to (%(default)s)")
    parser.add_argument(
        "--domain-images", type=int, nargs="+", default=[20, 100], metavar="N", help="most images of each"
    )
    parser.add_argument("--classes", type=int, default=150, metavar="N", help="most classes of a set (%(default)s)")
    parser.add_argument("--images", type=int, default=100, metavar="N", help="most images of a class (%(default)s)")
    parser.add_argument("--draws", type=int, default=5, metavar="N", help="draws of the domain (%(default)s)")
    parser.add_argument("--episodes", type=int, default=300, metavar="N", help="per draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of draws and episodes (default: %(default)s)")
    parser.add_argument("--cache", metavar="DIR", help="store embeddings there")
    parser.add_out("benchmarks/results/adapt")
    options = parser.parse_args()
    embedder, rows = Embedder(options.backbone, cache=options.cache), []
    for given in options.data:
        name, _, place = given.partition("=")
        path, _, split = place.partition(":")
        images, labels = few(LabeledImages.open(path, split or None), options.classes, options.images)
        for row in gains(embedder.transform(images), labels, options):
            rows.append({"data": name, **row})
            print(json.dumps(rows[-1]), flush=True)
    settings = {name: value for name, value in vars(options).items() if name not in ("data", "cache", "out")}
    rows = [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    write(options.out, {**facts("adapt.py", options.seed), **settings, "rows": rows}, table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows, and the mean gain over the data sets, each with its largest domain, in Markdown."""
    lines = ["| data | domain | images | shots | before, % | after, % | gain, points |", "|---" * 7 + "|"]
    for row in rows:
        before, after, gain, ci95 = (row[name] for name in ("before", "after", "gain", "ci95"))
        about = " | ".join(str(row[name]) for name in ("data", "domain", "map", "shot"))
        lines.append(f"| {about} | {before:.1f} | {after:.1f} | {signed(gain)} ± {ci95:.1f} |")
    for name in ("labelled", "unlabelled"):
        for shot in SHOTS:
            last = {row["data"]: row["gain"] for row in rows if (row["map"], row["shot"]) == (name, shot)}
            lines.append(f"| mean | largest | {name} | {shot} | | | {signed(float(np.mean(list(last.values()))))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
