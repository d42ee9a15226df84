"""Part of the classes of a version, so that many are not sent at once."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewshot.serve.problems import Problem
from fewshot.serve.view import View
from fewshot.utils.text import natural_key

Order = Literal["name", "fewest", "most"]
#: What the number of examples counts for in each order.
_SIGNS = {"name": 0, "fewest": 1, "most": -1}


@dataclass(frozen=True)
class Part:
    """Names of classes with their number of examples, how many were asked for in all, and what comes next."""

    classes: list[tuple[str, int]]
    total: int
    next: str | None


def list_part(view: View, limit: int, after: str, order: Order, search: str, name: str | None) -> Part:
    """Return the first `limit` classes after `after`, with `search` in their name.

    A place is the number of examples of the class before, and its name: it stays if that class is removed.

    Raises
    ------
    Problem
        If `after` is no place.
    """
    names, counts = view.ordered.names, np.array(view.ordered.counts, np.int64)
    places, by = np.arange(len(names)), _SIGNS[order] * counts
    wanted = np.ones(len(names), bool)
    if name is not None:
        wanted &= np.array([one == name for one in names], bool)
    if search:
        folded = search.casefold()
        wanted &= np.array([folded in one for one in view.ordered.folded], bool)
    total = int(wanted.sum())
    if after and names:
        n, place = _place(view, after)
        wanted &= (by > _SIGNS[order] * n) | ((by == _SIGNS[order] * n) & (places >= place))
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(by[rows], kind="stable")]
    found = [(names[row], int(counts[row])) for row in rows[:limit]]
    return Part(found, total, f"{found[-1][1]} {found[-1][0]}" if len(rows) > limit else None)


def _place(view: View, after: str) -> tuple[int, int]:
    """Return the number of examples of the class before, and the place of the class that follows its name."""
    n, space, name = after.partition(" ")
    if space and n.isascii() and n.isdigit() and len(n) < 18:
        try:
            return int(n), bisect_right(view.ordered.keys, natural_key(view.label(name, new=True)))
        except (ValueError, TypeError, OverflowError):
            pass  # labels that are numbers have none of this name
    raise Problem(422, "invalid", "after is no place in the list; send what the answer before had as next")
