"""``fewshot annotate`` and ``search``: tables of vectors and labels, and similar images in them."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fewshot.cli.inputs import as_label, list_paths
from fewshot.cli.serving import read_token
from fewshot.cli.tables import csv_form, finish, give
from fewshot.cli.terminal import complain
from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.persistence.files import check_file
from fewshot.retrieval.remote import RemoteModel
from fewshot.retrieval.retrieve import classify_and_retrieve
from fewshot.retrieval.stores.faiss import FaissStore
from fewshot.retrieval.stores.records import Record
from fewshot.retrieval.table import import_records, table_facts
from fewshot.retrieval.work import annotate_folder
from fewshot.utils.text import as_unicode, closest, counted


def annotate(options: argparse.Namespace) -> int:
    """Write vectors and labels of all images of a folder; exit with 1 if one could not be read."""
    is_csv, start = options.out.lower().endswith(".csv"), time.perf_counter()
    if not is_csv and (options.spreadsheet or options.decimal_comma):
        raise ValueError(
            f"--spreadsheet and --decimal-comma are about CSV; leave them out, or write to {_csv(options)}"
        )
    found = annotate_folder(
        options.folder,
        _answering(options),
        options.out,
        shard=options.shard,
        executor=options.executor,
        jobs=options.jobs,
        device=options.device,
        progress=not options.quiet,
        overwrite=options.force,
        form=csv_form(options),
    )
    seconds = time.perf_counter() - start
    resumed = f", with {counted(found['resumed'], 'shard')} of an earlier run" if found["resumed"] else ""
    said = f"{counted(found['images'], 'image')} in {seconds:.1f} s{resumed}; written to {options.out}"
    finish(options, {"written": options.out, **found}, said)
    if found["unreadable"]:
        complain(f"{counted(found['unreadable'], 'image')} could not be read; see the column error")
    return 1 if found["unreadable"] else 0


def _csv(options: argparse.Namespace) -> str:
    return str(Path(options.out).with_suffix(".csv"))


def _answering(options: argparse.Namespace) -> str | RemoteModel:
    """Return what answers: the folder of a classifier, or a service."""
    if options.server is None:
        if options.token is not None:
            raise ValueError("--token is for --server; leave it out")
        return str(options.model)
    for name, default in (("device", "auto"), ("max_pixels", None)):
        if getattr(options, name) != default:
            raise ValueError(f"{options.flags[name][0]} is for --model; a service has its own, so leave it out")
    return RemoteModel(options.server, None if options.token is None else read_token(options.token))


def search(options: argparse.Namespace) -> int:
    """Find similar images in a table; exit with 1 if an image could not be read or nothing was found for it."""
    check_file(options.table, "a table of fewshot annotate")
    if options.table.lower().endswith(".csv"):
        raise ValueError(
            f"{options.table} is CSV, which holds no vectors to search; make a table that does: fewshot annotate "
            f"FOLDER --model {shlex.quote(options.model)} --out archive.parquet"
        )
    model = FewShotImageClassifier.load(options.model, device=options.device).set_params(on_error="unknown")
    model.embedder_.set_params(progress=not options.quiet)
    paths, where = list_paths(options.images), _conditions(model, options.where)
    facts = table_facts(options.table)
    metric = options.metric or facts["metric"] or model.learner_.item_metric
    store = FaissStore(metric, facts["fingerprint"], facts["d"])
    store.check_embedder(model.embedder_.fingerprint)
    columns = {"label"}
    store.add(_noting(columns, import_records(options.table)))
    if len(store) and (others := sorted(where.keys() - columns)):
        hint = closest(others[0], columns) or (
            f"; expected one of {', '.join(sorted(columns))}, or a column of your own, joined to the table by id"
        )
        raise ValueError(f"{options.table} has no column {others[0]!r} for --where{hint}")
    labels, matches, errors = classify_and_retrieve(model, store, paths, options.k, where, options.by_label)
    rows = [
        {"image": as_unicode(path), "rank": rank, "found": match.id, "label": match.label}
        | {"similarity": match.similarity, "query_probability": "" if match.probability is None else match.probability}
        for path, own in zip(paths, matches, strict=True)
        for rank, match in enumerate(own, start=1)
    ]
    give(rows, options)
    reasons = {error.index: error.reason for error in errors}
    if options.by_label:
        known = set(model.classes_.tolist())
        _tell_strange([path for i, path in enumerate(paths) if labels[i] not in known and i not in reasons], len(paths))
    nothing = [i for i, own in enumerate(matches) if not own]
    for i in nothing:
        complain(f"{paths[i]}: {reasons.get(i, 'nothing was found')}")
    return 1 if nothing else 0


def _tell_strange(strange: list[Any], n: int) -> None:
    """Say which of `n` images are like no class, so that no label limits what was searched for them."""
    if strange:
        first = as_unicode(strange[0])
        complain(f"{len(strange)} of {counted(n, 'image')} like no class, first {first}; searched among all labels")


def _noting(columns: set[str], records: Iterable[Record]) -> Iterator[Record]:
    """Yield records, and add their column names to `columns`."""
    for record in records:
        columns.update(record.payload)
        yield record


def _conditions(model: FewShotImageClassifier, texts: list[str]) -> dict[str, Any]:
    """Return the allowed values of each name, or its bounds; a repeated name adds to them."""
    found: dict[str, Any] = {}
    for text in texts:
        name, sign, value = _parts(text)
        known = found.setdefault(name, [] if sign == "=" else {})
        if isinstance(known, list) != (sign == "="):
            raise ValueError(f"--where {name} has both a value and a bound; give one of them")
        if sign in known:
            raise ValueError(f"--where {name} is bound twice by {sign!r}; give one bound")
        if isinstance(known, dict):
            known[sign] = _bound(text, value)
        else:
            one = _value(model, name, value)
            known.extend(one if isinstance(one, list) else [one])
    return found


def _parts(text: str) -> tuple[str, str, str]:
    found = re.fullmatch(r"([^=<>]+)(>=|<=|=|>|<)([^=<>].*|)", text, re.DOTALL)
    if found is None:
        raise ValueError(
            f"--where is {text!r}; expected NAME=VALUE or NAME>NUMBER, such as label=cat or 'probability>=0.9'"
        )
    return found[1], found[2], found[3]


def _bound(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"--where is {text!r}; expected a number after the comparison") from None


def _value(model: FewShotImageClassifier, name: str, value: str) -> Any:
    if name in ("label", "nearest"):
        return as_unicode(as_label(model, value))
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return as_unicode(value)
    except RecursionError:
        raise ValueError(f"--where {name} is nested too deeply; expected a value or a list of values") from None
