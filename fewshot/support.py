"""The support images that a classifier was shown: names, embeddings and small pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Support:
    """Support images in the order they were learned.

    Attributes
    ----------
    ids : tuple of str
        Where each came from: its path, or what it was given as.
    labels : ndarray of shape (n,)
        Their classes.
    embeddings : ndarray of shape (n, d), float32
        Their embeddings.
    thumbnails : tuple of bytes
        A small picture of each, PNG or JPEG.
    """

    ids: tuple[str, ...]
    labels: NDArray[Any]
    embeddings: NDArray[np.float32]
    thumbnails: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __add__(self, other: Support) -> Support:
        if not len(self):
            return other  # nothing has no width yet
        # Labels of two lengths of text are widened, never cut.
        labels = np.concatenate([self.labels, other.labels])
        embeddings = np.concatenate([self.embeddings, other.embeddings])
        return Support(self.ids + other.ids, labels, embeddings, self.thumbnails + other.thumbnails)

    @classmethod
    def none(cls) -> Support:
        """Return the support of a classifier that has learned nothing."""
        return cls((), np.empty(0, dtype=object), np.empty((0, 0), np.float32), ())

    def renamed(self, old: Any, new: Any, dtype: np.dtype[Any]) -> Support:
        """Return it with another label for one class; `dtype` is that of the labels then."""
        labels = np.array([new if known == old else known for known in self.labels.tolist()], dtype=dtype)
        return replace(self, labels=labels)

    def without(self, rows: Sequence[int]) -> Support:
        """Return it without some rows."""
        return self.rows(np.delete(np.arange(len(self)), rows).tolist())

    def of(self, label: Any) -> Support:
        """Return the support of one class."""
        return self.rows(self.places(label))

    def places(self, label: Any) -> list[int]:
        """Return the rows of one class."""
        return [i for i, known in enumerate(self.labels.tolist()) if known == label]

    def rows(self, rows: Sequence[int]) -> Support:
        """Return some of it, in that order."""
        index = np.asarray(rows, dtype=np.int64)
        return Support(
            tuple(self.ids[i] for i in rows),
            self.labels[index],
            self.embeddings[index],
            tuple(self.thumbnails[i] for i in rows),
        )

    def to_tensors(self, classes: NDArray[Any]) -> dict[str, Tensor]:
        """Return it as tensors that a safetensors file holds; labels as places in `classes`."""
        pictures = [np.frombuffer(picture, np.uint8) for picture in self.thumbnails]
        names = json.dumps(self.ids).encode("ascii")
        return {
            "embeddings": torch.from_numpy(np.ascontiguousarray(self.embeddings)),
            "labels": torch.from_numpy(np.searchsorted(classes, self.labels)),
            "thumbnails": torch.from_numpy(np.concatenate([np.empty(0, np.uint8), *pictures])),
            "thumbnail_ends": torch.from_numpy(np.cumsum([len(picture) for picture in pictures], dtype=np.int64)),
            "ids": torch.from_numpy(np.frombuffer(names, np.uint8).copy()),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], classes: NDArray[Any]) -> Support:
        """Return what `to_tensors` described."""
        pictures, ends = tensors["thumbnails"].numpy().tobytes(), tensors["thumbnail_ends"].tolist()
        return cls(
            tuple(json.loads(tensors["ids"].numpy().tobytes())),
            classes[tensors["labels"].numpy()],
            tensors["embeddings"].numpy(),
            tuple(pictures[start:end] for start, end in zip([0, *ends], ends, strict=False)),
        )
