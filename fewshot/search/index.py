"""The public index: labelled keys that can be added to and searched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fewshot.errors import UnknownNameError
from fewshot.persistence.artifact import Versions, writing
from fewshot.search import saving
from fewshot.search.approximate import Choice
from fewshot.search.similarity import METRICS
from fewshot.search.snapshot import INDEXES, KeySnapshot, to_tensor
from fewshot.search.state import Base
from fewshot.search.writer import Segments
from fewshot.utils.checks import check_k, check_values
from fewshot.utils.isolation import isolated
from fewshot.utils.labels import as_labels
from fewshot.utils.locks import one_at_a_time
from fewshot.utils.values import as_values


class PrototypeIndex:
    """Labelled keys that can be added, replaced, removed and searched, while others search.

    Similarities always come from the exact keys, whatever proposed the candidates: an index may miss a neighbour
    but never gives a wrong score. Under ``sqeuclidean`` a fixed point near the keys is subtracted from both sides
    first, so embeddings far from the origin keep their digits. Queries in float32 are answered in float32, unless the
    keys lie so that float32 could not tell neighbours apart. Their similarities depend in the last digits on how many
    queries are asked at once, by up to 1e-6 of the product of the two lengths (from the origin or that fixed point).

    New keys go into a small exact part beside the large one, removed ones are marked; both are merged now and then, in
    the background where that takes long. Any number of threads may search, add and remove at once: one change follows
    the other, and each search sees all keys as they were at one moment.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity; higher is closer.
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="auto"
        ``exact`` takes one matrix product over all keys. ``ivf`` looks into some of many lists of near keys; the first
        search makes the lists and finds how many it takes, in seconds to minutes. ``hnsw`` follows a graph: slower to
        build, and not for ``dot``. Both propose candidates that are scored again. ``auto`` is ``exact`` up to 1e5 keys
        and ``ivf`` beyond; ``faiss`` is FAISS's own exact search up to 1e5 keys, then ``ivf``.
    recall : float, default=0.99
        The share of nearest keys that ``ivf`` and ``hnsw`` must find, measured against exact answers to queries between
        keys and their neighbours.

    Examples
    --------
    >>> from fewshot import PrototypeIndex
    >>> index = PrototypeIndex().add([[0.0, 0.0], [3.0, 4.0]], labels=["near", "far"])
    >>> labels, similarities = index.search([[0.0, 0.0]], k=2)
    >>> labels.tolist(), similarities.tolist()
    ([['near', 'far']], [[0.0, -25.0]])
    >>> index.remove(["near"]).search([[0.0, 0.0]])[0].tolist()
    [['far']]
    """

    def __init__(self, metric: str = "sqeuclidean", index: str = "auto", recall: float = 0.99) -> None:
        if metric not in METRICS:
            raise UnknownNameError("metric", metric, METRICS)
        if index not in INDEXES:
            raise UnknownNameError("index", index, INDEXES)
        if not 0 < recall <= 1:
            raise ValueError(f"recall is {recall!r}; expected above 0, at most 1")
        self.metric, self.index, self.recall = metric, index, float(recall)
        self._segments: Segments | None = None
        self._next = 0
        self._versions: Versions = {}

    def __len__(self) -> int:
        return 0 if self._segments is None else self._segments.state.n_alive

    def __repr__(self) -> str:
        return f"PrototypeIndex(metric={self.metric!r}, index={self.index!r}) of {len(self)} keys"

    def __getstate__(self) -> dict[str, Any]:
        # Keys and labels; threads, locks and FAISS's index are made anew.
        alive = None if self._segments is None else self._segments.state.alive()
        return {**{name: value for name, value in self.__dict__.items() if name != "_segments"}, "_alive": alive}

    def __setstate__(self, state: dict[str, Any]) -> None:
        alive = state.pop("_alive")
        self.__dict__.update({"_versions": {}, **state}, _segments=None)
        if alive is not None:
            self._segments = self._begin(*alive)

    def add(self, keys: ArrayLike, labels: ArrayLike | None = None) -> PrototypeIndex:
        """Add keys; several may carry one label.

        Parameters
        ----------
        keys : array-like of shape (m, d)
            Embeddings.
        labels : array-like of shape (m,), optional
            Their labels, those in floats as integers; by default the running number of each key, counted from the first
            that was ever added.

        Returns
        -------
        PrototypeIndex
            This index.

        Raises
        ------
        ValueError
            If shapes disagree, or a key is not finite, above 1e18 in magnitude, or below 1e-161 and not zero.
        TypeError
            If labels mix types, also with those added before.
        """
        return self._add(keys, labels, instead=False)

    def update(self, keys: ArrayLike, labels: ArrayLike) -> PrototypeIndex:
        """Put keys in the place of all that have the same labels now, in one moment; others are added.

        Parameters
        ----------
        keys : array-like of shape (m, d)
            Embeddings.
        labels : array-like of shape (m,)
            Their labels.

        Raises
        ------
        ValueError, TypeError
            As for `add`.
        """
        return self._add(keys, labels, instead=True)

    @one_at_a_time
    def remove(self, labels: ArrayLike) -> PrototypeIndex:
        """Remove all keys of some labels.

        Parameters
        ----------
        labels : array-like of shape (m,)
            Labels that are there.

        Raises
        ------
        ValueError
            If a label is not there; nothing is removed then.
        """
        gone = as_labels(labels, name="labels", known=self._some_labels())
        segments = self._segments
        for label in gone.tolist():
            if segments is None or not segments.state.has(label):
                raise ValueError(f"there is no key of the label {label!r:.100}; nothing was removed")
        if segments is not None:
            segments.remove(gone)
        return self

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the index to a folder, or replace the one that is there, as a whole: a crash leaves the old or the new.

        Keys are written once: saving again after some were added or removed writes those, unless parts were merged.
        What FAISS has built for many keys is kept in a file of its own, so that it need not be built again. Writers of
        one folder, threads and processes, follow each other.

        Parameters
        ----------
        folder : path
            Made if needed; must be empty or hold a saved index.
        overwrite : bool, default=False
            Whether to replace the folder also where somebody else has written it since this index was loaded from it or
            last saved to it. An index that has never been there replaces what is there in any case.

        Raises
        ------
        ArtifactError
            If the folder holds something else, or has changed meanwhile.
        InUseError
            If somebody else is writing it for longer than a minute.
        ValueError
            If labels are of a type that JSON cannot hold.
        OSError
            If it cannot be written; what was there is untouched.

        Examples
        --------
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> PrototypeIndex("dot").add([[1.0, 0.0], [0.0, 1.0]], ["a", "b"]).save(folder)
        >>> PrototypeIndex.load(folder).add([[1.0, 1.0]], ["c"]).search([[0.0, 2.0]], k=3)[0].tolist()
        [['b', 'c', 'a']]
        """
        settings = {name: getattr(self, name) for name in ("metric", "index", "recall")}
        with writing(folder, "index"):  # so that of two threads the later one writes what both have added
            state = None if self._segments is None else self._segments.state
            # The next number is read after the state, and only rises: no key added later gets one that is taken.
            content, known = {**settings, "next": self._next}, {} if overwrite else self._versions
            self._versions = {**self._versions, **saving.save(state, content, folder, known)}

    @classmethod
    def load(cls, folder: str | Path, cache: bool = True) -> PrototypeIndex:
        """Open an index that `save` wrote, after every byte of it has been verified.

        Up to 8 MB of keys are read into memory. More stay on disk and are mapped: a search reads those it scores, and
        processes on one machine share them. The folder may be saved to, replaced or removed meanwhile (but not on
        Windows, which locks mapped files). A mapped file must not be written over in place, as ``cp`` does: the system
        ends a process whose mapped file becomes shorter.

        The folder may come from a stranger: whatever it holds, loading and searching run none of its code, and reach
        neither the network nor other files. It can answer wrongly, though: digests show damage, and are no signature.

        Parameters
        ----------
        folder : path
            The folder.
        cache : bool, default=True
            Whether FAISS's file is opened, if it is whole, of the same version, and holds nothing that FAISS would not
            have written: FAISS itself trusts what it reads. False builds it again.

        Raises
        ------
        ArtifactError
            If there is none, it is damaged or incomplete, holds what no index has, or a newer version wrote it.
        """
        content, segments = saving.load(folder, cache)
        index = cls(content["metric"], content["index"], content["recall"])
        index._segments, index._next = segments, content["next"]
        index._versions = {os.path.realpath(folder): content["digest"]}
        return index

    def build(self) -> Choice:
        """Return how the large part of the keys is searched and how good that is, building what is not there yet."""
        return Choice("exact") if self._segments is None else self._segments.state.base.keys.build()

    def compact(self) -> PrototypeIndex:
        """Merge what was added and removed into one part now, and wait for it; searches go on meanwhile."""
        if self._segments is not None:
            self._segments.wait()
            self._segments.compact()
        return self

    @isolated(gradients=False)
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
            Labels, nearest first; among equal similarities the key added first. Similarities carry rounding, so those
            of equal keys may differ in their last digit.
        similarities : ndarray of shape (n, k)
            Their similarities.

        Raises
        ------
        ValueError
            If the index is empty, k is out of range, or queries are not finite or of another length.
        """
        if self._segments is None or not (state := self._segments.state).n_alive:
            raise ValueError("the index is empty; add keys before searching")
        check_k(k, state.n_alive)
        x = self._check(queries, "queries")
        if not len(x):
            return state.some_labels()[:0].repeat(k).reshape(0, k), x.new_empty((0, k)).numpy()
        parts = [state.search(part, k) for part in x.split(state.chunk(k))]
        if len(parts) == 1:
            return parts[0][0], parts[0][1].numpy()
        return np.concatenate([labels for labels, _ in parts]), torch.cat([values for _, values in parts]).numpy()

    @one_at_a_time
    def _add(self, keys: ArrayLike, labels: ArrayLike | None, instead: bool) -> PrototypeIndex:
        new = self._check(keys, "keys")
        labels = np.arange(self._next, self._next + len(new)) if labels is None else labels
        added = _whole_numbers(as_labels(labels, name="labels", known=self._some_labels()))
        if len(added) != len(new):
            raise ValueError(f"there are {len(added)} labels for {len(new)} keys; give one label for each key")
        self._next += len(new)
        if self._segments is None or not len(self):
            # A copy: the caller may go on to change the arrays.
            self._segments = self._begin(new.clone(), added.copy())
        elif len(new):
            self._segments.add(new, added, instead)
        return self

    def _begin(self, keys: Tensor, labels: NDArray[Any]) -> Segments:
        return Segments(Base(KeySnapshot(keys, self.metric, self.index, self.recall), labels))

    def _some_labels(self) -> NDArray[Any] | None:
        return self._segments.state.some_labels() if self._segments is not None and len(self) else None

    def _check(self, x: ArrayLike, what: str) -> Tensor:
        array = as_values(x, name=what)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{what} are of type {array.dtype}; expected numbers")
        if array.ndim != 2:
            raise ValueError(f"{what} have shape {array.shape}; expected two dimensions, (n, d)")
        d = array.shape[1] if self._segments is None else self._segments.state.base.keys.keys.shape[1]
        if array.shape[1] != d:
            raise ValueError(
                f"{what} have {array.shape[1]} dimensions, the index holds {d}; embed both with the same backbone"
            )
        return to_tensor(check_values(array, what, f"the array of {what}"))


def _whole_numbers(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels, those in floats as integers: joined with floats, large integers would lose digits."""
    if labels.dtype.kind == "f" and (np.abs(labels.astype(np.float64)) < 2.0**63).all():  # float16 ends before that
        return labels.astype(np.int64)
    return labels
