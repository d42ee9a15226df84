"""The memory on a device: class sums and counts, or the support itself; memories add."""

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
from fewshot.utils.labels import as_labels
from fewshot.utils.text import counted, listed

Array = NDArray[np.float64]
#: Larger numbers overflow when their squares are summed.
MOST_MAGNITUDE = 1e18
#: Names of the arrays in a file, for either kind of memory.
_SUMMED, _KEPT = ("sums", "counts"), ("support", "labels", "weights")


@dataclass(frozen=True, eq=False)
class DeviceMemory:
    """Labelled rows: either one sum per class, or one row per support image. Immutable.

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
        The class of each row, as a position in `classes`.
    weights : ndarray of shape (m,)
        Total weight of a class, or weight of a support image.
    forgotten : mapping
        How often each class was removed. If it was removed since an earlier state, all of it is new; see `since`.
    """

    classes: NDArray[Any]
    n_support: NDArray[np.int64]
    is_summed: bool
    x: Array
    labels: NDArray[np.int64]
    weights: Array
    forgotten: Mapping[Any, int] = field(default_factory=dict)

    @classmethod
    def of(cls, x: Array, y: NDArray[Any], is_summed: bool, classes: NDArray[Any] | None = None) -> Self:
        """Build the memory of support `x` (n, d) with labels `y` (n,), which may be some of the sorted `classes`.

        Examples
        --------
        >>> memory = DeviceMemory.of(np.array([[1.0], [3.0], [5.0]]), np.array(["a", "a", "b"]), True)
        >>> memory.keys.tolist(), (memory + memory).weights.tolist()
        ([[2.0], [5.0]], [4.0, 2.0])
        """
        classes = np.unique(y) if classes is None else classes
        codes = np.searchsorted(classes, y)
        made = cls(classes, np.bincount(codes, minlength=len(classes)), False, x, codes, np.ones(len(x)))
        return made.summed() if is_summed else made

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        classes: NDArray[Any],
        n_support: list[int],
        forgotten: Mapping[Any, int],
    ) -> Self:
        """Convert back from `to_arrays`, with checks.

        Raises
        ------
        ValueError
            If the parts are inconsistent.
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
        """Return the rows, keyed by their names in a file."""
        if self.is_summed:
            return dict(zip(_SUMMED, (self.x, self.weights), strict=True))
        return dict(zip(_KEPT, (self.x, self.labels, self.weights), strict=True))

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Which rows have support."""
        return self.weights > 0

    @property
    def keys(self) -> Array:
        """The keys: class means, or the support."""
        x, weights = self.x[self.present], self.weights[self.present]
        return x / weights[:, None] if self.is_summed else x

    @property
    def key_labels(self) -> NDArray[np.int64]:
        """The class of each key."""
        return self.labels[self.present]

    @property
    def log_weight(self) -> Array:
        """The log weight of each key."""
        weights = self.weights[self.present]
        return np.zeros(len(weights)) if self.is_summed else np.log(weights)

    def __add__(self, other: DeviceMemory) -> Self:
        """Return the memory of everything that both have seen."""
        classes = np.union1d(self.classes, other.classes)
        places = [np.searchsorted(classes, known) for known in (self.classes, other.classes)]
        n_support = np.zeros(len(classes), np.int64)
        np.add.at(n_support, np.concatenate(places), np.concatenate([self.n_support, other.n_support]))
        joined = replace(
            self,
            classes=classes,
            n_support=n_support,
            x=np.concatenate([self.x, other.x]),
            labels=np.concatenate([places[0][self.labels], places[1][other.labels]]),
            weights=np.concatenate([self.weights, other.weights]),
        )
        return joined.summed() if self.is_summed else joined

    def without(self, label: Any) -> Self:
        """Return the memory as if it had never seen the class `label`.

        Raises
        ------
        ValueError
            If there is no such class, or it is the only one.
        """
        known = self.classes.tolist()
        if label not in known:
            raise ValueError(f"there is no class {brief(repr(label))}; the classes are {listed(known)}")
        if len(known) == 1:
            raise ValueError(f"{label!r} is the only class; a classifier needs one")
        label = known[known.index(label)]  # a plain value that JSON can hold
        left = self._select(self.classes != label, self.labels != known.index(label))
        return replace(left, forgotten={**self.forgotten, label: self.forgotten.get(label, 0) + 1})

    def since(self, before: DeviceMemory) -> Self:
        """Return what was learned after `before`, an earlier state of this memory.

        Raises
        ------
        ValueError
            If it is not: a class has lost support without being removed, or has other support.
        """
        removals = {label: self.forgotten.get(label, 0) - n for label, n in before.forgotten.items()}
        removals = {**self.forgotten, **removals}
        kept = np.array([not removals.get(label) for label in before.classes.tolist()], np.bool_)
        before = before._select(kept, kept[before.labels])
        if min(removals.values(), default=0) < 0 or not set(before.classes.tolist()) <= set(self.classes.tolist()):
            raise _not_a_base()
        return self._sums_since(before) if self.is_summed else self._rows_since(before)

    def _faults(self) -> Iterator[str]:
        """Yield every inconsistency of an untrusted memory."""
        names, n_support = self.classes.tolist(), self.n_support
        is_held = self.classes.ndim == 1 and len(names) > 0 and is_writable(self.classes)
        if not is_held or any(a >= b for a, b in pairwise(names)):
            yield "classes of the manifest must be text, integers or booleans, sorted and distinct"
        if n_support.dtype.kind != "i" or n_support.shape != (len(names),) or n_support.min() < 0:
            yield f"n_support of the manifest must have a count for each of {len(names)} classes"
        if not all(isinstance(times, int) and times > 0 for times in self.forgotten.values()):
            yield "forgotten of the manifest must count from 1"
        yield from self._faults_of_rows()

    def _faults_of_rows(self) -> Iterator[str]:
        n_support, n, m = self.n_support, len(self.classes), len(self.x)
        for array, ndim in ((self.x, 2), (self.weights, 1)):
            if array.dtype != np.float64 or array.ndim != ndim or not np.isfinite(array).all():
                yield f"it has {array.dtype} of shape {array.shape}; expected finite float64 of {ndim} dimensions"
        is_labelled = self.labels.dtype.kind == "i" and self.labels.shape == self.weights.shape == (m,)
        if not is_labelled or (self.weights < 0).any():
            yield f"each of its {m} rows must have one label and one weight from 0"
        if self.is_summed:
            if m != n:
                yield f"it has {m} sums for {n} classes"
            if not np.allclose(self.weights, n_support, rtol=1e-6, atol=1e-6):
                yield "its counts are not those of the manifest"
        elif not ((self.labels >= 0) & (self.labels < n)).all():
            yield f"its labels must be positions among {n} classes"
        elif (np.bincount(self.labels[self.present], minlength=n) != n_support).any():
            yield "its support of each class is not that of the manifest"
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
            raise _not_a_base()
        return replace(self, n_support=n_support, x=x, weights=weights)._select(n_support > 0, n_support > 0)

    def _rows_since(self, before: DeviceMemory) -> Self:
        old, new = Counter(before._rows()), np.ones(len(self.x), np.bool_)
        for i, row in enumerate(self._rows()):
            if old[row] > 0:
                old[row] -= 1
                new[i] = False
        if old.total():
            raise _not_a_base()
        counts = np.bincount(self.labels[new], minlength=len(self.classes))
        return replace(self, n_support=counts)._select(counts > 0, new)

    def _rows(self) -> list[tuple[Any, ...]]:
        names = self.classes[self.labels].tolist()
        return list(zip(names, map(bytes, self.x + 0.0), self.weights.tolist(), strict=True))  # + 0.0: -0 equals 0

    def _select(self, classes: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Self:
        """Return the memory of some classes and rows."""
        places = np.cumsum(classes) - 1
        return replace(
            self,
            classes=self.classes[classes],
            n_support=self.n_support[classes],
            x=self.x[rows],
            labels=places[self.labels[rows]],
            weights=self.weights[rows],
        )

    def summed(self) -> Self:
        """Return the memory of one sum per class."""
        x, weights = np.zeros((len(self.classes), self.x.shape[1])), np.zeros(len(self.classes))
        np.add.at(x, self.labels, self.x)
        np.add.at(weights, self.labels, self.weights)
        return replace(self, is_summed=True, x=x, labels=np.arange(len(self.classes)), weights=weights)


def _not_a_base() -> ValueError:
    return ValueError("base is not an earlier state of the other classifier; give the export that both began with")


def is_writable(labels: NDArray[Any]) -> bool:
    """Whether a device can store these labels."""
    if labels.dtype == np.uint64:  # numpy would join it with signed integers as float
        return False
    return labels.dtype.kind in "biuU" or all(isinstance(label, str) for label in labels.tolist())


def device_labels(y: Any, n: int, known: NDArray[Any]) -> NDArray[Any]:
    """Return the labels of `n` images as an array of the type of the `known` labels.

    Raises
    ------
    ValueError
        If the number of labels is not `n`, or an integer is too large.
    TypeError
        If their type differs from that of the known labels.

    Examples
    --------
    >>> device_labels(["bee", "ant"], 2, np.array(["ant"]))
    array(['bee', 'ant'], dtype='<U3')
    """
    labels = as_labels(y, name="the list of labels", known=known)
    if len(labels) != n:
        raise ValueError(
            f"found {counted(n, 'image')} and {counted(len(labels), 'label')}; give one label for each image"
        )
    if not is_writable(labels):
        raise TypeError(f"labels are {labels.dtype}; a device stores text, integers and booleans: use one of these")
    return labels
