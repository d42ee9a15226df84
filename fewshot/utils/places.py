"""Where each label is kept, for labels that come and go while earlier versions stay as they were."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.labels import as_labels

#: Most changes beside the sorted labels; more are merged into them.
MOST_CHANGES = 4096


class Places:
    """An immutable map from labels to whole numbers: sorted labels, and what has changed since.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Sorted labels, each once.
    places : ndarray of shape (n,)
        Their numbers, at least 0.
    changes : mapping, optional
        Numbers of other labels, or new numbers of these; -1 for a label that is gone.
    n : int, optional
        How many labels have a number; by default there are no changes.

    Examples
    --------
    >>> known = Places(np.array(["ant", "fly"]), np.array([0, 1]))
    >>> new = known.changed({"bee": 2, "fly": -1})
    >>> [places.of(label) for places in (known, new) for label in ("ant", "bee", "fly")]
    [0, -1, 1, 0, 2, -1]
    >>> new.ordered()
    (array(['ant', 'bee'], dtype='<U3'), array([0, 2]))
    """

    def __init__(
        self,
        labels: NDArray[Any],
        places: NDArray[np.int64],
        changes: Mapping[Any, int] | None = None,
        n: int | None = None,
    ) -> None:
        self._labels, self._places, self._changes = labels, places, changes or {}
        self._n = len(labels) if n is None else n

    def of(self, label: Any) -> int:
        """Return the number of a label, -1 if it has none."""
        if (found := self._changes.get(label)) is not None:
            return found
        if not len(self._labels) or isinstance(label, str) != isinstance(self._labels[0], str):
            return -1
        place = self._search([label])[0]
        return int(self._places[place]) if place < len(self._labels) and self._labels[place] == label else -1

    def _search(self, labels: list[Any]) -> NDArray[np.int64]:
        """Return where sorted labels are, or would be, among the sorted ones."""
        known = self._labels
        if known.dtype.kind == "U" and any(4 * len(x) > known.dtype.itemsize or x.endswith("\0") for x in labels):
            # numpy would widen every label to compare, and ignores a NUL at the end.
            return np.array([self._bisect(label) for label in labels], np.int64)
        return np.searchsorted(known, np.array(labels, known.dtype)).astype(np.int64)

    def _bisect(self, label: Any) -> int:
        low, high = 0, len(self._labels)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._labels[middle] < label else (low, middle)
        return low

    def __len__(self) -> int:
        return self._n

    def some(self) -> NDArray[Any]:
        """Return a label of the type of all, (1,)."""
        return self._labels[:1] if len(self._labels) else as_labels(list(self._changes)[:1])

    def changed(self, changes: Mapping[Any, int]) -> Places:
        """Return a map in which these labels have these numbers; -1 removes a label."""
        if not changes:
            return self
        n = self._n + sum((new >= 0) - (self.of(label) >= 0) for label, new in changes.items())
        found = Places(self._labels, self._places, {**self._changes, **changes}, n)
        return found if len(found._changes) <= MOST_CHANGES else Places(*found.ordered())

    @cached_property
    def _ordered(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        if not self._changes:
            return self._labels, self._places
        labels = sorted(self._changes)
        numbers = np.array([self._changes[label] for label in labels], np.int64)
        at = self._search(labels)
        known = np.array([p < len(self._labels) and self._labels[p] == x for p, x in zip(at, labels, strict=True)])
        places = self._places.copy()
        places[at[known]] = numbers[known]
        new = ~known & (numbers >= 0)
        merged = self._labels
        if new.any():
            added = as_labels([label for label, is_new in zip(labels, new.tolist(), strict=True) if is_new])
            merged = merged.astype(np.result_type(merged, added), copy=False)
            merged, places = np.insert(merged, at[new], added), np.insert(places, at[new], numbers[new])
        return (merged, places) if (places >= 0).all() else (merged[places >= 0], places[places >= 0])

    def ordered(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return all labels, sorted, and their numbers."""
        return self._ordered
