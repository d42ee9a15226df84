"""Frozen episodes: a file that pins which images every learner saw, so that another run sees the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot._version import __version__
from fewshot.benchmark.grid import Grid
from fewshot.benchmark.sources import Measured
from fewshot.benchmark.tasks import make_sampler
from fewshot.persistence.content import parse_json
from fewshot.persistence.files import read_regular, write_text

#: A file of frozen episodes is no larger.
MOST_BYTES = 1 << 28


def freeze(grid: Grid, data: Sequence[Measured]) -> dict[str, Any]:
    """Return, for each data set, its content, its classes and the digest of all rows of all episodes of each kind.

    Raises
    ------
    ValueError
        If the classes are too few or too small for an episode; the message names the data set.
    """
    return {"fewshot": __version__, "datasets": {one.dataset.name: _of_dataset(grid, one) for one in data}}


def check_frozen(found: dict[str, Any], path: str | Path, *, all_of_them: bool = True) -> None:
    """Compare episodes with those of a file, in which all of them must be unless that is said.

    Raises
    ------
    ValueError
        If the file is none, or holds others; the message says where they part.
    """
    try:
        wanted = parse_json(read_regular(path, MOST_BYTES, follow=True))["datasets"]
    except (OSError, ValueError, KeyError) as error:
        raise _none(path, error) from None
    try:
        _compare(found, wanted, path, all_of_them)
    except (KeyError, TypeError, AttributeError) as error:
        raise _none(path, error) from None


def _none(path: str | Path, error: Exception) -> ValueError:
    return ValueError(f"{path} holds no frozen episodes ({error}); expected an episodes.json of another run")


def _compare(found: dict[str, Any], wanted: dict[str, Any], path: str | Path, all_of_them: bool) -> None:
    for name, data in found["datasets"].items():
        if name not in wanted:
            if not all_of_them:
                continue
            raise ValueError(f"{path} has no episodes of {name!r}; its data sets are {', '.join(wanted)}")
        if data["sha256"] != wanted[name]["sha256"]:
            cure = "prepare the same data" if all_of_them else "prepare the same data, or choose another --out"
            raise ValueError(
                f"{name} is not the data that {path} was frozen on ({data['images']} images of {data['classes']} "
                f"classes here, {wanted[name]['images']} of {wanted[name]['classes']} there, or others); {cure}"
            )
        there = {_sizes(cell): cell for cell in wanted[name]["cells"]}
        for cell in data["cells"]:
            if _sizes(cell) not in there:
                if not all_of_them:
                    continue
                raise ValueError(f"{path} has no {cell['protocol']} of {name!r}; add it there, or leave it out here")
            if cell["sha256"] != there[_sizes(cell)]["sha256"]:
                raise ValueError(f"{cell['protocol']} of {name!r} are not the episodes of {path}: their digests differ")


def write_frozen(found: dict[str, Any], path: str | Path) -> None:
    """Write the file."""
    write_text(path, json.dumps(found, indent=1) + "\n")


def _of_dataset(grid: Grid, one: Measured) -> dict[str, Any]:
    cells = []
    for way, shot, seed in grid.cells:
        try:
            sampler = make_sampler(way, shot, one.dataset.query or grid.query)(one.data.labels, seed=seed)
        except ValueError as error:
            raise ValueError(f"{one.dataset.name}: {error}") from error
        rows = hashlib.sha256()
        for episode in sampler.between(0, grid.episodes):
            for part in (episode.support, episode.support_labels, episode.query, episode.query_labels):
                rows.update(part.tobytes())
        cells.append({"protocol": sampler.protocol, "episodes": grid.episodes, "sha256": rows.hexdigest()})
    return {
        "source": one.dataset.source if one.dataset.source != one.dataset.name else "",
        "split": one.dataset.split,
        "images": len(one.data),
        "classes": len(one.data.classes),
        "names": [str(label) for label in one.data.classes.tolist()],
        "dropped": list(one.dropped),
        "sha256": one.digest,
        "cells": cells,
    }


def _sizes(cell: dict[str, Any]) -> str:
    return json.dumps([cell["protocol"], cell["episodes"]], sort_keys=True)
