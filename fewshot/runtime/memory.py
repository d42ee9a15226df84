"""What a device remembers: class sums and counts, or the support itself; two memories add."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import brief
from fewshot.runtime.labels import is_writable
from fewshot.runtime.similarity import MOST_MAGNITUDE, Array

#: Names of the arrays in a file, of either kind of memory.
_SUMMED, _KEPT = ("sums", "counts"), ("support", "labels", "weights")


@dataclass(frozen=True, eq=False)
class DeviceMemory:
    """Labelled rows: one a class, the sum of its support, or one a support image. It never changes; it is replaced.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Sorted labels.
    n_support : ndarray of shape (n_classes,)
        Support images of each class.
    is_summed : bool
        Whether row ``i`` is the sum of class ``i``.
    x : ndarray of shape (m, d)
        Sums in float64, or support embeddings.
    labels : ndarray of shape (m,)
        The class of each row, as its place in `classes`.
    weights : ndarray of shape (m,)
        The sum of the weights of a class, or the weight of a support image.
    forgotten : mapping
        How often each class was forgotten: what is there of it after that is new to whoever has an earlier state.
    """

    classes: NDArray[Any]
    n_support: NDArray[np.int64]
    is_summed: bool
    x: Array
    labels: NDArray[np.int64]
    weights: Array
    forgotten: Mapping[Any, int] = field(default_factory=dict)

    @classmethod
    def of(cls, x: Array, y: NDArray[Any], is_summed: bool) -> Self:
        """Return the memory of support `x` (n, d) with labels `y` (n,).

        Examples
        --------
        >>> memory = DeviceMemory.of(np.array([[1.0], [3.0], [5.0]]), np.array(["a", "a", "b"]), True)
        >>> memory.keys.tolist(), (memory + memory).weights.tolist()
        ([[2.0], [5.0]], [4.0, 2.0])
        """
        classes, codes = np.unique(y, return_inverse=True)
        made = cls(classes, np.bincount(codes, minlength=len(classes)), False, x, codes, np.ones(len(x)))
        return made._summed() if is_summed else made

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        classes: NDArray[Any],
        n_support: list[int],
        forgotten: Mapping[Any, int],
    ) -> Self:
        """Return what `to_arrays` described, of classes with so many support images.

        Raises
        ------
        ValueError
            If no memory can have been described so.
        """
        is_summed = set(arrays) == set(_SUMMED)
        if not is_summed and set(arrays) != set(_KEPT):
            raise ValueError(f"its arrays are {sorted(arrays)}; expected {_SUMMED} or {_KEPT}")
        labels = np.arange(len(classes)) if is_summed else arrays["labels"]
        x, weights = (arrays[name] for name in (_SUMMED if is_summed else (_KEPT[0], _KEPT[2])))
        made = cls(classes, np.array(n_support), is_summed, x, labels, weights, forgotten)
        for fault in made._faults():
            raise ValueError(fault)
        return made

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the rows by their names in a file."""
        if self.is_summed:
            return dict(zip(_SUMMED, (self.x, self.weights), strict=True))
        return dict(zip(_KEPT, (self.x, self.labels, self.weights), strict=True))

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Which rows are there: all but those of classes without support."""
        return self.weights > 0

    @property
    def keys(self) -> Array:
        """What queries are compared with: the means of classes, or the support."""
        x, weights = self.x[self.present], self.weights[self.present]
        return x / weights[:, None] if self.is_summed else x

    @property
    def key_labels(self) -> NDArray[np.int64]:
        """The class of each key."""
        return self.labels[self.present]

    @property
    def log_weight(self) -> Array:
        """What is added to the score of each key."""
        weights = self.weights[self.present]
        return np.zeros(len(weights)) if self.is_summed else np.log(weights)

    def __add__(self, other: DeviceMemory) -> Self:
        """Return the memory of all that both have seen."""
        classes = np.union1d(self.classes, other.classes)
        places = [np.searchsorted(classes, known) for known in (self.classes, other.classes)]
        n_support = np.zeros(len(classes), np.int64)
        n_support[places[0]] += self.n_support
        n_support[places[1]] += other.n_support
        joined = replace(
            self,
            classes=classes,
            n_support=n_support,
            x=np.concatenate([self.x, other.x]),
            labels=np.concatenate([places[0][self.labels], places[1][other.labels]]),
            weights=np.concatenate([self.weights, other.weights]),
        )
        return joined._summed() if self.is_summed else joined

    def emptied(self) -> Self:
        """Return the memory of the same classes before any was shown."""
        none = np.zeros_like(self.n_support)
        if self.is_summed:
            return replace(self, n_support=none, x=np.zeros_like(self.x), weights=np.zeros_like(self.weights))
        return replace(self, n_support=none, x=self.x[:0], labels=self.labels[:0], weights=self.weights[:0])

    def without(self, label: Any) -> Self:
        """Return the memory that has never seen the class `label`.

        Raises
        ------
        ValueError
            If there is no such class, or no other one.
        """
        known = self.classes.tolist()
        if label not in known:
            shown = ", ".join(map(repr, known[:10])) + (", ..." if len(known) > 10 else "")
            raise ValueError(f"there is no class {brief(repr(label))}; the classes are {shown}")
        if len(known) == 1:
            raise ValueError(f"{label!r} is the only class; a classifier needs one")
        label = known[known.index(label)]  # as JSON can hold it
        left = self._of_classes(self.classes != label, self.labels != known.index(label))
        return replace(left, forgotten={**self.forgotten, label: self.forgotten.get(label, 0) + 1})

    def since(self, before: DeviceMemory) -> Self:
        """Return what was learned after `before`, an earlier state of this memory.

        Raises
        ------
        ValueError
            If it is none: a class has less support now, or as much and another, or has gone without being forgotten.
        """
        if any(times > self.forgotten.get(label, 0) for label, times in before.forgotten.items()):
            raise _no_earlier_state()
        kept = np.array([not self._has_forgotten(label, before) for label in before.classes.tolist()], np.bool_)
        before = before._of_classes(kept, kept[before.labels])
        if not set(before.classes.tolist()) <= set(self.classes.tolist()):
            raise _no_earlier_state()
        if self.is_summed:
            return self._sums_since(before)
        rows = Counter(before._rows())
        new = np.ones(len(self.x), np.bool_)
        for i, row in enumerate(self._rows()):
            if rows[row] > 0:
                rows[row] -= 1
                new[i] = False
        if any(n > 0 for n in rows.values()):
            raise _no_earlier_state()
        counts = np.bincount(self.labels[new], minlength=len(self.classes))
        return replace(self, n_support=counts)._of_classes(counts > 0, new)

    def _faults(self) -> Iterator[str]:
        """Yield what is wrong with it, where anyone can have written it."""
        names, m = self.classes.tolist(), len(self.x)
        is_held = self.classes.ndim == 1 and len(names) > 0 and is_writable(self.classes)
        if not is_held or any(a >= b for a, b in pairwise(names)):
            yield "classes of the manifest must be text, integers or truth values, sorted, each there once"
        n_support = self.n_support
        if n_support.dtype.kind != "i" or n_support.shape != (len(names),) or n_support.min() < 0:
            yield f"n_support of the manifest must have a count for each of {len(names)} classes"
        if not all(isinstance(times, int) and times > 0 for times in self.forgotten.values()):
            yield "forgotten of the manifest must count from 1"
        for array, ndim in ((self.x, 2), (self.weights, 1)):
            if array.dtype != np.float64 or array.ndim != ndim or not np.isfinite(array).all():
                yield f"it has {array.dtype} of shape {array.shape}; expected finite float64 of {ndim} dimensions"
        is_labelled = self.labels.dtype.kind == "i" and self.labels.shape == self.weights.shape == (m,)
        if not is_labelled or (self.weights < 0).any():
            yield f"each of its {m} rows must have one label and one weight from 0"
        if self.is_summed:
            if m != len(names):
                yield f"it has {m} sums for {len(names)} classes"
            if not np.allclose(self.weights, n_support, rtol=1e-6, atol=1e-6):
                yield "its counts are not those that the manifest says"
        elif not ((self.labels >= 0) & (self.labels < len(names))).all():
            yield f"its labels must be places among {len(names)} classes"
        elif (np.bincount(self.labels[self.present], minlength=len(names)) != n_support).any():
            yield "it has not as much support of each class as the manifest says"
        if not self.present.any():
            yield "it has no support of any class"
        if not (np.abs(self.keys) <= MOST_MAGNITUDE).all() or not (self.weights <= MOST_MAGNITUDE).all():
            yield f"its numbers reach above {MOST_MAGNITUDE:.0e}, which overflows when squared"

    def _sums_since(self, before: DeviceMemory) -> Self:
        places = np.searchsorted(self.classes, before.classes)
        n_support, x, weights = self.n_support.copy(), self.x.copy(), self.weights.copy()
        n_support[places] -= before.n_support
        x[places] -= before.x
        weights[places] -= before.weights
        rounding = 1e-9 * np.abs(np.column_stack([self.x, self.weights])).max(1)
        changed = np.abs(np.column_stack([x, weights])).max(1) > rounding
        if (n_support < 0).any() or (weights < -rounding).any() or changed[n_support == 0].any():
            raise _no_earlier_state()
        return replace(self, n_support=n_support, x=x, weights=weights)._of_classes(n_support > 0, n_support > 0)

    def _has_forgotten(self, label: Any, before: DeviceMemory) -> bool:
        return self.forgotten.get(label, 0) > before.forgotten.get(label, 0)

    def _rows(self) -> list[tuple[Any, ...]]:
        names = self.classes[self.labels].tolist()
        return list(zip(names, map(bytes, self.x + 0.0), self.weights.tolist(), strict=True))  # + 0.0: -0 equals 0

    def _of_classes(self, classes: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Self:
        """Return some rows, those of some classes."""
        places = np.cumsum(classes) - 1
        return replace(
            self,
            classes=self.classes[classes],
            n_support=self.n_support[classes],
            x=self.x[rows],
            labels=places[self.labels[rows]],
            weights=self.weights[rows],
        )

    def _summed(self) -> Self:
        """Return one row a class."""
        x, weights = np.zeros((len(self.classes), self.x.shape[1])), np.zeros(len(self.classes))
        np.add.at(x, self.labels, self.x)
        np.add.at(weights, self.labels, self.weights)
        return replace(self, is_summed=True, x=x, labels=np.arange(len(self.classes)), weights=weights)


def _no_earlier_state() -> ValueError:
    return ValueError("base is no earlier state of the other classifier; give the export that both began with")
