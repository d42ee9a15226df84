"""CIFAR-FS or FC100: Prototypical Networks on Conv4-64 or ResNet-12 from scratch, and a meta-trained network.

Networks are trained on the training classes. Recipe and weights are the best on the validation classes; the test
classes are used once. ``tf_efficientnet_lite0`` has seen ImageNet, so its figures have a separate table, compared with
the same network frozen, on the same episodes. ``resnet12`` needs a GPU (``--networks resnet12 --device cuda``), where
networks are compiled and the images stay on the device.
``fewshot data cifar-fs`` prepares the data, with ``--splits fc100`` FC100, whose test classes are of other superclasses
than all others; the classes say which of the two they are. Recipes are chosen on CIFAR-FS. An interrupted run resumes;
its trainings are in ``--work``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from arguments import Parser
from protocol import (
    N_EPISODES,
    Cells,
    as_results,
    episodes,
    facts,
    figures,
    head,
    line,
    measure,
    over_seeds,
    published,
    write,
)

from fewshot import (
    Chain,
    DiscriminantLearner,
    Distortion,
    Embedder,
    LabeledImages,
    Light,
    MetaTrainer,
    Mirror,
    PrototypicalLearner,
    TrainConfig,
    embed,
    mix,
)
from fewshot.data.digest import digest_images
from fewshot.data.preparing.splits import cifar_splits
from fewshot.episodes.evaluate import EvalResult
from fewshot.persistence.files import write_text
from fewshot.search.similarity import Metric
from fewshot.training.step import Augment

SPLITS = ("train", "val", "test")
CELLS: Cells = ((5, 1), (5, 5))
#: Published accuracies in %: Conv4-64 on CIFAR-FS from Bertinetto et al. 2019 (table 1), all others from Lee et al.
#: 2019 (table 2).
PUBLISHED = {
    "CIFAR-FS": {
        "conv4": {"Prototypical Networks": (55.5, 72.0), "R2D2 with 64 filters": (60.0, 76.1)},
        "resnet12": {
            "Prototypical Networks": (72.2, 83.5),
            "MetaOptNet, ridge regression": (72.6, 84.3),
            "MetaOptNet, SVM": (72.0, 84.2),
        },
    },
    "FC100": {
        "conv4": {"Prototypical Networks": (35.3, 48.6)},
        "resnet12": {
            "Prototypical Networks": (37.5, 52.5),
            "MetaOptNet, ridge regression": (40.5, 55.3),
            "MetaOptNet, SVM": (41.1, 55.5),
        },
    },
}
PRETRAINED = "tf_efficientnet_lite0"
#: Views average the embeddings of an image and its mirror image over shifts of up to this many pixels.
SHIFTS = 2
_MOVED = f", mean over shifts of up to {SHIFTS} px, mirrored too"
_DEFAULT = ", answered by the default learner"
#: How a network from scratch is measured: what is said of it, whether over views, and whether by the learner that
#: `FewShotImageClassifier` uses instead of the prototypes that it was trained with.
VIEWS = {
    "cells": ("", False, False),
    "views": (_MOVED, True, False),
    "default": (_DEFAULT, False, True),
    "default, views": (_DEFAULT + _MOVED, True, True),
}
#: Small shifts and changes of scale.
MOVED = Distortion(rotate=0.0, scale=0.1, shear=0.0, translate=0.12)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes
    ----------
    config : TrainConfig
        Episodes and optimiser.
    augment : callable or None
        See `MetaTrainer`.
    metric : str
        Metric of the prototypes.
    temperature : float
        Initial temperature, which is learned.
    size : int
        Side to which the 32 x 32 images are scaled.
    turned : bool
        Whether rotations by 90, 180 and 270 degrees are additional classes, as in Liu et al. 2020 (arXiv:2003.00804).
    """

    config: TrainConfig
    augment: Augment | None = None
    metric: Metric = "cosine"
    temperature: float = 0.1
    size: int = 32
    turned: bool = False


