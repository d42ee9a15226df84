"""What readers see at one moment: a base, a delta, and which keys of both are gone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.search.ranking import top
from fewshot.search.similarity import PreparedKeys
from fewshot.search.snapshot import KeySnapshot

#: Neighbours beyond those asked for that are scored again.
SPARE = 4


@dataclass(frozen=True, eq=False)
class Base:
    """Immutable keys with their labels, in the order in which they came."""

    keys: KeySnapshot
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)

    def like(self, keys: Tensor, labels: NDArray[Any]) -> Base:
        """Return a base of other keys that is searched in the same way."""
        return Base(KeySnapshot(keys, self.keys.metric, self.keys.index, self.keys.recall), labels)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the keys."""
        keys = self.keys.keys.contiguous()
        found = hashlib.sha256(f"{keys.dtype} {tuple(keys.shape)}\n".encode())
        found.update(keys.numpy().data)
        return found.hexdigest()

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self.labels, kind="stable")

    def places(self, label: Any) -> NDArray[np.int64]:
        """Return where a label stands, by halving; the labels are sorted when first asked."""
        if not len(self.labels):
            return np.empty(0, np.int64)
        if isinstance(label, str) and label.endswith("\0"):
            return _same(self.labels, label)
        if isinstance(label, str) and self.labels.dtype.kind == "U" and 4 * len(label) > self.labels.dtype.itemsize:
            return np.empty(0, np.int64)  # longer than all; numpy would widen every label to compare
        low, high = (np.searchsorted(self.labels, label, side, sorter=self._order) for side in ("left", "right"))
        return self._order[low:high]


def _same(labels: NDArray[Any], label: Any) -> NDArray[np.int64]:
    """Return where a label stands among others."""
    if isinstance(label, str) and label.endswith("\0"):  # numpy takes it for the one without the NUL
        return np.flatnonzero([known == label for known in labels.tolist()])
    return np.flatnonzero(labels == label)


@dataclass(frozen=True, eq=False)
class Room:
    """Buffers for the delta that only grow; a state uses their first rows, and never another than those.

    Attributes
    ----------
    raw, keys, sqnorm : Tensor of shape (r, d), (r, d), (r, 1)
        Keys as they came; in the frame of the base; squared norms of those.
    """

    raw: Tensor
    keys: Tensor
    sqnorm: Tensor


