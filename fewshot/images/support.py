"""The kept support of a model: names, labels, embeddings and thumbnails."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.opening import is_name
from fewshot.errors import brief
from fewshot.utils.containers import to_array
from fewshot.utils.labels import plain_label
from fewshot.utils.twins import SAME_IMAGE
from fewshot.utils.values import TOO_LARGE

#: First bytes of PNG and JPEG, which browsers display without running anything.
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass(frozen=True, eq=False)
class Support:
    """Support items in the order in which they were learned.

    Attributes
    ----------
    ids : tuple of str
        The path of each item, or the name it was given.
    labels : ndarray of shape (n,)
        Labels.
    embeddings : ndarray of shape (n, d), float32
        Embeddings.
    thumbnails : tuple of bytes
        A small PNG or JPEG of each item.
    """

    ids: tuple[str, ...]
    labels: NDArray[Any]
    embeddings: NDArray[np.float32]
    thumbnails: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __add__(self, other: Support) -> Support:
        if not len(self):
            return other  # empty support has no embedding width yet
        # Concatenation widens text labels and never truncates them.
        labels = np.concatenate([self.labels, other.labels])
        embeddings = np.concatenate([self.embeddings, other.embeddings])
        return Support(self.ids + other.ids, labels, embeddings, self.thumbnails + other.thumbnails)

    @classmethod
    def none(cls) -> Support:
        """Return empty support."""
        return cls((), np.empty(0, dtype=object), np.empty((0, 0), np.float32), ())

    def renamed(self, old: Any, new: Any, dtype: np.dtype[Any]) -> Support:
        """Replace the label of one class; `dtype` is that of all labels afterwards."""
        labels = np.array([new if known == old else known for known in self.labels.tolist()], dtype=dtype)
        return replace(self, labels=labels)

    def without(self, rows: Sequence[int]) -> Support:
        """Drop some rows."""
        return self.rows(np.delete(np.arange(len(self)), rows).tolist())

    def of(self, label: Any) -> Support:
        """Return the support of one class."""
        return self.rows(self.places(label))

    def places(self, label: Any) -> list[int]:
        """Return the row numbers of one class."""
        return [i for i, known in enumerate(self.labels.tolist()) if known == label]

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
        places = range(len(self)) if label is None else self.places(label)
        given = (
            os.fspath(name) if isinstance(name, os.PathLike) else plain_label(name)
            for name in to_array(ids, as_list=True)
        )
        for name in dict.fromkeys(given):
            found = [i for i in places if self.ids[i] == name]
            if not found:
                raise ValueError(f"there is no support image {brief(repr(name))}; support_.ids lists them")
            if len(found) > 1 and not is_name(name):
                raise ValueError(f"{len(found)} support images are {name}; learn them with ids=, or use remove(X, y)")
            rows += found
        return rows

    def rows(self, rows: Sequence[int]) -> Support:
        """Return these rows, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return Support(
            tuple(self.ids[i] for i in rows),
            self.labels[index],
            self.embeddings[index],
            tuple(self.thumbnails[i] for i in rows),
        )

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
        return cls(tuple(ids), classes[labels], embeddings, thumbnails)
