"""``fewshot train`` and ``fewshot evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fewshot.cli.models import make_embedder
from fewshot.cli.tables import give, is_piped
from fewshot.data.distort import Distortion
from fewshot.data.images import LabeledImages
from fewshot.data.splits import list_splits
from fewshot.evaluation import evaluate as measure
from fewshot.files import write_text
from fewshot.learners.base import as_learner
from fewshot.manifest import manifest
from fewshot.model.defaults import default_learner
from fewshot.training.config import TrainConfig
from fewshot.training.trainer import MetaTrainer


def train(options: argparse.Namespace) -> int:
    """Meta-train a network and write the checkpoint."""
    config = TrainConfig(
        n_episodes=options.episodes,
        n_way=options.way,
        n_shot=options.shot,
        n_query=options.query,
        lr=options.lr,
        seed=options.seed,
        val_n_way=options.val_way,
        validate_every=options.val_every,
    )
    augment = Distortion() if options.distort else None
    device = "cpu" if options.device == "auto" else options.device
    trainer = MetaTrainer(options.backbone, options.learner, config, augment=augment, device=device)
    splits = list_splits(options.data)
    train_data = _pixels(LabeledImages.open(options.data, "train" if splits else None), options)
    val_data = _pixels(LabeledImages.open(options.data, "val"), options) if "val" in splits else None
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    print(f"train: {train_data}\nval:   {val_data or 'none; the last weights are kept'}")
    result = trainer.fit(train_data, val_data, out=out, progress=not options.quiet)
    facts = {
        "manifest": manifest(" ".join(["fewshot", *sys.argv[1:]]), config.seed),
        "config": {"backbone": options.backbone, "learner": options.learner, **asdict(config)},
        "seconds": result.records[-1]["seconds"],
        "best_episode": result.best_episode,
        "best_val_accuracy": None if val_data is None else result.best_accuracy,
    }
    write_text(out / "manifest.json", json.dumps(facts, indent=1) + "\n")
    best = "" if val_data is None else f", {100 * result.best_accuracy:.1f} % on the validation classes"
    print(f"{facts['seconds']:.0f} s; kept the weights after episode {result.best_episode}{best}")
    print(f"written to {out}; now: fewshot evaluate {options.data} --from {out / 'best.safetensors'}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Measure a backbone and a learner on episodes."""
    embedder = make_embedder(options).fit()
    learner = as_learner(options.learner) if options.learner else default_learner(embedder)
    splits = list_splits(options.data)
    split = options.split or ("test" if splits else None)
    data = LabeledImages.open(options.data, split)
    embeddings = embedder.transform(data)
    rows: list[dict[str, Any]] = []
    for shot in options.shot:
        result = measure(
            learner,
            embeddings,
            data.labels,
            n_way=options.way,
            n_shot=shot,
            n_query=options.query,
            n_episodes=options.episodes,
            seed=options.seed,
            small_classes=options.small_classes,
        )
        rows.append(
            {"way": options.way, "shot": shot, "accuracy %": 100 * result.mean, "ci95 %": 100 * result.ci95}
            | {"episodes": options.episodes, "queries a class": options.query, "learner": result.protocol["learner"]}
        )
    if not is_piped(options):
        place = f"the split {split} of {options.data}" if split else options.data
        print(f"{place}: {len(data)} images of {len(data.classes)} classes; {learner}")
    facts = {
        "manifest": manifest(" ".join(["fewshot", *sys.argv[1:]]), options.seed),
        "fingerprint": embedder.fingerprint,
        "split": split,
        "results": rows,
    }
    give(rows, options, facts)
    return 0


def _pixels(data: LabeledImages, options: argparse.Namespace) -> LabeledImages:
    if data.is_decoded and not options.size:
        return data
    if not options.size:
        raise ValueError("the images are files of any size; say which to train on, e.g. --size 84")
    return data.decoded(options.size, grey=options.grey, progress=not options.quiet)