@dataclass(frozen=True, eq=False)
class State:
    """What readers see at one moment.

    Attributes
    ----------
    base : Base
        Keys numbered 0..n-1.
    delta : PreparedKeys
        Keys numbered n, n + 1, ..., in the frame of the base, in float64; rows of a buffer that only grows.
    raw : Tensor
        The same keys as they came.
    labels : ndarray
        Of the delta.
    dead_base, dead_delta : bool Tensor
        Keys that are no longer there.
    room : Room
        Where the rows of the delta are, and the next ones will be.
    n_dead : int
        How many those are.
    """

    base: Base
    delta: PreparedKeys
    raw: Tensor
    labels: NDArray[Any]
    dead_base: Tensor
    dead_delta: Tensor
    room: Room
    n_dead: int = 0

    @property
    def n_alive(self) -> int:
        """Keys that are there."""
        return len(self.base) + len(self.labels) - self.n_dead

    def some_labels(self) -> NDArray[Any]:
        """Return labels that have the type of all."""
        return self.base.labels if len(self.base) else self.labels

    def has(self, label: Any) -> bool:
        """Whether a key of this label is there."""
        places, own = self.places(label)
        return bool((~self.dead_base[places]).any()) or bool((~self.dead_delta[own]).any())

    def places(self, label: Any) -> tuple[Tensor, Tensor]:
        """Return where a label stands in the base, and where in the delta."""
        return torch.from_numpy(self.base.places(label)), torch.from_numpy(_same(self.labels, label))

    def search(self, queries: Tensor, k: int) -> tuple[NDArray[Any], Tensor]:
        """Return labels and similarities (q, k) of the nearest keys; among equals the key that came first."""
        n_delta = len(self.labels)
        if not n_delta and not self.n_dead:
            ids, similarity = self.base.keys.search(queries, k)
            return self._labels(ids), similarity
        ids, similarity = self._with_delta(queries, *self._base_candidates(queries, k + SPARE if n_delta else k))
        ids, similarity = top(ids, similarity, min(k + SPARE if n_delta else k, similarity.shape[-1]))
        if n_delta:
            ids, similarity = self._in_one_way(queries, ids, similarity, k)
        # The dead may have taken the places of candidates.
        if similarity.shape[-1] < k or not torch.isfinite(similarity).all():
            return self._exactly(queries, k, similarity.dtype)
        return self._labels(ids), similarity

    def _in_one_way(self, queries: Tensor, ids: Tensor, similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the k best of some, scored again alike: base and delta round otherwise, and equals must stay equal."""
        keys, n = self.base.keys, len(self.base)
        own = (ids >= n).unsqueeze(-1)
        raw = torch.where(own, self.raw[(ids - n).clamp(min=0)].double(), keys.keys[ids.clamp(0, n - 1)].double())
        prepared = keys.prepare(raw)
        again = prepared.compare(prepared.prepare_queries(queries.double()).unsqueeze(-2)).squeeze(-2)
        ids, again = top(ids, torch.where(torch.isfinite(similarity), again, -torch.inf), min(k, ids.shape[-1]))
        return ids, again.to(similarity.dtype)

    def chunk(self, k: int) -> int:
        """Return how many queries to ask at a time."""
        return min(self.base.keys.search_chunk(k), max(1, 2**23 // max(len(self.labels), 1)))

    def _base_candidates(self, queries: Tensor, k: int) -> tuple[Tensor | None, Tensor]:
        keys = self.base.keys
        if not keys.uses_faiss:
            return keys.exact_top(queries, min(k, len(self.base)), self.dead_base if self.n_dead else None)
        ids, similarity = keys.retrieve(queries, k)
        if self.n_dead and ids is not None:
            similarity = similarity.masked_fill(self.dead_base[ids.clamp(min=0)], -torch.inf)
        return ids, similarity

    def _exactly(self, queries: Tensor, k: int, dtype: torch.dtype) -> tuple[NDArray[Any], Tensor]:
        ids, similarity = self.base.keys.exact_top(queries, min(k, len(self.base)), self.dead_base)
        ids, similarity = top(*self._with_delta(queries, ids, similarity), k)
        return self._labels(ids), similarity.to(dtype)

    def _with_delta(self, queries: Tensor, ids: Tensor | None, similarity: Tensor) -> tuple[Any, Tensor]:
        """Return ids and similarities with those of the whole delta after them."""
        n, n_delta = len(self.base), len(self.labels)
        if not n_delta:
            return ids, similarity
        own = self.delta.similarity(queries.double())
        if own.abs().max() > torch.finfo(similarity.dtype).max:
            similarity = similarity.double()  # keys that came later may lie where float32 ends
        own = own.masked_fill(self.dead_delta, -torch.inf)
        similarity = torch.cat([similarity, own.to(similarity.dtype)], -1)
        if ids is not None:
            ids = torch.cat([ids, torch.arange(n, n + n_delta, device=ids.device).expand(len(queries), -1)], -1)
        return ids, similarity

    def _labels(self, ids: Tensor) -> NDArray[Any]:
        places, n = ids.numpy(), len(self.base)
        if not len(self.labels):
            return self.base.labels[places]
        both = np.result_type(self.base.labels, self.labels) if n else self.labels.dtype
        found, own = np.empty(places.shape, both), places >= n
        found[own], found[~own] = self.labels[places[own] - n], self.base.labels[places[~own]]
        return found

    def alive(self) -> tuple[Tensor, NDArray[Any]]:
        """Return keys and labels of all that is there, in the order in which they came."""
        keep, keep_delta = ~self.dead_base, ~self.dead_delta
        keys = self.base.keys.keys
        if self.n_dead:
            keys = keys[keep]
        if not len(self.labels):
            return keys, self.base.labels[keep.numpy()]
        labels = [self.base.labels[keep.numpy()]] if len(self.base) else []
        dtype = torch.promote_types(keys.dtype, self.raw.dtype) if len(self.base) else self.raw.dtype
        return (
            torch.cat([keys.to(dtype), self.raw[keep_delta].to(dtype)]),
            np.concatenate([*labels, self.labels[keep_delta.numpy()]]),
        )
