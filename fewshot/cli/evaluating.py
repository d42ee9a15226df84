"""``fewshot evaluate``."""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.benchmark.backbones import classes_seen, is_pretrained
from fewshot.benchmark.given import GivenEmbeddings, read_given
from fewshot.benchmark.grid_file import is_given
from fewshot.cli.inputs import open_data
from fewshot.cli.models import make_embedder
from fewshot.cli.options import BACKBONE
from fewshot.cli.tables import give
from fewshot.cli.terminal import say
from fewshot.data.images import LabeledImages
from fewshot.embedding.backbones import spec_of
from fewshot.embedding.own import OwnEmbedder
from fewshot.episodes.balanced_sampler import EpisodeSampler
from fewshot.episodes.evaluate import evaluate as measure
from fewshot.episodes.query_draws import BALANCED
from fewshot.images.learned import default_learner, suited
from fewshot.learners.base import Learner
from fewshot.learners.registry import ready_learner
from fewshot.persistence.provenance import command_line, manifest
from fewshot.utils.text import counted

#: Options about images and networks, which embeddings do not need.
OF_IMAGES = {"checkpoint": "from"} | {
    name: name for name in ("weights", "pretrained", "domain", "views", "size", "bits", "split", "skip_unreadable")
}


def evaluate(options: argparse.Namespace) -> int:
    """Measure the accuracy of a backbone and a learner on episodes."""
    learner, embeddings, labels, about = (_given if is_given(options.data) else _embedded)(options)
    answer = partial(measure, learner, embeddings, labels, n_way=options.way, n_query=options.query)
    answer = partial(answer, n_episodes=options.episodes, seed=options.seed, **_drawn(options))
    results = [answer(n_shot=shot) for shot in options.shot]
    spread = {} if options.query_classes == BALANCED else {"query classes": options.query_classes}
    rows = [
        {"way": options.way, "shot": shot, "accuracy %": 100 * result.mean, "ci95 %": 100 * result.ci95}
        | {"episodes": options.episodes, "queries per class": options.query, **spread}
        | {"learner": result.protocol["learner"]}
        for shot, result in zip(options.shot, results, strict=True)
    ]
    facts = {
        "manifest": manifest(command_line(), options.seed),
        "fingerprint": about.pop("fingerprint"),
        "data": Path(options.data).name,
        **about,
        "transductive": learner.transductive,
        "supposes_balance": learner.supposes_balance,
        "results": [
            {**row, "accuracies": result.accuracies.tolist()} for row, result in zip(rows, results, strict=True)
        ],
    }
    mark = ", transductive" * learner.transductive
    no_interval = {"ci95 %": "none"} if options.episodes == 1 else {}
    give(rows, options, facts, shown=[{**row, **no_interval, "learner": row["learner"] + mark} for row in rows])
    return 0


def _embedded(options: argparse.Namespace) -> tuple[Learner, NDArray[Any], NDArray[Any], dict[str, Any]]:
    """Return the learner, the embeddings of images and their labels, and facts about them."""
    embedder = make_embedder(options).fit()
    learner = ready_learner(suited(options.learner or default_learner(embedder), embedder))
    data, split = open_data(options.data, options, "test", f"; {learner}")
    _check_sizes(data.labels, options)
    seen = _seen(options.checkpoint, data)
    if options.skip_unreadable:
        embedder.set_params(on_error="skip")
    embedded = embedder.embed(data)
    if len(embedded.errors) == len(data):
        raise embedded.errors[0]
    readable = np.setdiff1d(np.arange(len(data)), [error.index for error in embedded.errors])
    network = options.checkpoint or options.backbone
    about = {
        "fingerprint": embedder.fingerprint,
        "split": split,
        "backbone": (spec_of(embedder.network) or {}).get("name", Path(network).name),
        "external": is_pretrained(network, options.weights),
        "seen_classes": seen,
    }
    return learner, embedded.embeddings[readable], data.labels[readable], about


def _given(options: argparse.Namespace) -> tuple[Learner, NDArray[Any], NDArray[Any], dict[str, Any]]:
    """Return the learner, the embeddings of a file and their labels, and facts about them."""
    given = [flag.replace("_", "-") for name, flag in OF_IMAGES.items() if getattr(options, name)]
    given += ["backbone"] * (options.backbone != BACKBONE)
    if given:
        raise ValueError(f"{options.data} holds embeddings, and --{given[0]} is about images; leave it out")
    data: GivenEmbeddings = read_given(options.data)
    own = OwnEmbedder(np.asarray, data.network)
    learner = ready_learner(suited(options.learner or default_learner(own), own))
    say(f"{options.data}: {counted(len(data), 'embedding')} of {counted(len(data.classes), 'class')}; {learner}")
    _check_sizes(data.labels, options)
    about: dict[str, Any] = {
        "fingerprint": "",
        "split": None,
        "backbone": data.network,
        "external": True,
        "seen_classes": [],
    }
    return learner, data.images, data.labels, about


def _drawn(options: argparse.Namespace) -> dict[str, Any]:
    return {"small_classes": options.small_classes, "query_classes": options.query_classes}


def _check_sizes(labels: NDArray[Any], options: argparse.Namespace) -> None:
    """Raise if the episodes do not fit the data, before the minutes that embedding may take."""
    for shot in options.shot:
        EpisodeSampler(labels, options.way, shot, options.query, **_drawn(options))


def _seen(checkpoint: str | None, data: LabeledImages) -> list[str]:
    """Return the classes that a checkpoint was trained or selected on, and warn of them."""
    seen = classes_seen(checkpoint, data) if checkpoint else []
    if seen:
        warnings.warn(
            f"{checkpoint} was trained or selected on {counted(len(seen), 'class')} of these, e.g. "
            f"{', '.join(seen[:3])}; this is no accuracy on unseen classes: measure on others",
            stacklevel=2,
        )
    return seen
