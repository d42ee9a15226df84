"""``fewshot annotate`` and ``search``: vectors and labels of a folder, and what in them is like an image."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from fewshot.annotation.retrieve import retrieve
from fewshot.annotation.table import import_records, table_facts
from fewshot.annotation.work import annotate_folder
from fewshot.cli.models import as_label, list_paths, n_images
from fewshot.cli.tables import give
from fewshot.model.image_classifier import FewShotImageClassifier
from fewshot.stores.faiss import FaissStore


def annotate(options: argparse.Namespace) -> int:
    """Write vectors and labels of all images of a folder; 1 where one could not be read."""
    start = time.perf_counter()
    found = annotate_folder(
        options.folder,
        options.model,
        options.out,
        shard=options.shard,
        executor=options.executor,
        jobs=options.jobs,
        device=options.device,
        progress=not options.quiet,
    )
    seconds = time.perf_counter() - start
    resumed = f", {found['resumed']} shards of an earlier run among them" if found["resumed"] else ""
    print(f"{n_images(found['images'])} in {seconds:.1f} s{resumed}; written to {options.out}")
    if found["unreadable"]:
        print(f"fewshot: {n_images(found['unreadable'])} could not be read; see the column error", file=sys.stderr)
    return 1 if found["unreadable"] else 0


def search(options: argparse.Namespace) -> int:
    """Find the images of a table that are like others; 1 where one could not be read."""
    model = FewShotImageClassifier.load(options.model, device=options.device).set_params(on_error="unknown")
    model.embedder_.set_params(progress=not options.quiet)
    facts = table_facts(options.table)
    store = FaissStore(options.metric or facts["metric"], facts["fingerprint"], facts["d"])
    store.check_embedder(model.embedder_.fingerprint)
    store.add(import_records(options.table))
    paths = list_paths(options.images)
    where = dict(_condition(model, text) for text in options.where)
    matches = retrieve(model, store, paths, options.k, where=where or None, by_label=options.by_label)
    rows: list[dict[str, Any]] = [
        {
            "image": path,
            "rank": rank,
            "found": match.id,
            "label": match.label,
            "similarity": match.similarity,
            "probability": "" if match.probability is None else match.probability,
        }
        for path, own in zip(paths, matches, strict=True)
        for rank, match in enumerate(own, start=1)
    ]
    give(rows, options)
    nothing = [path for path, own in zip(paths, matches, strict=True) if not own]
    for path in nothing:
        print(f"fewshot: {path}: nothing was found, or the image could not be read", file=sys.stderr)
    return 1 if nothing else 0


def _condition(model: FewShotImageClassifier, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--where is {text!r}; expected NAME=VALUE, such as label=cat or unknown=false")
    if name in ("label", "nearest"):
        return name, as_label(model, value)
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
