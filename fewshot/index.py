"""Nearest keys: exact matrix products or FAISS, with the same scores whichever proposes them."""

from __future__ import annotations

import os
import sys
from functools import cache, cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fewshot.checks import to_numpy
from fewshot.errors import UnknownNameError
from fewshot.similarity import METRICS, PreparedKeys, prepare_keys

INDEXES = ("auto", "exact", "faiss")
#: Up to this many keys one matrix product beats an index on a CPU.
EXACT_LIMIT = 100_000
#: Bytes that the similarities of one chunk of queries may take.
CHUNK_BYTES = 64 * 2**20


@cache
def _faiss() -> ModuleType:
    import faiss

    return faiss


def _use_one_thread() -> None:
    """Keep a forked child from waiting for ever for the OpenMP threads that its parent had and it has not."""
    torch.set_num_threads(1)
    if "faiss" in sys.modules:
        _faiss().omp_set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)


class KeySnapshot:
    """An immutable set of keys that can be searched; any number of threads may read it.

    Parameters
    ----------
    keys : Tensor of shape (m, d)
        Float32 or float64 keys.
    metric : str
        Similarity.
    index : {"auto", "exact", "faiss"}
        What proposes the candidates.
    """

    def __init__(self, keys: Tensor, metric: str, index: str = "auto") -> None:
        self.keys, self.metric, self.index = keys, metric, index
        self.uses_faiss = index == "faiss" or (index == "auto" and len(keys) > EXACT_LIMIT)

    def __getstate__(self) -> dict[str, Any]:
        # What can be rebuilt from the keys is not stored: a FAISS index in a pickle is a risk, not data.
        return {name: self.__dict__[name] for name in ("keys", "metric", "index", "uses_faiss")}

    @cached_property
    def _double(self) -> PreparedKeys:
        return prepare_keys(self.keys.double(), self.metric)

    @cached_property
    def _single(self) -> PreparedKeys:
        return self._double.to(torch.float32)

    @cached_property
    def _centre(self) -> Tensor | float:
        """The mean of what FAISS sees, where subtracting it keeps the ranking: unit vectors rank by distance."""
        return self._double.keys.mean(0) if self.metric == "cosine" else 0.0

    @cached_property
    def _nearly_collinear(self) -> bool:
        """Whether all keys point so much the same way that their cosines differ only beyond float32's digits."""
        if self.metric != "cosine" or not len(self.keys):
            return False
        return bool((self._double.keys - self._centre).square().sum(-1).max() < 1e-2)

    @cached_property
    def _index(self) -> Any:
        faiss = _faiss()
        keys = (self._double.keys - self._centre).float().numpy()
        metric = faiss.METRIC_INNER_PRODUCT if self.metric == "dot" else faiss.METRIC_L2
        # A graph finds unnormalised inner products badly, so `dot` stays flat.
        if len(keys) > EXACT_LIMIT and self.metric != "dot":
            index = faiss.IndexHNSWFlat(keys.shape[1], 32, metric)
            index.hnsw.efConstruction, index.hnsw.efSearch = 80, 256
        else:
            index = faiss.IndexFlat(keys.shape[1], metric)
        index.add(np.ascontiguousarray(keys))
        return index

    def retrieve(self, queries: Tensor, k: int) -> tuple[Tensor | None, Tensor]:
        """Score `queries` (q, d), finite and of the right length, against candidates.

        Returns
        -------
        ids : Tensor of shape (q, c) or None
            Candidate keys, at least `k` of them where there are as many, -1 for none; None means all keys.
        similarities : Tensor of shape (q, m) or (q, c)
            Exact similarities, in the precision of the queries or, where float32 cannot tell them apart, better.
        """
        double = queries.dtype == torch.float64 or self._nearly_collinear
        prepared = self._double if double else self._single
        shifted = prepared.prepare_queries(queries.double() if double else queries)
        if not self.uses_faiss:
            return None, prepared.compare(shifted)
        n_candidates = min(len(self.keys), max(4 * k, 64))
        asked = (shifted - self._centre).float().numpy()
        _, found = self._index.search(np.ascontiguousarray(asked), n_candidates)
        ids = torch.from_numpy(found)
        similarity = prepared.take(ids.clamp(min=0)).compare(shifted.unsqueeze(-2)).squeeze(-2)
        return ids, torch.where(ids >= 0, similarity, -torch.inf)

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return ids and similarities (q, k) of the nearest keys, nearest first; among equals the first key."""
        return top(*self.retrieve(queries, k), k)

    def chunk(self, k: int = 1) -> int:
        """Return how many queries to ask at a time, so that the work fits `CHUNK_BYTES`."""
        m, d = self.keys.shape
        row = (min(m, max(4 * k, 64)) * d if self.uses_faiss else m) + d
        return max(1, CHUNK_BYTES // (8 * max(row, 1)))


def top(ids: Tensor | None, similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best of each row of `similarity` (q, m) as ids and values, equals in the order of their ids."""
    if ids is not None:
        # Order candidates by id first, so that the stable sort below keeps it among equals.
        ids, order = ids.sort(-1)
        similarity = similarity.gather(-1, order)
    columns = similarity.argmax(-1, keepdim=True) if k == 1 else _stable_topk(similarity, k)
    return (columns if ids is None else ids.gather(-1, columns)), similarity.gather(-1, columns)


def _stable_topk(similarity: Tensor, k: int) -> Tensor:
    values, columns = similarity.topk(k, -1)
    last = values[:, -1:]
    # topk picks any of several equal values: sort those rows in full.
    tied = (similarity >= last).sum(-1) > k
    if tied.any():
        columns[tied] = similarity[tied].argsort(dim=-1, descending=True, stable=True)[:, :k]
    columns = columns.sort(-1).values
    order = similarity.gather(-1, columns).argsort(dim=-1, descending=True, stable=True)
    return columns.gather(-1, order)


