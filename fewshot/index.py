"""The public index: labelled keys that can be added to and searched."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fewshot.checks import check_k, check_labels, refuse_bad_rows, to_numpy, with_room_for_squares
from fewshot.errors import UnknownNameError
from fewshot.similarity import METRICS
from fewshot.snapshot import INDEXES, KeySnapshot, search_in_chunks, to_tensor


class PrototypeIndex:
    """Labelled keys that can be added to and searched.

    Similarities always come from the exact keys, whatever proposed the candidates: an index may miss a neighbour
    but never gives a wrong score. Under ``sqeuclidean`` the mean key is subtracted from both sides first, so
    embeddings far from the origin keep their digits. Queries in float32 are answered in float32, unless the keys lie
    so that float32 could not tell neighbours apart.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity; higher is closer.
    index : {"auto", "exact", "faiss"}, default="auto"
        ``exact`` takes one matrix product over all keys. ``faiss`` proposes candidates that are scored again:
        from a flat index up to 1e5 keys, from an HNSW graph beyond (flat for ``dot``), which is built anew, in
        seconds to minutes, by the first search after keys were added. ``auto`` is ``exact`` up to 1e5 keys.

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
            If shapes disagree, or a key is not finite or above 1e18 in magnitude.
        TypeError
            If labels mix types, also with those added before.
        """
        new = self._check(keys, "keys")
        labels = np.arange(len(self), len(self) + len(new)) if labels is None else labels
        added = check_labels(labels, type(self).__name__, self._labels)
        if len(added) != len(new):
            raise ValueError(f"there are {len(added)} labels for {len(new)} keys; give one label for each key")
        # A copy either way: the caller may go on to change the arrays.
        both = torch.cat([new] if self._snapshot is None else [self._snapshot.keys, new])
        self._labels = np.concatenate([self._labels, added]) if len(self) else added.copy()
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
        if snapshot is None or not len(snapshot.keys):
            raise ValueError("the index is empty; add keys before searching")
        check_k(k, len(snapshot.keys))
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
        refuse_bad_rows(array, f"the array of {what}")
        return to_tensor(with_room_for_squares(array, what))
