"""``fewshot evaluate``."""

from __future__ import annotations

import argparse
from typing import Any

from fewshot.classifier import ready_learner
from fewshot.cli.models import make_embedder
from fewshot.cli.tables import give, is_piped
from fewshot.cli.terminal import put
from fewshot.data.images import LabeledImages
from fewshot.data.splits import list_splits
from fewshot.evaluation.evaluate import evaluate as measure
from fewshot.manifest import command_line, manifest
from fewshot.model.defaults import default_learner
from fewshot.text import printable


def evaluate(options: argparse.Namespace) -> int:
    """Measure a backbone and a learner on episodes."""
    embedder = make_embedder(options).fit()
    learner = ready_learner(options.learner) if options.learner else default_learner(embedder)
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
        put(printable(f"{place}: {len(data)} images of {len(data.classes)} classes; {learner}") + "\n")
    facts = {
        "manifest": manifest(command_line(), options.seed),
        "fingerprint": embedder.fingerprint,
        "split": split,
        "results": rows,
    }
    give(rows, options, facts)
    return 0
