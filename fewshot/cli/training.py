"""``fewshot train``."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fewshot.cli.inputs import choose_split
from fewshot.cli.tables import finish
from fewshot.cli.terminal import SET, plugged, say, typed
from fewshot.data.augment import Chain, Distortion, Light, Mirror
from fewshot.data.images import LabeledImages, list_splits
from fewshot.embedding.backbones.presets import located
from fewshot.embedding.checkpoint import describe_learner
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.network import choose_device
from fewshot.episodes.balanced_sampler import EpisodeSampler
from fewshot.episodes.episode import Sampler
from fewshot.episodes.grouped_sampler import GroupedEpisodeSampler
from fewshot.episodes.varied_sampler import VariedEpisodeSampler
from fewshot.errors import UnknownNameError
from fewshot.images.learned import default_learner
from fewshot.learners.base import Learner
from fewshot.learners.registry import learner_class
from fewshot.persistence.files import write_text
from fewshot.persistence.provenance import command_line, manifest
from fewshot.training.callbacks import Callback, TensorBoard
from fewshot.training.config import TrainConfig
from fewshot.training.distributed import first_process_first, process_group, rank
from fewshot.training.folder import BEST, MANIFEST, holds_training, lock_training, refuse_foreign_files
from fewshot.training.result import TrainResult, write_training
from fewshot.training.trainer import MetaTrainer

#: Fewer classes than the trainer's default, because users' data have fewer.
DEFAULT = {"n_way": 20}


def train(options: argparse.Namespace) -> int:
    """Meta-train a network and write the checkpoint."""
    config = read_config(options)
    device, out = choose_device(options.device), Path(options.out)
    _refuse_existing(out, options)
    with process_group(device):
        trainer = _trainer(options, config, device)
        splits = list_splits(options.data)
        with first_process_first():  # process 0 decodes the files, the others find them in the cache
            data = _pixels(LabeledImages.open(options.data, choose_split(options.data, None, "train")), options)
            val = _pixels(LabeledImages.open(options.data, "val"), options) if "val" in splits else None
        out.mkdir(parents=True, exist_ok=True)
        if rank() == 0:
            say(f"train: {data}", f"val:   {val or 'none; the last weights are kept'}")
        sampler, resumed = _sampler(options, data, config), _Resumed()
        trainer.callbacks = [*trainer.callbacks, resumed]
        with lock_training(out):
            if rank() == 0:
                _refuse_existing(out, options)  # another process may have been faster
            given = {"progress": not options.quiet, "resume": options.resume, "overwrite": options.force}
            result = trainer.fit(data, val, out=out, sampler=sampler, **given)
            if rank() > 0:
                return 0
            facts = _facts(options, trainer, result)
            write_text(out / MANIFEST, json.dumps(facts, indent=1) + "\n")
    if options.report:
        write_training(options.report, result, facts)
    way = "" if val is None else f"{min(config.val_n_way, len(val.classes))}-way {config.val_n_shot}-shot"
    best = "" if val is None else f", {100 * result.best_accuracy:.1f} % {way} on the validation classes"
    kept = f"{resumed.said}{facts['seconds']:.0f} s; kept the weights after episode {result.best_episode}{best}"
    unseen = options.data if "test" in splits else "DATA-OF-OTHER-CLASSES"
    facts = {"checkpoint": str(out / BEST), **facts}
    then = f"fewshot evaluate {typed(unseen)} --from {typed(out / BEST)}{plugged(options)}"
    finish(options, facts, kept, f"written to {out}; now: {then}")
    return 0


class _Resumed(Callback):
    """Keeps after which episode a training goes on: a sentence, empty for a new one."""

    said = ""

    def start(self, config: Mapping[str, Any], result: TrainResult) -> None:
        """Keep it: what is printed now would stand in the line of the progress bar."""
        if result.records:
            self.said = f"resumed after episode {result.records[-1]['episode']:.0f}; "


def _trainer(options: argparse.Namespace, config: TrainConfig, device: torch.device) -> MetaTrainer:
    changes = ((Mirror(), Light()) if options.photo else ()) + ((Distortion(),) if options.distort else ())
    augment = Chain(changes) if changes else None
    callbacks = [TensorBoard(options.tensorboard)] if options.tensorboard and rank() == 0 else []
    given = {"augment": augment, "device": device, "callbacks": callbacks, "crop": options.crop}
    return MetaTrainer(*_network(options), config, **given)


def _refuse_existing(out: Path, options: argparse.Namespace) -> None:
    """Raise if the folder holds other files, or a training and neither --resume nor --force is given."""
    refuse_foreign_files(out)
    if holds_training(out) and not (options.resume or options.force):
        raise ValueError(
            f"{out} already holds a training; continue with --resume, replace it with --force, or choose another --out"
        )


def _facts(options: argparse.Namespace, trainer: MetaTrainer, result: TrainResult) -> dict[str, Any]:
    """Return the manifest of a training."""
    config, told = trainer.config, result.to_dict()
    del told["records"]  # log.csv has them
    return {
        "manifest": manifest(command_line(), config.seed),
        "config": {
            "backbone": options.checkpoint or options.backbone,
            "weights": "hub" if _from_hub(options) else options.weights or ("own" if options.checkpoint else "random"),
            "learner": describe_learner(trainer.learner),
            **asdict(config),
        },
        **told,
    }


def _network(options: argparse.Namespace) -> tuple[str | Embedder, Learner]:
    """Return the backbone, as a name if it is trained from scratch, and the learner."""
    if not (options.checkpoint or options.weights or _from_hub(options)):
        return options.backbone, _learner(options)
    embedder = Embedder(
        Path(options.checkpoint) if options.checkpoint else options.backbone,
        weights=options.weights,
        pretrained=options.pretrained,
        device="cpu",
    )
    own = None if not options.checkpoint or options.learner else default_learner(embedder)
    if own is not None and options.metric is None and options.temperature is None:
        return embedder, own
    return embedder, _learner(options, "prototypical" if own is None else own.name)


def _from_hub(options: argparse.Namespace) -> bool:
    return not options.checkpoint and located(options.backbone, options.pretrained, options.weights)[1]


def _learner(options: argparse.Namespace, default: str = "prototypical") -> Learner:
    kind = learner_class(options.learner or default)
    own = {"metric": options.metric} if options.metric else {}
    if options.temperature is not None:
        own |= {"temperature": options.temperature, "learn_temperature": True}
    for name in own:
        if name not in inspect.signature(kind).parameters:
            raise ValueError(f"learner {kind.name!r} takes no {name}; leave --{name.removeprefix('learn_')} out")
    return kind(**own)


def read_config(options: argparse.Namespace) -> TrainConfig:
    """Return the configuration: defaults, overridden by --config, --set and the single options, in this order.

    Raises
    ------
    ValueError
        If a field or its value is invalid.
    """
    values, own, flags = dict[str, Any](DEFAULT), _own_options(options), options.flags
    if options.config:
        options.flags = flags | {name: (name, True) for name in TrainConfig.describe()}  # as the file calls them
        values |= (from_file := TrainConfig.from_toml(options.config))
        options.flags = flags | {name: (name, True) for name in from_file.keys() - own.keys()}
    for text in options.set:
        name, equals, value = map(str.strip, text.partition("="))
        if not equals:
            raise ValueError(f"--set {text}: expected KEY=VALUE, e.g. --set n_way=60")
        with _named(f"{SET}{name}", name):
            values |= TrainConfig.parse({name: value})
        options.flags = options.flags | ({} if name in own else {name: (f"{SET}{name}", True)})
    try:
        return TrainConfig(**values | own)
    except ValueError as error:
        name = error.kind if isinstance(error, UnknownNameError) else str(error).partition(" ")[0]
        flag = options.flags.get(name, ("",))[0]
        if flag == name:  # a person called it so, in the file
            raise ValueError(f"{options.config}: {error}") from error
        with _named(flag or name, name):
            raise


def _own_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that options of their own give."""
    own = {name: getattr(options, name, None) for name in TrainConfig.describe()}
    return {name: value for name, value in own.items() if value is not None}


