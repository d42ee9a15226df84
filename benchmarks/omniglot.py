"""Omniglot, Conv4-64: Prototypical and Matching Networks, and the published numbers of the same split.

The split is by character, and rotations are classes. Two are in use: the lists of Vinyals et al., and 1,200 characters
drawn at random, on which others test 423 (``fewshot data omniglot --splits random``); the data say which one they are.
The recipe is chosen on the validation classes of the former: ``--choose`` trains candidates on the training classes
alone and compares them. Then, like the published models, the network is trained on training and validation classes, and
the test classes are used once. An interrupted run resumes; its trainings are in ``--work``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from arguments import Parser
from protocol import Cells, as_results, episodes, facts, figures, head, line, measure, over_seeds, published, write

from fewshot import (
    Distortion,
    LabeledImages,
    Learner,
    MatchingLearner,
    MetaTrainer,
    PrototypicalLearner,
    TrainConfig,
    embed,
)
from fewshot.data.digest import digest_images
from fewshot.data.preparing.splits import OF_OMNIGLOT, omniglot_splits
from fewshot.persistence.files import write_text

#: (way, shot), and published accuracies in %, by split: Snell et al. 2017 (table 1), Vinyals et al. 2016 (table 1), and
#: Antoniou et al. 2019, which takes gradient steps on the support of each test episode.
CELLS: Cells = ((5, 1), (5, 5), (20, 1), (20, 5))
PUBLISHED = {
    "vinyals": {"prototypical": (98.8, 99.7, 96.0, 98.9), "matching": (98.1, 98.9, 93.8, 98.5)},
    "random": {"MAML++": (99.47, 99.85, 97.65, 99.33)},
}
#: Names of the data in tables.
NAMES = {
    "vinyals": "Omniglot, Vinyals split",
    "random": "Omniglot, random split",
    "own": "Omniglot, a split of your own",
}
METHODS = ("prototypical", "matching")
#: Embeddings are also averaged over shifts of up to this many pixels.
SHIFTS = 2
AUGMENT = Distortion()


def make_learner(method: str) -> Learner:
    """Return an untrained learner."""
    if method == "prototypical":
        return PrototypicalLearner()
    return MatchingLearner(temperature=0.1, learn_temperature=True)


def recipe(n_episodes: int, seed: int, **changes: Any) -> TrainConfig:
    """Return the training configuration, with `changes`."""
    chosen: dict[str, Any] = {"n_way": 60, "n_shot": 1, "n_query": 5, "lr": 3e-3, "seed": seed, **changes}
    return TrainConfig(n_episodes=n_episodes, validate_every=n_episodes, save_every=250, **chosen)


def split_of(test: LabeledImages) -> str:
    """Return the name of the list that the test classes are of."""
    classes = set(test.classes.tolist())
    return next((name for name in OF_OMNIGLOT if classes <= set(omniglot_splits(name)["test"])), "own")


def both(one: LabeledImages, other: LabeledImages) -> LabeledImages:
    """Return the images of two splits."""
    return LabeledImages(
        np.concatenate([one.images, other.images]), np.concatenate([one.labels.astype(str), other.labels.astype(str)])
    )


def cells_of(trainer: MetaTrainer, data: LabeledImages, shifts: int) -> list[dict[str, Any]]:
    """Return the figures of a trained network in every cell."""
    return figures(
        measure(trainer.learner, embed(trainer.backbone, data.images, shifts=shifts), data.labels, CELLS), CELLS
    )


def choose(data: str, work: Path, n_episodes: int, seed: int) -> dict[str, Any]:
    """Train candidates on the training classes and measure them on the validation classes."""
    train, val = (LabeledImages.open(data, split) for split in ("train", "val"))
    strong = Distortion(rotate=20, scale=0.2, shear=0.2, translate=0.1, elastic=0.03)
    candidates: dict[str, tuple[str, Distortion | None, dict[str, Any]]] = {
        "prototypical": ("prototypical", AUGMENT, {}),
        "prototypical, no distortion": ("prototypical", None, {}),
        "prototypical, stronger distortion": ("prototypical", strong, {}),
        "prototypical, each image support once": ("prototypical", AUGMENT, {"rotate_support": False}),
        "prototypical, 90 classes of 4": ("prototypical", AUGMENT, {"n_way": 90, "n_query": 3}),
        "prototypical, rate 0.006": ("prototypical", AUGMENT, {"lr": 6e-3}),
        "matching": ("matching", AUGMENT, {}),
    }
    rows: list[dict[str, Any]] = []
    for name, (method, augment, changes) in candidates.items():
        trainer = MetaTrainer("conv4", make_learner(method), recipe(n_episodes, seed, **changes), augment=augment)
        trainer.fit(train, out=work / "choose" / name.replace(" ", "_"), resume=True)
        for shifts in (0, 1, SHIFTS):
            rows.append({"recipe": name, "shifts": shifts, "cells": cells_of(trainer, val, shifts)})
            print(rows[-1], flush=True)
    return {"episodes": n_episodes, "classes": "validation", "rows": rows}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train on training and validation classes, and measure on the test classes."""
    train, val, test = (LabeledImages.open(options.data, split) for split in ("train", "val", "test"))
    train, split, rows = both(train, val), split_of(test), []
    changes = {"precision": options.precision}
    for method in options.methods:
        for seed in options.seeds:
            config = recipe(options.episodes, seed, **changes)
            trainer = MetaTrainer("conv4", make_learner(method), config, augment=AUGMENT)
            result = trainer.fit(train, out=Path(options.work) / split / f"{method}-{seed}", resume=True)
            row = {"method": method, "seed": seed, "minutes": round(result.records[-1]["seconds"] / 60, 1)}
            for shifts in (0, SHIFTS):
                row[f"shifts {shifts}"] = cells_of(trainer, test, shifts)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return {
        "data": {"train and val": digest_images(train), "test": digest_images(test), "classes": len(train.classes)},
        "episodes": episodes(test.labels, CELLS),
        "recipe": {**asdict(recipe(options.episodes, 0, **changes)), "augment": repr(AUGMENT), "shifts": SHIFTS},
        "split": split,
        "published": PUBLISHED.get(split, {}),
        "rows": rows,
        **as_results(listed(rows, split)),
    }


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown, with the published numbers."""
    theirs = results["published"]
    lines = head(f"{NAMES[results['split']]}, Conv4-64", CELLS)
    lines += [published(name, values) for name, values in theirs.items() if name not in METHODS]
    for method in METHODS:
        mine = [row for row in results["rows"] if row["method"] == method]
        if not mine:
            continue
        if method in theirs:
            lines.append(published(method, theirs[method]))
        for shifts, what in ((0, ""), (SHIFTS, f", mean over shifts of up to {SHIFTS} px")):
            found = [row[f"shifts {shifts}"] for row in mine]
            for row, cells in zip(mine, found, strict=True):
                lines.append(line(f"{method}, seed {row['seed']}, {row['minutes']} min{what}", cells))
            lines += over_seeds(f"{method}{what}", found)
    return "\n".join(lines) + "\n"


def listed(rows: list[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    """Return rows for the page of all results."""
    return [
        {
            "dataset": NAMES[split].removesuffix(", Vinyals split"),
            "backbone": "conv4",
            "external": False,
            "method": f"{row['method']}, meta-trained, seed {row['seed']}{what}",
            "cells": row[f"shifts {shifts}"],
        }
        for row in rows
        for shifts, what in ((0, ""), (SHIFTS, f", mean over shifts of up to {SHIFTS} px"))
    ]


def main() -> None:
    """Run the benchmark, or compare recipes."""
    parser = Parser("omniglot.py", __doc__)
    parser.add_data("omniglot", "data/omniglot", "train", "val")
    parser.add_argument("--work", default="runs/omniglot_benchmark", metavar="DIR", help="trainings (%(default)s)")
    parser.add_out("benchmarks/results/omniglot")
    parser.add_argument("--episodes", type=int, default=6500, metavar="N", help="training episodes (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="default: 0")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="NAME")
    parser.add_argument("--precision", default="float32", help="float32 or bf16 (default: %(default)s)")
    parser.add_argument("--choose", action="store_true", help="compare recipes on the validation classes instead")
    options = parser.parse_args()
    results = facts("omniglot.py", options.seeds[0])
    if options.choose:
        found = choose(options.data, Path(options.work), options.episodes, options.seeds[0])
        write_text(f"{options.out}_choice.json", json.dumps(results | found, indent=1) + "\n")
        return
    results |= run(options)
    write(options.out, results, table(results))


if __name__ == "__main__":
    main()
