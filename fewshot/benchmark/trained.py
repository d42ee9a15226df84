"""Backbones that a benchmark trains itself, and checks against measuring on training data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fewshot.benchmark.grid import PIXELS, Backbone
from fewshot.benchmark.methods import code_of
from fewshot.benchmark.sources import Measured, contents_of, open_images, refuse_shared, splits_of
from fewshot.benchmark.tasks import describe_backbone, key_of
from fewshot.data.augment import Distortion
from fewshot.data.digest import digest_classes, digest_images
from fewshot.data.images import LabeledImages
from fewshot.embedding.backbones import check_backbone, is_path
from fewshot.embedding.checkpoint import Checkpoint
from fewshot.errors import LeakError
from fewshot.learners.registry import learner_class
from fewshot.persistence.files import write_text
from fewshot.training.config import TrainConfig
from fewshot.training.state import BEST
from fewshot.training.trainer import MetaTrainer

#: Marks a finished training.
DONE = "done.json"


def train_backbone(backbone: Backbone, folder: Path, progress: bool) -> Backbone:
    """Meta-train a backbone that has `train_on`, unless this was done before, and return it with its checkpoint.

    An interrupted training resumes from its last saved state.
    """
    if not backbone.train_on:
        return backbone
    check_trainable(backbone)
    train, val = (_pixels(backbone, split) for split in ("train", "val"))
    config = TrainConfig(**TrainConfig.parse(dict(backbone.train)))
    own = {key: value for key, value in describe_backbone(backbone).items() if key != "name"}
    code = code_of(learner_class(backbone.learner))
    place = folder / "trained" / key_of("trained", own, code, digest_images(train), digest_images(val))
    if not (place / DONE).is_file():
        augment = Distortion() if backbone.distort else None
        trainer = MetaTrainer(backbone.backbone, backbone.learner, config, augment=augment)
        result = trainer.fit(train, val, out=place, progress=progress, resume=True)
        write_text(place / DONE, json.dumps({"best_accuracy": result.best_accuracy, **own}, default=dict) + "\n")
    return replace(backbone, backbone=str(place / BEST), train={}, train_on="")


def refuse_seen(backbone: Backbone, data: Sequence[Measured]) -> None:
    """Raise if a backbone is known to have been trained or selected on a class or an image to measure on.

    Raises
    ------
    LeakError
        The message names examples.
    """
    if backbone.train_on:
        for split in ("train", "val"):
            where = f"the split {split!r} of {backbone.train_on}, on which {backbone.name} is trained"
            seen = open_images(backbone.train_on, split)
            contents = contents_of(seen)
            for one in data:
                classes = one.data.classes.tolist() if backbone.train_on == one.dataset.source else _words(one)
                refuse_shared(one.dataset.name, classes, one.contents, seen, contents, where)
    if (path := _checkpoint(backbone)) is None:
        return
    training = Checkpoint.open(path).training
    known, images = set(training.get("classes", ())), set(training.get("images", ()))
    for one in data:
        digests = digest_classes(one.data) if one.data.is_decoded else {}
        same = [str(label) for label, content in digests.items() if content in images]
        if shared := sorted((set(_words(one)) & known).union(same)):
            raise LeakError(
                f"{path} was trained or selected on {len(shared)} classes of {one.dataset.name}, "
                f"e.g. {', '.join(shared[:3])}; measure on other classes"
            )


def is_external(backbone: Backbone) -> bool:
    """Whether a backbone of the grid was pretrained on data other than those of meta-training."""
    if backbone.backbone == PIXELS or backbone.train_on or backbone.weights == "random":
        return False
    path = _checkpoint(backbone)
    return path is None or Checkpoint.open(path).training.get("began") != "random"


def check_trainable(backbone: Backbone) -> None:
    """Raise, before any training starts, if a backbone cannot be trained.

    Raises
    ------
    UnknownNameError
        If the network or the learner is unknown.
    ValueError
        If the data lack a split, or are files and no size is given.
    """
    check_backbone(backbone.backbone)
    learner_class(backbone.learner)
    for split in ("train", "val"):
        if split not in splits_of(backbone.train_on):
            raise ValueError(f"{backbone.train_on} has no split {split!r}, which training {backbone.name!r} needs")
        if not backbone.size and not open_images(backbone.train_on, split).is_decoded:
            raise ValueError(
                f"the images of {backbone.train_on} are files of any size; give the size to train on, size = ..."
            )


def _checkpoint(backbone: Backbone) -> str | None:
    """Return the checkpoint that a backbone loads, if any."""
    for path in (backbone.weights, backbone.backbone if is_path(backbone.backbone) else None):
        if path and Path(path).is_file() and Checkpoint.is_one(path):
            return path
    return None


def _words(one: Measured) -> list[str]:
    """Return the classes whose names mean the same in other data: words do, numbers do not."""
    return [label for label in one.data.classes.tolist() if isinstance(label, str) and not label.isdecimal()]


def _pixels(backbone: Backbone, split: str) -> LabeledImages:
    data = open_images(backbone.train_on, split)
    return data.decoded(backbone.size) if backbone.size else data
