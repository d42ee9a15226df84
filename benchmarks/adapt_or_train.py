"""When to adapt embeddings in closed form, when to meta-train the network, and when to do both.

For each domain with splits train, val and test: cosine prototypes on test classes with embeddings as they are, adapted
to few or to at most 50 training classes, meta-trained on the training classes, and meta-trained, then adapted. The last
columns are the same embeddings on other data, which tell what was forgotten. All see the same images of the same size
and the same episodes. Trainings are kept in ``--work`` and resume.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from adapt import few
from arguments import Parser, named
from cifar_fs import PRETRAINED, RECIPES
from numpy.typing import NDArray
from protocol import facts, write

from fewshot import (
    CosinePrototypicalLearner,
    Domain,
    Embedder,
    LabeledImages,
    MetaTrainer,
    PrototypicalLearner,
    evaluate,
)

SHOTS = (1, 5)
#: Most classes of a set, and most images of a class.
N_CLASSES, N_IMAGES = 50, 20
#: Embeddings, and labels.
Embedded = tuple[NDArray[np.float32], NDArray[Any]]


def measure(sets: dict[str, Embedded], domain: Domain | None, options: argparse.Namespace) -> dict[str, Any]:
    """Return accuracy and half the 95 % interval, in %, for each data set and number of shots."""
    found = {}
    for name, (x, y) in sets.items():
        x = x if domain is None else domain(x)
        for shot in SHOTS:
            result = evaluate(
                CosinePrototypicalLearner(), x, y, n_shot=shot, n_episodes=options.episodes, seed=options.seed
            )
            found[f"{name}, {shot}-shot"] = [round(100 * result.mean, 2), round(100 * result.ci95, 2)]
    return found


def coloured(data: LabeledImages) -> LabeledImages:
    """Return at most 400 classes, with all their images, in colour, as the network takes them."""
    images, labels = few(data, 400, len(data))
    pixels = np.stack(images)
    return LabeledImages(pixels if pixels.ndim == 4 else np.repeat(pixels[..., None], 3, -1), labels)


def train(name: str, path: str, options: argparse.Namespace) -> tuple[Path, float]:
    """Meta-train the network on a domain; return its weights and the seconds."""
    config = replace(
        RECIPES[PRETRAINED].config, n_episodes=options.train_episodes, validate_every=options.train_episodes
    )
    data = [coloured(LabeledImages.open(path, split)) for split in ("train", "val")]
    trainer = MetaTrainer(
        Embedder(options.backbone, img_size=options.size, progress=False, crop="center"),
        PrototypicalLearner("cosine", temperature=0.1, learn_temperature=True),
        replace(config, val_n_episodes=100, seed=options.seed),
        augment=RECIPES[PRETRAINED].augment,
    )
    folder = Path(options.work) / name
    result = trainer.fit(*data, out=folder, resume=True)
    return folder / "best.safetensors", result.records[-1]["seconds"]


def rows_of(
    network: Embedder,
    what: str,
    seconds: float,
    known: LabeledImages,
    tests: dict[str, Any],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Return the rows of one network: as it is, and adapted to few and to many training classes."""
    sets = {name: (network.transform(images), labels) for name, (images, labels) in tests.items()}
    rows = [{"embeddings": what, "seconds": round(seconds, 1), **measure(sets, None, options)}]
    for n_classes in (options.domain, min(N_CLASSES, len(known.classes))):
        images, labels = few(known, n_classes, N_IMAGES)
        x = network.transform(images)
        start = time.perf_counter()
        domain = Domain.fit(x, labels, embedder="")
        rows.append(
            {
                "embeddings": f"{what}, adapted to {n_classes} classes",
                "seconds": round(seconds + time.perf_counter() - start, 1),
                **measure(sets, domain, options),
            }
        )
    return rows


def of_domain(name: str, path: str, others: dict[str, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return all rows of a domain."""
    known, tests = LabeledImages.open(path, "train"), {name: few(LabeledImages.open(path, "test"), N_CLASSES, N_IMAGES)}
    tests |= {other: given for other, given in others.items() if other != name}
    plain = Embedder(options.backbone, img_size=options.size, progress=False, cache=str(Path(options.work) / "cache"))
    rows = rows_of(plain, "as it is", 0.0, known, tests, options)
    weights, seconds = train(name, path, options)
    rows += rows_of(Embedder(weights, progress=False), "meta-trained", seconds, known, tests, options)
    for row in rows:
        row["domain"] = name
        print(json.dumps(row), flush=True)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows in Markdown; one table a domain."""
    lines = []
    for name in dict.fromkeys(row["domain"] for row in rows):
        own = [{k: v for k, v in row.items() if k != "domain"} for row in rows if row["domain"] == name]
        columns = list(own[0])[2:]
        lines += [f"| {name} | seconds | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
        for row in own:
            cells = [f"{mean:z.1f} ± {half:.1f}" for mean, half in (row[column] for column in columns)]
            lines.append(f"| {row['embeddings']} | {row['seconds']:.0f} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def main() -> None:
    """Measure, print and write the results."""
    parser = Parser("adapt_or_train.py", __doc__)
    parser.add_argument(
        "data",
        nargs="+",
        metavar="NAME=PATH",
        type=named("train", "val", "test"),
        help="prepared data with splits train, val and test",
    )
    parser.add_argument(
        "--other", nargs="*", default=[], metavar="NAME=PATH", type=named(), help="more data, without splits"
    )
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--size", type=int, default=64, metavar="PX", help="side of images (default: %(default)s)")
    parser.add_argument("--train-episodes", type=int, default=600, metavar="N", help="default: %(default)s")
    parser.add_argument("--domain", type=int, default=10, metavar="N", help="classes to adapt to (%(default)s)")
    parser.add_argument("--episodes", type=int, default=600, metavar="N", help="to measure (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of training and episodes (default: %(default)s)")
    parser.add_argument("--work", default="runs/adapt_or_train", metavar="DIR", help="default: %(default)s")
    parser.add_out("benchmarks/results/adapt_or_train")
    options = parser.parse_args()
    domains, more = (dict(given.split("=", 1) for given in part) for part in (options.data, options.other))
    others = {name: few(LabeledImages.open(path, "test"), N_CLASSES, N_IMAGES) for name, path in domains.items()}
    others |= {name: few(LabeledImages.open(path), N_CLASSES, N_IMAGES) for name, path in more.items()}
    rows = [row for name, path in domains.items() for row in of_domain(name, path, others, options)]
    settings = {key: value for key, value in vars(options).items() if key not in ("data", "other", "work", "out")}
    write(options.out, {**facts("adapt_or_train.py", options.seed), **settings, "rows": rows}, table(rows))


if __name__ == "__main__":
    main()