@contextmanager
def _named(called: str, name: str) -> Iterator[None]:
    """Let errors that begin with the name of a field begin with what a person calls it."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(f"{name} "):
            raise
        raise ValueError(f"{called}{str(error).removeprefix(name)}") from error


def _sampler(options: argparse.Namespace, data: LabeledImages, config: TrainConfig) -> Any:
    """Return a function ``(labels, seed=...)`` that makes the sampler."""
    fixed = partial(
        EpisodeSampler,
        n_way=config.n_way,
        n_shot=config.n_shot,
        n_query=config.n_query,
        small_classes=options.small_classes,
    )
    inner: Any = VariedEpisodeSampler if options.varied else fixed
    if not options.by_group:
        return inner
    if not any("/" in str(label) for label in data.classes.tolist()):
        raise ValueError("no label has a /, which would end the name of its group; leave --by-group out")
    groups = np.array([str(label).partition("/")[0] for label in data.labels.tolist()])

    def grouped(labels: Any, seed: int) -> Sampler:
        return GroupedEpisodeSampler(labels, groups, inner, small_groups="drop", seed=seed)

    return grouped


def _pixels(data: LabeledImages, options: argparse.Namespace) -> LabeledImages:
    if data.is_decoded and not options.size:
        coloured = data.images.ndim == 4 and data.images.shape[-1] == 3
        return data.decoded(data.images.shape[1], grey=True, crop=options.crop) if options.grey and coloured else data
    if not options.size:
        raise ValueError("the images are files of any size; give the size to train on, e.g. --size 84")
    on_error: Literal["skip", "raise"] = "skip" if options.skip_unreadable else "raise"
    given = {"grey": options.grey, "bits": options.bits, "crop": options.crop}
    return data.decoded(options.size, progress=not options.quiet, on_error=on_error, **given)