BASE = TrainConfig(save_every=250, val_n_way=5, val_n_shot=1, val_n_query=15, val_n_episodes=600)
AUGMENT = Chain((Mirror(), MOVED, Light()))
RECIPES = {
    "conv4": Recipe(
        replace(BASE, n_episodes=16000, n_way=30, swap_shots=True, precision="bf16", validate_every=2000), turned=True
    ),
    "resnet12": Recipe(
        replace(
            BASE,
            n_episodes=20000,
            n_way=20,
            n_shot=5,
            weight_decay=5e-4,
            precision="bf16",
            validate_every=1000,
        ),
        AUGMENT,
    ),
    PRETRAINED: Recipe(
        replace(
            BASE,
            n_episodes=600,
            n_way=20,
            n_query=4,
            lr=3e-4,
            layer_decay=0.9,
            batch_norm="frozen",
            validate_every=100,
            save_every=50,
        ),
        AUGMENT,
        size=96,
    ),
}
#: Changes of the config and of the recipe that `--choose` tries, by network; all see the same number of images.
EUCLIDEAN = {"metric": "sqeuclidean"}
TRIALS: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "conv4": {
        "the recipe": ({}, {}),
        "squared Euclidean, temperature 1": ({}, {**EUCLIDEAN, "temperature": 1.0}),
        "squared Euclidean, temperature 10": ({}, {**EUCLIDEAN, "temperature": 10.0}),
        "1 shot, 5 queries": ({"swap_shots": False}, {}),
        "16 classes": ({"n_way": 16, "n_episodes": 7500}, {}),
        "60 classes": ({"n_way": 60, "n_episodes": 2000}, {}),
        "rate 0.0015": ({"lr": 1.5e-3}, {}),
        "rate 0.006": ({"lr": 6e-3}, {}),
        "weight decay 0.3": ({"weight_decay": 0.3}, {}),
        "not turned, mirrored": ({}, {"turned": False, "augment": Mirror()}),
        "not turned, mirrored, moved and lit": ({}, {"turned": False, "augment": AUGMENT}),
    },
    PRETRAINED: {
        "the recipe": ({}, {}),
        "rate 0.001, layer decay 0.8": ({"lr": 1e-3, "layer_decay": 0.8}, {}),
        "layer decay 0.8": ({"layer_decay": 0.8}, {}),
        "rate 0.0001, layer decay 0.8": ({"lr": 1e-4, "layer_decay": 0.8}, {}),
    },
}
TRIAL_EPISODES = {"conv4": 4000, PRETRAINED: 120}


def make(network: str, recipe: Recipe, seed: int, options: argparse.Namespace) -> MetaTrainer:
    """Return the trainer for a recipe."""
    backbone = Embedder(network, device="cpu") if network == PRETRAINED else network
    learner = PrototypicalLearner(recipe.metric, temperature=recipe.temperature, learn_temperature=True)
    config = replace(recipe.config, seed=seed, compile=options.device.startswith("cuda"))
    return MetaTrainer(backbone, learner, config, augment=recipe.augment, device=options.device)


def train(
    network: str, recipe: Recipe, seed: int, splits: Sequence[LabeledImages], options: argparse.Namespace
) -> tuple[MetaTrainer, dict[str, Any]]:
    """Train a network, or resume it; return the trainer and the facts of the training."""
    n_episodes = options.episodes or recipe.config.n_episodes
    trainer = make(network, replace(recipe, config=replace(recipe.config, n_episodes=n_episodes)), seed, options)
    result = trainer.fit(*splits, out=Path(options.work) / f"{network}-{seed}", resume=True)
    return trainer, {
        "network": network,
        "seed": seed,
        "minutes": round(result.records[-1]["seconds"] / 60, 1),
        "best_episode": result.best_episode,
        "validation": round(100 * result.best_accuracy, 2),
    }


