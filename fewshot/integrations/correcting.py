"""Correct what a model has learned: find which images of new labels it knows, and under which labels."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.embedding.network import Embedded
from fewshot.images.learned import Prepared
from fewshot.images.support import Support
from fewshot.utils.twins import earlier_twins


def learned_files(support: Support | None) -> dict[str, set[Any]]:
    """Return the labels under which files were learned, by path without links.

    Relative paths are left out: they may name another file in another working directory.
    """
    found = defaultdict(set)
    for name, label in zip(*((support.ids, support.labels.tolist()) if support else ((), ())), strict=True):
        if os.path.isabs(name):
            found[os.path.realpath(name)].add(label)
    return found


def changes(support: Support | None, prepared: Prepared) -> tuple[Prepared | None, Prepared | None]:
    """Return the items to learn, and the support to remove first, so that each item has its new label alone.

    Items are the same if their embeddings are, up to rounding, or their absolute paths.

    Parameters
    ----------
    support : Support or None
        What was learned; None if it was not kept, and then all items are new.
    prepared : Prepared
        Items with their new labels.

    Returns
    -------
    tuple of (Prepared or None, Prepared or None)
        Items that were not learned under this label, and support under another one; None for none.
    """
    if not support:
        return prepared, None
    labels, known = list(np.asarray(prepared.labels).tolist()), support.labels.tolist()
    more: list[int] = []
    wrong: set[int] = set()
    for rows, items in _same(support, prepared):
        wanted = {labels[item] for item in items}
        more += [item for item in items if labels[item] not in {known[row] for row in rows}]
        wrong.update(row for row in rows if items and known[row] not in wanted)
    old = support.rows(sorted(wrong))
    gone = replace(prepared, names=old.ids, named=False, labels=old.labels, embedded=Embedded(old.embeddings, [], []))
    return _chosen(prepared, sorted(more)) if more else None, gone if wrong else None


def _same(support: Support, prepared: Prepared) -> list[tuple[list[int], list[int]]]:
    """Return groups of the same image: rows of the support, and items."""
    n = len(support)
    first: list[int] = []
    for i, twin in enumerate(
        earlier_twins(np.concatenate([support.embeddings, prepared.embedded.embeddings])).tolist()
    ):
        first.append(i if twin < 0 else first[twin])
    by_path: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(support.ids):
        if os.path.isabs(name):
            by_path[os.path.realpath(name)].append(i)
    changed: list[tuple[list[int], list[int]]] = []
    groups: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i in range(n):
        groups[first[i]][0].append(i)
    for i, name in enumerate(prepared.names):
        path = os.path.realpath(name)
        if first[n + i] >= n and path in by_path:  # the file has changed since
            changed.append((by_path[path], [i]))
        else:
            groups[first[n + i]][1].append(i)
    return [*groups.values(), *changed]


def _chosen(prepared: Prepared, items: Sequence[int]) -> Prepared:
    """Return some of the items."""
    labels: NDArray[Any] = np.asarray(prepared.labels)[list(items)]
    thumbnails = [prepared.embedded.thumbnails[i] for i in items] if prepared.embedded.thumbnails else []
    embedded = Embedded(prepared.embedded.embeddings[list(items)], [], thumbnails)
    return replace(prepared, names=[prepared.names[i] for i in items], labels=labels, embedded=embedded)
