"""``fewshot evaluate``."""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np

from fewshot.cli.inputs import open_data
from fewshot.cli.models import make_embedder
from fewshot.cli.tables import give
from fewshot.episodes.evaluate import evaluate as measure
from fewshot.images.model import default_learner
from fewshot.learners.registry import ready_learner
from fewshot.persistence.provenance import command_line, manifest


def evaluate(options: argparse.Namespace) -> int:
    """Measure the accuracy of a backbone and a learner on episodes."""
    embedder = make_embedder(options).fit()
    learner = ready_learner(options.learner) if options.learner else default_learner(embedder)
    data, split = open_data(options.data, options, "test", f"; {learner}")
    if options.skip_unreadable:
        embedder.set_params(on_error="skip")
    embedded = embedder.embed(data)
    readable = np.setdiff1d(np.arange(len(data)), [error.index for error in embedded.errors])
    embeddings, labels = embedded.embeddings[readable], data.labels[readable]
    sizes = {"n_way": options.way, "n_query": options.query, "n_episodes": options.episodes, "seed": options.seed}
    answer = partial(measure, learner, embeddings, labels, small_classes=options.small_classes, **sizes)
    results = [answer(n_shot=shot) for shot in options.shot]
    rows = [
        {"way": options.way, "shot": shot, "accuracy %": 100 * result.mean, "ci95 %": 100 * result.ci95}
        | {"episodes": options.episodes, "queries per class": options.query, "learner": result.protocol["learner"]}
        for shot, result in zip(options.shot, results, strict=True)
    ]
    facts = {
        "manifest": manifest(command_line(), options.seed),
        "fingerprint": embedder.fingerprint,
        "split": split,
        "results": rows,
    }
    give(rows, options, facts)
    return 0
