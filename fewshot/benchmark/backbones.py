"""The backbones of a benchmark: embedders, training, and checks against measuring on training data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fewshot.benchmark.grid_file import PIXELS, Backbone
from fewshot.benchmark.methods import code_of
from fewshot.benchmark.sources import Measured, contents_of, open_images, refuse_shared, splits_of
from fewshot.benchmark.tasks import key_of
from fewshot.data.augment import Distortion
from fewshot.data.digest import digest_classes, digest_images
from fewshot.data.images import LabeledImages
from fewshot.embedding.backbones import check_backbone, is_path
from fewshot.embedding.backbones.registered import find_registered
from fewshot.embedding.beginning import draws_weights
from fewshot.embedding.checkpoint import Checkpoint
from fewshot.embedding.embedder import Embedder
from fewshot.errors import LeakError
from fewshot.learners.registry import learner_class
from fewshot.persistence.files import write_text
from fewshot.training.config import TrainConfig
from fewshot.training.folder import BEST
from fewshot.training.trainer import MetaTrainer
from fewshot.utils.own_code import own_code
from fewshot.utils.text import counted

#: Marks a finished training.
DONE = "done.json"


def backbone_embedder(backbone: Backbone, cache: str | None = None, *, maps: bool = False) -> Embedder:
    """Return the embedder of any backbone but `PIXELS`; of maps of features, or of whole images."""
    return Embedder(
        backbone.backbone,
        weights=backbone.weights,
        pretrained=backbone.pretrained,
        img_size=backbone.img_size,
        pool=None if maps else "auto",
        cache=cache,
        progress=False,
    )


def backbone_key(backbone: Backbone, *, maps: bool = False) -> str:
    """Return a key that distinguishes the embeddings of one backbone from those of another."""
    return PIXELS if backbone.backbone == PIXELS else backbone_embedder(backbone, maps=maps).identity


def train_backbone(backbone: Backbone, folder: Path, progress: bool) -> Backbone:
    """Meta-train a backbone that has `train_on`, unless this was done before, and return it with its checkpoint.

    An interrupted training resumes from its last saved state.
    """
    if not backbone.train_on:
        return backbone
    train, val = (_pixels(backbone, split) for split in ("train", "val"))
    config = TrainConfig(**TrainConfig.parse(dict(backbone.train)))
    own = {key: value for key, value in backbone.describe().items() if key != "name"}
    code = code_of(learner_class(backbone.learner))
    registered = find_registered(backbone.backbone, in_plugins=True)
    codes = [code] if registered is None else [code, own_code([registered.factory])]
    place = folder / "trained" / key_of("trained", own, *codes, digest_images(train), digest_images(val))
    if not (place / DONE).is_file():
        augment = Distortion() if backbone.distort else None
        trainer = MetaTrainer(backbone.backbone, backbone.learner, config, augment=augment)
        result = trainer.fit(train, val, out=place, progress=progress, resume=True)
        write_text(place / DONE, json.dumps({"best_accuracy": result.best_accuracy, **own}, default=dict) + "\n")
    return replace(backbone, backbone=str(place / BEST), train={}, train_on="")


def refuse_unfit(backbone: Backbone, data: Sequence[Measured]) -> None:
    """Raise, before any training starts, if a backbone cannot be trained or must not be measured on the data.

    Raises
    ------
    LeakError
        If it is known to have been trained or selected on a class or an image to measure on; the message names
        examples.
    UnknownNameError
        If the network to train or its learner is unknown.
    ValueError
        If the data to train on lack a split, or are files and no size is given.
    """
    if backbone.train_on:
        check_backbone(backbone.backbone)
        learner_class(backbone.learner)
        for split in ("train", "val"):
            _refuse_split(backbone, split, data)
    if (path := _checkpoint(backbone.backbone, backbone.weights)) is None:
        return
    for one in data:
        if shared := classes_seen(path, one.data):
            raise LeakError(
                f"{path} was trained or selected on {counted(len(shared), 'class')} of {one.dataset.name}, "
                f"e.g. {', '.join(shared[:3])}; measure on other classes"
            )


def _refuse_split(backbone: Backbone, split: str, data: Sequence[Measured]) -> None:
    """Raise if the backbone cannot be trained on a split, or the split has a class or an image to measure on."""
    source = backbone.train_on
    if split not in splits_of(source):
        raise ValueError(f"{source} has no split {split!r}, which training {backbone.name!r} needs")
    seen = open_images(source, split)
    if not backbone.size and not seen.is_decoded:
        raise ValueError(f"the images of {source} are files of any size; give the size to train on, size = ...")
    contents, where = contents_of(seen), f"the split {split!r} of {source}, on which {backbone.name} is trained"
    for one in data:
        classes = one.data.classes.tolist() if source == one.dataset.source else _words(one.data)
        refuse_shared(one.dataset.name, classes, one.contents, seen, contents, where)


def is_external(backbone: Backbone) -> bool:
    """Whether a backbone of the grid, after `train_backbone`, may have seen data other than those of meta-training."""
    return backbone.backbone != PIXELS and is_pretrained(backbone.backbone, backbone.weights)


def is_pretrained(backbone: str, weights: str | None) -> bool:
    """Whether a network with these weights was, or may have been, trained on data other than those of meta-training."""
    if weights == "random":
        return False
    if (path := _checkpoint(backbone, weights)) is not None:
        return Checkpoint.open(path).training.get("began") != "random"
    return weights is not None or find_registered(backbone) is None or not draws_weights(backbone)


def _checkpoint(backbone: str, weights: str | None) -> str | None:
    """Return the checkpoint that a backbone loads, if any."""
    for path in (weights, backbone if is_path(backbone) else None):
        if path and Path(path).is_file() and Checkpoint.is_one(path):
            return path
    return None


def classes_seen(checkpoint: str | Path, data: LabeledImages) -> list[str]:
    """Return the classes of `data` that a checkpoint was trained or selected on, by word or content, sorted."""
    training = Checkpoint.open(checkpoint).training
    known, images = set(training.get("classes", ())), set(training.get("images", ()))
    digests = digest_classes(data) if images and data.is_decoded else {}
    same = [str(label) for label, content in digests.items() if content in images]
    return sorted((set(_words(data)) & known).union(same))


def _words(data: LabeledImages) -> list[str]:
    """Return the classes whose names mean the same in other data: words do, numbers do not."""
    return [label for label in data.classes.tolist() if isinstance(label, str) and not label.isdecimal()]


def _pixels(backbone: Backbone, split: str) -> LabeledImages:
    data = open_images(backbone.train_on, split)
    return data.decoded(backbone.size) if backbone.size else data