def choose(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train candidates briefly on the training classes and measure them on the validation classes."""
    rows: list[dict[str, Any]] = []
    for network in (name for name in options.networks if name in TRIALS):
        for what, (changes, others) in TRIALS[network].items():
            n_episodes = options.episodes or changes.get("n_episodes", TRIAL_EPISODES[network])
            config = replace(RECIPES[network].config, **{**changes, "n_episodes": n_episodes})
            recipe = replace(RECIPES[network], config=config, **others)
            train_, val = for_training(recipe, options.data), opened(options.data, "val", recipe.size)
            trainer = make(network, recipe, options.seeds[0], options)
            trainer.fit(train_, out=Path(options.work) / "choose" / f"{network} {what}", resume=True)
            row: dict[str, Any] = {"network": network, "recipe": what, "episodes": n_episodes}
            views = ["cells"] if network == PRETRAINED else list(VIEWS)
            rows.append(row | in_views(trainer, val, options.test_episodes, views))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def opened(data: str, split: str, size: int) -> LabeledImages:
    """Return a split, scaled to the size."""
    images = LabeledImages.open(data, split)
    return images if images.images.shape[1] == size else images.decoded(size)


def turned(data: LabeledImages) -> LabeledImages:
    """Return the images and their mirror images, with every rotation by 90 degrees as a separate class.

    Mirroring later would make a left rotation look like a right one.
    """
    images = np.concatenate([data.images, data.images[:, :, ::-1]])
    labels = np.concatenate([data.labels, data.labels])
    return mix({f"turned {90 * k}": LabeledImages(np.rot90(images, k, (1, 2)), labels) for k in range(4)})[0]


def in_views(
    trainer: MetaTrainer, test: LabeledImages, n_episodes: int, names: Sequence[str] = tuple(VIEWS)
) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of a trained network on the test classes, in some of the `VIEWS`."""
    chosen = {name: VIEWS[name][1:] for name in names}
    embedded = {
        views: embed(trainer.backbone, test.images, shifts=SHIFTS if views else 0, mirror=views)
        for views in {views for views, _ in chosen.values()}
    }
    learners = {False: trainer.learner, True: DiscriminantLearner()}
    return {
        name: figures(measure(learners[default], embedded[views], test.labels, CELLS, n_episodes), CELLS)
        for name, (views, default) in chosen.items()
    }


def for_training(recipe: Recipe, data: str) -> LabeledImages:
    """Return the training classes for a recipe."""
    images = opened(data, "train", recipe.size)
    return turned(images) if recipe.turned else images


def from_scratch(network: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train a network for each seed and measure it on the test classes."""
    recipe = RECIPES[network]
    train_, val, test = for_training(recipe, options.data), *(opened(options.data, s, recipe.size) for s in SPLITS[1:])
    rows = []
    for seed in options.seeds:
        trainer, row = train(network, recipe, seed, (train_, val), options)
        rows.append(row | in_views(trainer, test, options.test_episodes))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def pretrained(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure a pretrained network frozen and meta-trained, and the difference on the same episodes."""
    recipe = RECIPES[PRETRAINED]
    train_, val, test = for_training(recipe, options.data), *(opened(options.data, s, recipe.size) for s in SPLITS[1:])
    frozen = {}
    sizes: tuple[int | None, ...] = (recipe.size, None)  # of the training, and the network's native size
    for side in sizes:
        embedder = Embedder(PRETRAINED, img_size=side, device=options.device)
        vectors = embedder.transform(LabeledImages.open(options.data, "test").images)
        cosine = PrototypicalLearner("cosine")
        frozen[f"{embedder.preprocessing.height} px"] = measure(
            cosine, vectors, test.labels, CELLS, options.test_episodes
        )
    rows = [{"network": PRETRAINED, "frozen at": size, "cells": figures(f, CELLS)} for size, f in frozen.items()]
    for seed in options.seeds:
        trainer, row = train(PRETRAINED, recipe, seed, (train_, val), options)
        found = measure(
            trainer.learner, embed(trainer.backbone, test.images), test.labels, CELLS, options.test_episodes
        )
        row["cells"] = figures(found, CELLS)
        for size, before in frozen.items():
            row[f"change from {size}"] = differences(found, before)
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return rows


def differences(found: Sequence[EvalResult], before: Sequence[EvalResult]) -> list[dict[str, Any]]:
    """Return the mean paired difference of each cell, with its interval, in %."""
    rows = []
    for (way, shot), new, old in zip(CELLS, found, before, strict=True):
        change, ci95 = new.difference(old)
        rows.append({"way": way, "shot": shot, "accuracy": round(100 * change, 3), "ci95": round(100 * ci95, 3)})
    return rows


def dataset_of(test: LabeledImages) -> str:
    """Return the name of the data, by the test classes."""
    names = {name: cifar_splits(key)["test"] for name, key in (("CIFAR-FS", "cifar-fs"), ("FC100", "fc100"))}
    return next((name for name, classes in names.items() if set(classes) == set(test.classes)), "other classes")


def table(rows: Sequence[dict[str, Any]], dataset: str) -> str:
    """Return the results as Markdown: from scratch with the published numbers, and external pretraining."""
    lines = []
    for network, others in ((one, PUBLISHED.get(dataset, {}).get(one, {})) for one in RECIPES if one != PRETRAINED):
        mine = [row for row in rows if row["network"] == network]
        if mine:
            lines += head(f"{dataset}, Prototypical Networks", CELLS)
            lines += [published(f"{network}, {name}", values) for name, values in others.items()]
            for name, (what, _, _) in VIEWS.items():
                lines += [line(f"{network}, seed {r['seed']}, {r['minutes']} min{what}", r[name]) for r in mine]
                lines += over_seeds(f"{network}{what}", [r[name] for r in mine])
            lines.append("")
    external = [row for row in rows if row["network"] == PRETRAINED]
    if external:
        lines += head(f"{dataset}, {PRETRAINED}, external pretraining", CELLS)
        lines += [line(f"frozen, at {r['frozen at']}", r["cells"]) for r in external if "frozen at" in r]
        mine = [row for row in external if "seed" in row]
        trained = f"meta-trained at {RECIPES[PRETRAINED].size} px"
        lines += [line(f"{trained}, seed {r['seed']}, {r['minutes']} min", r["cells"]) for r in mine]
        lines += over_seeds(trained, [r["cells"] for r in mine])
        for name in (name for name in mine[0] if name.startswith("change from")):
            what = f"paired {name.replace('from', 'from frozen, at')}"
            lines += [line(f"{what}, seed {r['seed']}", r[name], "+") for r in mine]
            lines += over_seeds(what, [r[name] for r in mine], "+")
        lines.append("")
    return "\n".join(lines)


def listed(rows: Sequence[dict[str, Any]], dataset: str) -> list[dict[str, Any]]:
    """Return rows for the page of all results."""
    made = []
    for row in rows:
        external = row["network"] == PRETRAINED
        how = f"frozen at {row['frozen at']}" if "frozen at" in row else f"meta-trained, seed {row['seed']}"
        common = {"dataset": dataset, "backbone": row["network"], "external": external}
        made += [
            {**common, "method": f"prototypical, {how}{what}", "cells": row[name]}
            for name, (what, _, _) in VIEWS.items()
            if name in row
        ]
    return made


def main() -> None:
    """Run the benchmark."""
    parser = Parser("cifar_fs.py", __doc__)
    parser.add_data("cifar-fs", "data/cifar_fs", "train", "val")
    parser.add_argument("--work", default="runs/cifar_fs_benchmark", metavar="DIR", help="trainings (%(default)s)")
    parser.add_out("benchmarks/results/cifar_fs")
    parser.add_argument("--episodes", type=int, metavar="N", help="training episodes (default: those of the recipe)")
    parser.add_argument("--test-episodes", type=int, default=N_EPISODES, metavar="N", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="default: 0")
    parser.add_argument(
        "--networks", nargs="+", default=["conv4", PRETRAINED], choices=list(RECIPES), help="default: %(default)s"
    )
    parser.add_argument("--choose", action="store_true", help="compare recipes on the validation classes instead")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    options = parser.parse_args()
    results = facts("cifar_fs.py", options.seeds[0], options.device)
    if options.choose:
        rows = choose(options)
        write_text(f"{options.out}_choice.json", json.dumps(results | {"classes": "validation", "rows": rows}) + "\n")
        return
    test, rows = LabeledImages.open(options.data, "test"), []
    dataset = dataset_of(test)
    for network in options.networks:
        rows += pretrained(options) if network == PRETRAINED else from_scratch(network, options)
    results |= {
        "data": {split: digest_images(LabeledImages.open(options.data, split)) for split in SPLITS},
        "episodes": episodes(test.labels, CELLS, options.test_episodes),
        "recipes": {name: {**vars(RECIPES[name]), "augment": repr(RECIPES[name].augment)} for name in options.networks},
        "dataset": dataset,
        "published": PUBLISHED.get(dataset, {}),
        "rows": rows,
        **as_results(listed(rows, dataset), options.test_episodes),
    }
    for recipe in results["recipes"].values():
        recipe["config"] = asdict(recipe["config"])
    write(options.out, results, table(rows, dataset))


if __name__ == "__main__":
    main()
