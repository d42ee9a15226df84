"""The kept support of a model: names, labels, embeddings and thumbnails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.data.opening import is_name
from fewshot.errors import brief
from fewshot.utils import notebook
from fewshot.utils.blocks import Blocks
from fewshot.utils.containers import to_array
from fewshot.utils.keyed import KeyedRows
from fewshot.utils.labels import plain_label
from fewshot.utils.places import Places
from fewshot.utils.text import counted
from fewshot.utils.twins import SAME_IMAGE, Projected, earlier_twins, is_among
from fewshot.utils.values import TOO_LARGE

#: First bytes of PNG and JPEG, which browsers display without running anything.
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


#: Rows that are gone are given up once they are more than this share of all.
MOST_GONE = 0.5


#: About the bytes of a thumbnail and a name.
ITEM_BYTES = 2048


class _Columns(NamedTuple):
    """What is kept of each item, also of those that are gone, by the number that it got when it was learned."""

    ids: Blocks
    codes: Blocks
    embeddings: Blocks
    thumbnails: Blocks


#: What to do about a new label that is a class already.
JOIN = "choose another label, or join the two with merge=True"


@dataclass(frozen=True, eq=False)
class _Classes:
    """The label of each class, by the number that it got when it was first learned."""

    places: Places
    labels: Blocks
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, labels: NDArray[Any]) -> Self:
        """Return sorted labels, numbered in their order."""
        return cls(Places(labels, np.arange(len(labels))), Blocks.of(_objects(labels.tolist())), labels.dtype)

    def numbered(self, labels: NDArray[Any]) -> tuple[Self, NDArray[np.int64]]:
        """Return these classes with those of `labels` (n,), and the number of each."""
        own, codes = np.unique(labels, return_inverse=True)
        numbers = np.array(list(map(self.places.of, own.tolist())), np.int64)
        new = numbers < 0
        numbers[new] = len(self.labels) + np.arange(new.sum())
        names = own[new].tolist()
        places = self.places.changed(dict(zip(names, numbers[new].tolist(), strict=True)))
        dtype = np.concatenate([np.empty(0, self.dtype), np.empty(0, labels.dtype)]).dtype  # the wider text
        return type(self)(places, self.labels.extended(_objects(names)), dtype), numbers[codes.reshape(-1)]

    def renamed(self, old: Any, new: Any, dtype: np.dtype[Any]) -> Self:
        """Return these classes with another label for one of them, if it is there."""
        if (number := self.places.of(old)) < 0:
            return replace(self, dtype=dtype)
        labels = self.labels.changed(np.array([number]), _objects([new]))
        return type(self)(self.places.changed({old: -1, new: number}), labels, dtype)


class Support:
    """Support items in the order in which they were learned. It never changes; each change returns another one.

    A change costs what it changes: versions share what stays, and items are found by class, name and embedding without
    looking at all. The attributes below are made when they are first asked for.

    Parameters
    ----------
    ids : tuple of str
        The path of each item, or the name it was given.
    labels : ndarray of shape (n,)
        Labels.
    embeddings : ndarray of shape (n, d), float32
        Embeddings.
    thumbnails : tuple of bytes
        A small PNG or JPEG of each item.

    Attributes
    ----------
    ids, labels, embeddings, thumbnails
        The same.
    """

    def __init__(
        self,
        ids: Sequence[str],
        labels: NDArray[Any],
        embeddings: NDArray[np.float32],
        thumbnails: Sequence[bytes],
    ) -> None:
        classes, codes = np.unique(labels, return_inverse=True)
        self._take(ids, classes, codes.reshape(-1), embeddings, thumbnails)

    def _take(
        self,
        ids: Sequence[str],
        classes: NDArray[Any],
        codes: NDArray[np.int64],
        embeddings: NDArray[np.float32],
        thumbnails: Sequence[bytes],
    ) -> None:
        columns = _objects(ids), codes, embeddings, _objects(thumbnails)
        self._columns, self._classes = _Columns(*map(Blocks.of, columns)), _Classes.of(classes)
        self._gone, self._found = np.empty(0, np.int64), dict[str, Any]()

    def _version(self, **changes: Any) -> Support:
        """Return a version with other content, which finds items as this one does."""
        other = object.__new__(type(self))
        kept = {name: getattr(self, name) for name in ("_columns", "_classes", "_gone")}
        other.__dict__.update({**kept, "_found": dict(self._found), **changes})
        return other

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("ids", "labels", "embeddings", "thumbnails")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._columns.codes) - len(self._gone)

    def __repr__(self) -> str:
        classes = np.unique(self._columns.codes.rows(self._present))
        return f"Support({counted(len(self), 'item')} of {counted(len(classes), 'class')})"

    def _repr_html_(self) -> str:
        names, counts = (found.tolist() for found in np.unique(self.labels, return_counts=True))
        pictures = {label: self.of(label).thumbnails for label in names[: notebook.MOST_CLASSES]}
        return notebook.fragment(
            "Support", repr(self)[8:-1], notebook.classes(pictures, dict(zip(names, counts, strict=True)))
        )

    @property
    def size(self) -> int:
        """About the bytes of all items."""
        return len(self) * (self._columns.embeddings.blocks[0][:1].nbytes + ITEM_BYTES)

    def bare(self) -> Support:
        """Return the same support without what was made of it."""
        return self._version()

    def __contains__(self, name: object) -> bool:
        """Whether an item has this name."""
        return isinstance(name, str) and bool(len(self._named(name)))

    # ---- all items -------------------------------------------------------------------------------------------------

    @cached_property
    def _present(self) -> NDArray[np.int64]:
        """The numbers of the items that are not gone."""
        return np.delete(np.arange(len(self._columns.codes)), self._gone)

    def _column(self, name: str) -> NDArray[Any]:
        blocks: Blocks = getattr(self._columns, name)
        return blocks.rows(self._present) if len(self._gone) else blocks.whole()

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The path of each item, or the name it was given."""
        return tuple(self._column("ids").tolist())

    @cached_property
    def labels(self) -> NDArray[Any]:
        """Labels, (n,)."""
        return self._classes.labels.whole()[self._column("codes")].astype(self._classes.dtype)

    @cached_property
    def embeddings(self) -> NDArray[np.float32]:
        """Embeddings, (n, d)."""
        return self._column("embeddings")

    @cached_property
    def thumbnails(self) -> tuple[bytes, ...]:
        """A small PNG or JPEG of each item."""
        return tuple(self._column("thumbnails").tolist())

    # ---- changes ---------------------------------------------------------------------------------------------------

    def __add__(self, other: Support) -> Support:
        if not len(self):
            return other  # empty support has no embedding width yet
        classes, codes = self._classes.numbered(other.labels)
        more: tuple[NDArray[Any], ...] = (_objects(other.ids), codes, other.embeddings, _objects(other.thumbnails))
        columns = _Columns(*(blocks.extended(rows) for blocks, rows in zip(self._columns, more, strict=True)))
        numbers = len(self._columns.codes) + np.arange(len(other))
        found = dict(self._found)
        if "names" in found:
            found["names"] = found["names"].extended(_hashes(other.ids), numbers)
        if "projected" in found:
            found["projected"] = found["projected"].extended(other.embeddings)
        if "of_class" in found:
            found["of_class"] = _with_rows(found["of_class"], codes, numbers)
        return self._version(_columns=columns, _classes=classes, _found=found)

    @classmethod
    def none(cls) -> Support:
        """Return empty support."""
        return cls((), np.empty(0, dtype=object), np.empty((0, 0), np.float32), ())

    def renamed(self, old: Any, new: Any, dtype: np.dtype[Any]) -> Support:
        """Replace the label of one class by one that no item has; `dtype` is that of all labels afterwards."""
        return self._version(_classes=self._classes.renamed(old, new, dtype))

    def without(self, rows: Sequence[int]) -> Support:
        """Drop some rows."""
        if not len(rows):
            return self
        gone = np.union1d(self._gone, self._numbers(rows))
        other = self._version(_gone=gone)
        if len(gone) <= MOST_GONE * len(self._columns.codes):
            return other
        return type(self)(other.ids, other.labels, other.embeddings, other.thumbnails)

    def rows(self, rows: Sequence[int]) -> Support:
        """Return these rows, in this order."""
        numbers = self._numbers(rows)
        ids, codes, embeddings, thumbnails = (blocks.rows(numbers) for blocks in self._columns)
        labels = self._classes.labels.rows(codes).astype(self._classes.dtype)
        return Support(tuple(ids.tolist()), labels, embeddings, tuple(thumbnails.tolist()))

    def of(self, label: Any) -> Support:
        """Return the support of one class."""
        return self.rows(self.places(label))

    def relabelled(self, old: Sequence[Any], new: Sequence[Any]) -> Support:
        """Replace the labels of several classes at once; those that no item has are left out."""
        known = [
            (code, label) for one, label in zip(old, new, strict=True) if (code := self._classes.places.of(one)) >= 0
        ]
        if not known:
            return self
        codes, labels = zip(*known, strict=True)
        gone = {one: -1 for one in old if self._classes.places.of(one) >= 0}
        places = self._classes.places.changed({**gone, **dict(zip(labels, codes, strict=True))})
        table = self._classes.labels.changed(np.array(codes), _objects(labels))
        return self._version(_classes=replace(self._classes, places=places, labels=table))

    def typed(self, dtype: np.dtype[Any]) -> Support:
        """Give labels another type."""
        return self._version(_classes=replace(self._classes, dtype=dtype))

    def since(self, before: Support) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any], Support] | None:
        """Return what makes this of `before`: rows that are gone, classes that are renamed, their labels, new items.

        None if `before` is no earlier version of this, or what has changed cannot be told from it.
        """
        columns = [*zip(self._columns, before._columns, strict=True), (self._classes.labels, before._classes.labels)]
        if any(len(a) < len(b) or a.is_other(b) for a, b in columns):
            return None
        *rows, labels = ((a.differing(b), len(b)) for a, b in columns)
        if any((places < n).any() for places, n in rows) or np.setdiff1d(before._gone, self._gone).size:
            return None
        gone = np.setdiff1d(self._gone, before._gone)
        gone = gone[gone < rows[0][1]]
        renamed = labels[0][labels[0] < labels[1]]
        old, new = (one._classes.labels.rows(renamed) for one in (before, self))
        added = self.rows(self._rows_of(np.arange(rows[0][1], len(self._columns.codes))))
        return gone - np.searchsorted(before._gone, gone), old, new, added

    # ---- finding some ----------------------------------------------------------------------------------------------

    def _numbers(self, rows: Sequence[int]) -> NDArray[np.int64]:
        """Return the numbers of the items in these rows."""
        places = np.asarray(rows, np.int64)
        return places + np.searchsorted(self._gone - np.arange(len(self._gone)), places, "right")

    def _rows_of(self, numbers: NDArray[np.int64]) -> list[int]:
        """Return the rows of those items that are not gone, in order."""
        left = np.sort(numbers)
        if len(self._gone):
            left = left[~is_among(self._gone, left)]
        return (left - np.searchsorted(self._gone, left)).tolist()

    def _find(self, name: str, make: Callable[[], Any]) -> Any:
        found = self._found.get(name)  # later versions extend it
        return self._found.setdefault(name, make()) if found is None else found

    def _named(self, name: str) -> list[int]:
        names: KeyedRows = self._find("names", lambda: KeyedRows.of(_hashes(self._columns.ids.whole().tolist())))
        numbers = names.at(hash(name), hash(name))
        return self._rows_of(numbers[self._columns.ids.rows(numbers) == name])

    def twins(self, embeddings: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return for each new embedding (k, d) the row of the first earlier item of the same image; -1 for none.

        New ones have the rows after those of the support; see `fewshot.utils.twins.earlier_twins`.
        """
        if not len(self):
            return earlier_twins(embeddings)
        projected: Projected = self._find("projected", lambda: Projected.of(self._columns.embeddings))
        twins = projected.twins(embeddings, self._gone)
        return np.where(twins < 0, -1, twins - np.searchsorted(self._gone, twins))

    def places(self, label: Any) -> list[int]:
        """Return the row numbers of one class."""
        if (code := self._classes.places.of(label)) < 0:
            return []
        of_class: Blocks = self._find(
            "of_class", lambda: _by_class(self._columns.codes.whole(), len(self._classes.labels))
        )
        return self._rows_of(of_class.rows(np.array([code]))[0])

    def find(self, embeddings: NDArray[np.float32], labels: NDArray[Any], names: Sequence[str]) -> list[int]:
        """Return the row number of each item, found by class and embedding; no row is returned twice.

        Parameters
        ----------
        embeddings : ndarray of shape (n, d)
            Equal to those of the support up to the rounding of the network.
        labels : ndarray of shape (n,)
            Labels.
        names : sequence of n str
            Names for error messages.

        Raises
        ------
        ValueError
            If an item is not in the support.
        """
        rows: list[int] = []
        bounds = SAME_IMAGE * np.linalg.norm(embeddings, axis=1)
        for i, (embedding, label) in enumerate(zip(embeddings, labels.tolist(), strict=True)):
            places = [place for place in self.places(label) if place not in rows]
            apart = np.linalg.norm(self.embeddings[places] - embedding, axis=1)
            if not places or apart.min() > bounds[i]:
                raise ValueError(
                    f"image {i}, {names[i]}, is not among the support images of {label!r}; give images that were "
                    "learned"
                )
            rows.append(places[int(apart.argmin())])
        return rows

    def named(self, ids: Sequence[str], label: Any = None) -> list[int]:
        """Return the row numbers of all items with these names, in one class or in all.

        Raises
        ------
        ValueError
            If no item has a name, or the name is ambiguous (arrays learned without ``ids=``).
        TypeError
            If `ids` is a single name.
        """
        if isinstance(ids, (str, os.PathLike)):
            raise TypeError(f"ids is one name; pass a list of them, e.g. [{brief(repr(ids))}]")
        rows: list[int] = []
        places = None if label is None else set(self.places(label))
        given = (
            os.fspath(name) if isinstance(name, os.PathLike) else plain_label(name)
            for name in to_array(ids, as_list=True)
        )
        for name in dict.fromkeys(given):
            found = [i for i in self._named(name) if places is None or i in places]
            if not found:
                raise ValueError(f"there is no support image {brief(repr(name))}; support_.ids lists them")
            if len(found) > 1 and not is_name(name):
                raise ValueError(f"{len(found)} support images are {name}; learn them with ids=, or use remove(X, y)")
            rows += found
        return rows

    def to_arrays(self, classes: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Convert to arrays for a safetensors file; labels become positions in `classes`."""
        pictures = [np.frombuffer(picture, np.uint8) for picture in self.thumbnails]
        return {
            "embeddings": self.embeddings,
            "labels": np.searchsorted(classes, self.labels),
            "thumbnails": np.concatenate([np.empty(0, np.uint8), *pictures]),
            "thumbnail_ends": np.cumsum([len(picture) for picture in pictures], dtype=np.int64),
            "ids": np.frombuffer(json.dumps(self.ids).encode("ascii"), np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], classes: NDArray[Any], d: int) -> Support:
        """Convert back from `to_arrays`, without trusting them.

        Raises
        ------
        ValueError
            If names, labels, embeddings (n, d) and thumbnails are inconsistent or of the wrong types.
        """
        embeddings, labels, ends = (arrays[name] for name in ("embeddings", "labels", "thumbnail_ends"))
        n = len(labels)
        for name, dtype, shape in (
            ("embeddings", np.float32, (n, d)),
            ("labels", np.int64, (n,)),
            ("thumbnails", np.uint8, (arrays["thumbnails"].size,)),
            ("thumbnail_ends", np.int64, (n,)),
            ("ids", np.uint8, (arrays["ids"].size,)),
        ):
            if arrays[name].dtype != dtype or arrays[name].shape != shape:
                raise ValueError(f"{name} of its support are {arrays[name].dtype} {arrays[name].shape}")
        if not (np.abs(embeddings) <= TOO_LARGE).all() or not ((labels >= 0) & (labels < len(classes))).all():
            raise ValueError("its support must have finite embeddings, and labels among its classes")
        borders, pictures = [0, *ends.tolist()], arrays["thumbnails"].tobytes()
        if borders != sorted(borders) or borders[-1] != len(pictures):
            raise ValueError("its thumbnail_ends do not match its thumbnails")
        thumbnails = tuple(pictures[start:end] for start, end in pairwise(borders))
        if not all(not picture or picture.startswith(_PICTURES) for picture in thumbnails):
            raise ValueError("its thumbnails must be PNG or JPEG")
        ids = json.loads(arrays["ids"].tobytes())
        if not isinstance(ids, list) or len(ids) != n or not all(isinstance(name, str) for name in ids):
            raise ValueError(f"its support must have {n} names")
        support = object.__new__(cls)
        support._take(ids, classes, labels, embeddings, thumbnails)
        return support


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _hashes(names: Sequence[str]) -> NDArray[np.int64]:
    return np.array(list(map(hash, names)), np.int64)


def _by_class(codes: NDArray[np.int64], n_classes: int) -> Blocks:
    """Return the rows of each class, given the class of each row (n,)."""
    order, ends = np.argsort(codes, kind="stable"), np.bincount(codes, minlength=n_classes).cumsum()
    found = np.empty(n_classes, object)
    for code, (begin, end) in enumerate(pairwise([0, *ends.tolist()])):
        found[code] = order[begin:end]
    return Blocks.of(found)


def _with_rows(of_class: Blocks, codes: NDArray[np.int64], numbers: NDArray[np.int64]) -> Blocks:
    """Return the rows of each class with more rows, `numbers` (k,), whose classes are `codes` (k,)."""
    own, places = np.unique(codes, return_inverse=True)
    more = np.empty(len(own), object)
    for i, code in enumerate(own.tolist()):
        rows = numbers[places == i]
        more[i] = np.concatenate([of_class.rows(own[i : i + 1])[0], rows]) if code < len(of_class) else rows
    known = own < len(of_class)
    return of_class.changed(own[known], more[known]).extended(more[~known])