class PrototypeIndex:
    """Labelled keys that can be added to and searched.

    Similarities always come from the exact keys, whatever proposed the candidates: an index may miss a neighbour
    but never gives a wrong score. Under ``sqeuclidean`` the mean key is subtracted from both sides first, so
    embeddings far from the origin are compared exactly.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity; higher is closer.
    index : {"auto", "exact", "faiss"}, default="auto"
        ``exact`` takes one matrix product over all keys. ``faiss`` proposes candidates that are scored again:
        from a flat index up to 1e5 keys, from an HNSW graph beyond (flat for ``dot``). ``auto`` is ``exact`` up
        to 1e5 keys.

    Examples
    --------
    >>> from fewshot import PrototypeIndex
    >>> index = PrototypeIndex().add([[0.0, 0.0], [3.0, 4.0]], labels=["near", "far"])
    >>> labels, similarities = index.search([[0.0, 0.0]], k=2)
    >>> labels.tolist(), similarities.tolist()
    ([['near', 'far']], [[0.0, -25.0]])
    """

    def __init__(self, metric: str = "sqeuclidean", index: str = "auto") -> None:
        if metric not in METRICS:
            raise UnknownNameError("metric", metric, METRICS)
        if index not in INDEXES:
            raise UnknownNameError("index", index, INDEXES)
        self.metric, self.index = metric, index
        self._labels: NDArray[Any] = np.empty(0, dtype=np.int64)
        self._snapshot: KeySnapshot | None = None

    def __len__(self) -> int:
        return len(self._labels)

    def __repr__(self) -> str:
        return f"PrototypeIndex(metric={self.metric!r}, index={self.index!r}) of {len(self)} keys"

    def add(self, keys: ArrayLike, labels: ArrayLike | None = None) -> PrototypeIndex:
        """Add keys; several may carry one label.

        Parameters
        ----------
        keys : array-like of shape (m, d)
            Embeddings.
        labels : array-like of shape (m,), optional
            Their labels; by default the running number of each key.

        Returns
        -------
        PrototypeIndex
            This index.

        Raises
        ------
        ValueError
            If shapes disagree or a key is not finite.
        TypeError
            If labels of another type than before are added.
        """
        new = self._check(keys, "keys")
        added = np.arange(len(self), len(self) + len(new)) if labels is None else np.asarray(to_numpy(labels))
        if added.shape != (len(new),):
            raise ValueError(f"labels has shape {added.shape}; expected one label for each of {len(new)} keys")
        if len(self) and (added.dtype.kind in "US") != (self._labels.dtype.kind in "US"):
            raise TypeError(f"labels are {added.dtype} but those held are {self._labels.dtype}; use one type")
        # A copy either way: the caller may go on to change the array.
        both = torch.cat([new] if self._snapshot is None else [self._snapshot.keys, new])
        self._labels = np.concatenate([self._labels, added]) if len(self) else added
        self._snapshot = KeySnapshot(both, self.metric, self.index)
        return self

    def search(self, queries: ArrayLike, k: int = 1) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Find the `k` nearest keys of each query.

        Parameters
        ----------
        queries : array-like of shape (n, d)
            Embeddings.
        k : int, default=1
            How many.

        Returns
        -------
        labels : ndarray of shape (n, k)
            Labels, nearest first; among equals the key added first.
        similarities : ndarray of shape (n, k)
            Their similarities.

        Raises
        ------
        ValueError
            If the index is empty, k is out of range, or queries are not finite or of another length.
        """
        snapshot, labels = self._snapshot, self._labels
        if snapshot is None:
            raise ValueError("the index is empty; add keys before searching")
        if not 1 <= k <= len(snapshot.keys):
            raise ValueError(f"k is {k}; expected 1 to {len(snapshot.keys)}, the number of keys")
        ids, similarities = search_in_chunks(snapshot, self._check(queries, "queries"), k)
        return labels[ids], similarities

    def _check(self, x: ArrayLike, what: str) -> Tensor:
        array = np.asarray(to_numpy(x))
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{what} are of type {array.dtype}; expected numbers")
        if array.ndim != 2:
            raise ValueError(f"{what} have shape {array.shape}; expected two dimensions, (n, d)")
        if self._snapshot is not None and array.shape[1] != self._snapshot.keys.shape[1]:
            raise ValueError(
                f"{what} have {array.shape[1]} dimensions, the index holds {self._snapshot.keys.shape[1]}; "
                "embed both with the same backbone"
            )
        bad = np.flatnonzero(~np.isfinite(array).all(1))
        if bad.size:
            raise ValueError(f"{what} contain NaN or infinity at row {bad[0]}; drop that row")
        return to_tensor(array)


def search_in_chunks(snapshot: KeySnapshot, queries: Tensor, k: int) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Search any number of `queries` (n, d) in bounded memory -> ids and similarities (n, k)."""
    if not len(queries):
        return np.empty((0, k), np.int64), queries.new_empty((0, k)).numpy()
    parts = [snapshot.search(part, k) for part in queries.split(snapshot.chunk(k))]
    return torch.cat([ids for ids, _ in parts]).numpy(), torch.cat([values for _, values in parts]).numpy()


def to_tensor(array: NDArray[Any]) -> Tensor:
    """Return a float tensor that shares memory where it can: float32 stays, everything else is float64."""
    single = array.dtype in (np.float32, np.float16)
    array = np.require(array, np.float32 if single else np.float64, ["C", "W"])
    return torch.from_numpy(array)
