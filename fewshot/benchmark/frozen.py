"""Frozen episodes: a file that pins which images every learner saw, so that another run can be checked against it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot._version import __version__
from fewshot.benchmark.grid_file import Grid
from fewshot.benchmark.sources import Measured
from fewshot.benchmark.tasks import make_sampler
from fewshot.episodes.episode import Sampler
from fewshot.episodes.query_draws import BALANCED
from fewshot.persistence.content import json_object
from fewshot.persistence.files import read_regular

#: Larger files are rejected before they are read.
MOST_BYTES = 1 << 28


def freeze(grid: Grid, data: Sequence[Measured]) -> dict[str, Any]:
    """Return, for each data set, its content, its classes and a digest of all rows of each set of episodes.

    Raises
    ------
    ValueError
        If there are too few classes or images for an episode; the message names the data set.
    """
    return {"fewshot": __version__, "datasets": {one.dataset.name: _freeze_dataset(grid, one) for one in data}}


def check_frozen(found: dict[str, Any], path: str | Path, *, complete: bool = True) -> None:
    """Compare episodes with a frozen file.

    Parameters
    ----------
    found : dict
        As `freeze` returns it.
    path : path
        The file.
    complete : bool, default=True
        Whether the file must list every data set and every set of episodes.

    Raises
    ------
    ValueError
        If the file holds no frozen episodes, or different ones; the message names the first difference.
    """
    try:
        frozen = json_object(read_regular(path, MOST_BYTES, follow=True))["datasets"]
        difference = _difference(found["datasets"], frozen, path, complete)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} holds no frozen episodes ({error}); expected an episodes.json of another run"
        ) from None
    if difference:
        raise ValueError(difference)


def digest_episodes(episodes: Sampler, n_episodes: int) -> str:
    """Return the SHA-256 of all rows and labels of the first episodes of a sampler.

    Examples
    --------
    >>> from fewshot import EpisodeSampler, digits
    >>> one, other = (digest_episodes(EpisodeSampler(digits().labels, n_shot=1, seed=seed), 10) for seed in (0, 1))
    >>> len(one), one == other
    (64, False)
    """
    rows = hashlib.sha256()
    for episode in episodes.between(0, n_episodes):
        for part in (episode.support, episode.support_labels, episode.query, episode.query_labels):
            rows.update(part.tobytes())
    return rows.hexdigest()


def frozen_cells(frozen: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the sets of episodes that a frozen file of this name pins, one by one.

    Each has ``file``, ``dataset``, ``split``, ``n_episodes``, ``sha256`` and the sizes of its protocol.
    """
    return [
        {"file": name, "dataset": dataset, "split": data["split"], "query_classes": BALANCED, **cell["protocol"]}
        | {"n_episodes": cell["episodes"], "sha256": cell["sha256"]}
        for dataset, data in frozen["datasets"].items()
        for cell in data["cells"]
    ]


def _difference(found: dict[str, Any], frozen: dict[str, Any], path: str | Path, complete: bool) -> str:
    """Return the first difference in a sentence; empty if there is none."""
    for name, data in found.items():
        if name not in frozen:
            if complete:
                return f"{path} has no episodes of {name!r}; its data sets are {', '.join(frozen)}"
            continue
        other = frozen[name]
        if data["sha256"] != other["sha256"]:
            cure = "prepare the same data" if complete else "prepare the same data, or choose another --out"
            return (
                f"{name} is not the data that {path} was frozen on ({data['images']} images of {data['classes']} "
                f"classes here, {other['images']} of {other['classes']} there, or different ones); {cure}"
            )
        digests = {_sizes(cell): cell["sha256"] for cell in other["cells"]}
        for cell in data["cells"]:
            if _sizes(cell, without="sampler") in digests:
                return (
                    f"{path} was frozen by a version of fewshot that drew different episodes of {name!r}; freeze them "
                    "again with this version, or use the version that froze them"
                )
            expected = digests.get(_sizes(cell))
            if expected is None and complete:
                return f"{path} has no {cell['protocol']} of {name!r}; add it there, or leave it out here"
            if expected is not None and cell["sha256"] != expected:
                return f"{cell['protocol']} of {name!r} differs from the episodes of {path}"
    return ""


def _freeze_dataset(grid: Grid, one: Measured) -> dict[str, Any]:
    cells = []
    for n_way, n_shot, spread, seed in grid.cells:
        try:
            made = make_sampler(n_way, n_shot, one.dataset.n_query or grid.n_query, spread)
            sampler = made(one.data.labels, seed=seed)
        except ValueError as error:
            raise ValueError(f"{one.dataset.name}: {error}") from error
        rows = digest_episodes(sampler, grid.n_episodes)
        cells.append({"protocol": sampler.protocol, "episodes": grid.n_episodes, "sha256": rows})
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


def _sizes(cell: dict[str, Any], without: str = "") -> str:
    protocol = {name: value for name, value in cell["protocol"].items() if name != without}
    return json.dumps([protocol, cell["episodes"]], sort_keys=True)
