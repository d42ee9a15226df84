"""The public index: labelled keys that can be added to and searched, and when it compacts them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fewshot.persistence.artifact import Versions, writing
from fewshot.search.approximate import Choice
from fewshot.search.background import begin
from fewshot.search.growing import capacity, is_merge_due, is_quick, merged
from fewshot.search.packing import PRECISIONS, Precision, packed, width
from fewshot.search.saving import load_index, save_index
from fewshot.search.similarity import METRICS, Metric, check_k, to_tensor
from fewshot.search.snapshot import INDEXES, Index, build_now, take_snapshot
from fewshot.search.state import Base, State
from fewshot.utils.heap import refuse_too_large
from fewshot.utils.isolation import NUMPY_ERRORS, isolated
from fewshot.utils.labels import as_labels
from fewshot.utils.locks import lock_of, one_at_a_time
from fewshot.utils.logs import timed
from fewshot.utils.text import counted
from fewshot.utils.values import as_values, check_name, check_values

_log = logging.getLogger(__name__)


class PrototypeIndex:
    """Labelled keys that can be added, replaced, removed and searched, while others search.

    Similarities always come from the exact keys, whatever proposed the candidates: an index may miss a neighbour
    but never gives a wrong score. Under ``sqeuclidean`` a fixed point near the keys is subtracted from both sides
    first, so embeddings far from the origin keep their digits. Queries in float32 are answered in float32, unless
    float32 cannot tell neighbouring keys apart. The last digits of their similarities depend on the size of the batch,
    by up to 1e-6 of the product of the two lengths (from the origin or that fixed point).

    New keys go into a small exact part, and removed ones are marked; at times both are merged into the large part, in
    the background if that takes long. Any number of threads may search, add and remove at once: changes follow one
    another, and each search sees all keys as they were at one moment.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity; higher is closer.
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="auto"
        ``exact`` multiplies with all keys. ``hnsw`` follows a graph of near keys, in the up to 128 directions in which
        keys differ most; for ``dot``, which they do not serve, it compares all keys. ``ivf`` searches a few of many
        lists of near keys. A graph holds a number in 8 bits, lists two numbers in 4; they propose candidates, which are
        scored exactly. They take seconds to minutes to build. The first search begins this in the background, on as
        many threads as torch may use, and exact search answers until it is done; `build` waits for it. ``auto`` is
        ``exact`` up to 2e4 to 1.6e5 keys, as long as the graph would not halve the time (measured for each metric and
        dimension: ``fewshot.search.limits``), then the graph (lists for ``dot``), or ``exact`` again if that misses the
        recall. ``faiss`` is FAISS's own exact search up to 1e5 keys, then as ``auto``.
    recall : float, default=0.99
        The share of the k nearest keys that ``ivf`` and ``hnsw`` must find on average, for every k: measured for the
        nearest, 10 and 100 against exact answers, to queries between keys and their neighbours and to queries drawn
        as the keys are. 1 is ``exact``.
    keys : {"full", "float16", "int8"}, default="full"
        How keys are kept, and so compared: as they come, in half precision, or in 8 bits with a factor for each key.
        An entry d of a key takes 4 bytes (8 if keys come in float64), 2 or 1; a graph takes up to 350 bytes for each
        key beside them. In units of the largest entry of a key, half precision rounds by at most 2e-4, 8 bits by 4e-3.

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

    def __init__(
        self, metric: Metric = "sqeuclidean", index: Index = "auto", recall: float = 0.99, keys: Precision = "full"
    ) -> None:
        self.metric, self.index = check_name("metric", metric, METRICS), check_name("index", index, INDEXES)
        if not 0 < recall <= 1:
            raise ValueError(f"recall is {recall!r}; expected above 0, at most 1")
        self.recall, self.keys = float(recall), check_name("precision", keys, PRECISIONS)
        self._state: State | None = None
        self._merger: threading.Thread | None = None
        self._next = 0
        self._versions: Versions = {}

    def __len__(self) -> int:
        return 0 if self._state is None else self._state.n_alive

    def __repr__(self) -> str:
        return f"PrototypeIndex(metric={self.metric!r}, index={self.index!r}) of {counted(len(self), 'key')}"

    def __getstate__(self) -> dict[str, Any]:
        # Keys and labels only: threads, locks and FAISS's index are created again.
        alive = None if self._state is None else self._state.alive()
        return {**self.__dict__, "_state": None, "_merger": None, "_alive": alive}

    def __setstate__(self, state: dict[str, Any]) -> None:
        alive = state.pop("_alive")
        self.__dict__.update({"keys": "full", "_versions": {}, "_state": None, "_merger": None, **state})
        if alive is not None:
            self._begin(*alive)

    def add(self, keys: ArrayLike, labels: ArrayLike | None = None) -> PrototypeIndex:
        """Add keys; several may share a label.

        Parameters
        ----------
        keys : array-like of shape (m, d)
            Embeddings.
        labels : array-like of shape (m,), optional
            Their labels; floats become integers. By default each key gets the next number, counted from the first key
            ever added.

        Returns
        -------
        PrototypeIndex
            This index.

        Raises
        ------
        ValueError
            If shapes disagree, or a key is not finite, above 1e18 in magnitude, or below 1e-161 and not zero.
        TypeError
            If labels mix types, among themselves or with those added before.
        """
        return self._add(keys, labels, replace=False)

    def update(self, keys: ArrayLike, labels: ArrayLike) -> PrototypeIndex:
        """Replace all keys of these labels in one step; keys of new labels are added.

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
        return self._add(keys, labels, replace=True)

    @one_at_a_time
    def remove(self, labels: ArrayLike) -> PrototypeIndex:
        """Remove all keys of some labels.

        Parameters
        ----------
        labels : array-like of shape (m,)
            Labels of keys in the index.

        Raises
        ------
        ValueError
            If no key has one of the labels; then nothing is removed.
        """
        gone = as_labels(labels, name="labels", known=self._known_labels())
        for label in gone.tolist():
            if self._state is None or not self._state.has(label):
                raise ValueError(f"no key has the label {label!r:.100}; nothing was removed")
        if self._state is not None:
            self._state = self._state.without(gone)
            self._merge_if_due(self._state)
        return self

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the index to a folder, or replace a saved index there; a crash leaves the old one or the new one.

        The keys of the large part are written once: saving again writes only what was added or removed, unless parts
        were merged. FAISS's index gets a file, so that it need not be built again. Threads and processes that save to
        one folder wait for each other.

        Parameters
        ----------
        folder : path
            Created if needed; must be empty or hold a saved index.
        overwrite : bool, default=False
            Whether to replace the folder even if someone else has written it since this index was loaded from it or
            last saved to it. An index that was never loaded from or saved to the folder always replaces its content.

        Raises
        ------
        ArtifactError
            If the folder holds something else, or has changed meanwhile.
        InUseError
            If another writer holds the folder for longer than a minute.
        ValueError
            If JSON cannot hold labels of this type.
        OSError
            If the folder cannot be written; its content is unchanged.

        Examples
        --------
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> PrototypeIndex("dot").add([[1.0, 0.0], [0.0, 1.0]], ["a", "b"]).save(folder)
        >>> PrototypeIndex.load(folder).add([[1.0, 1.0]], ["c"]).search([[0.0, 2.0]], k=3)[0].tolist()
        [['b', 'c', 'a']]
        """
        with writing(folder, "index"):  # of two threads, the later one writes what both have added
            # The next number is read after the state and only rises, so no key added later repeats a number.
            state, content, known = self.state, self.content, {} if overwrite else self._versions
            self._versions = {**self._versions, **save_index(state, content, folder, known)}

    @property
    def state(self) -> State | None:
        """The keys at this moment, which no change alters; None if there has been none."""
        return self._state

    @property
    def content(self) -> dict[str, Any]:
        """The settings and the number of the next key, as JSON values."""
        return {**{name: getattr(self, name) for name in ("metric", "index", "recall", "keys")}, "next": self._next}

    @classmethod
    def of(cls, content: Mapping[str, Any], state: State | None) -> PrototypeIndex:
        """Return the index that had this `content` and `state`."""
        index = cls(content["metric"], content["index"], content["recall"], content["keys"])
        index._state, index._next = state, content["next"]
        return index

    @classmethod
    def load(cls, folder: str | Path, cache: bool = True) -> PrototypeIndex:
        """Open an index that `save` wrote, after verifying every byte of it.

        Up to 8 MB of keys are read into memory. More stay on disk and are mapped: a search reads those it scores, and
        processes on one machine share them. The folder may be saved to, replaced or removed meanwhile (but not on
        Windows, which locks mapped files). A mapped file must not be overwritten in place, as ``cp`` does: the system
        ends a process whose mapped file becomes shorter.

        The folder may come from a stranger: loading and searching run no code from it, and access neither the network
        nor other files. Its answers may still be wrong: digests reveal damage, but are not a signature.

        Parameters
        ----------
        folder : path
            The folder.
        cache : bool, default=True
            Whether to open FAISS's file. It is opened only if it is whole, of the same version, and laid out as FAISS
            would have written it, because FAISS itself trusts what it reads. False builds the index again.

        Raises
        ------
        ArtifactError
            If the folder holds no index, or one that is damaged, incomplete, invalid or written by a newer version.
        """
        content, state, _ = load_index(folder, cache)
        index = cls.of(content, state)
        index._versions = {os.path.realpath(folder): content["digest"]}
        return index

    def build(self) -> Choice:
        """Return how the large part of the keys is searched and how good that is, after building what is missing."""
        return build_now(None if self._state is None else self._state.base.snapshot)

    def compact(self) -> PrototypeIndex:
        """Merge all changes into the large part now, and wait until it is done; searches go on meanwhile."""
        if (merger := self._merger) is not None:
            merger.join()
        if self._state is not None:
            self._merge(self._state)
        return self

    def search(self, queries: ArrayLike, k: int = 1) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Find the `k` nearest keys of each query.

        Parameters
        ----------
        queries : array-like of shape (n, d)
            Embeddings.
        k : int, default=1
            Number of keys.

        Returns
        -------
        labels : ndarray of shape (n, k)
            Labels, nearest first; equal similarities in the order of addition. Because of rounding, the similarities
            of equal keys may differ in their last digit.
        similarities : ndarray of shape (n, k)
            Their similarities.

        Raises
        ------
        ValueError
            If the index is empty, k is out of range, or queries are not finite or of another length.
        """
        if (state := self._state) is None or not state.n_alive:
            raise ValueError("the index is empty; add keys before searching")
        check_k(k, state.n_alive)
        x = self._checked(queries, "queries")
        if len(x) == 1 and x.dtype.char in "fd" and np.geterr() == NUMPY_ERRORS:
            found = state.search_one(x[0], k)
            if found is not None:
                return found
        return self._search(state, x, k)

    @isolated(gradients=False)
    def _search(self, state: State, queries: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[np.floating]]:
        x = to_tensor(queries)
        if not len(x):
            return np.empty((0, k), state.base.labels.dtype), x.new_empty((0, k)).numpy()
        parts = [state.search(part, k) for part in x.split(state.chunk(k))]
        if len(parts) == 1:
            return parts[0][0], parts[0][1].numpy()
        return np.concatenate([labels for labels, _ in parts]), torch.cat([values for _, values in parts]).numpy()

    @one_at_a_time
    def _add(self, keys: ArrayLike, labels: ArrayLike | None, replace: bool) -> PrototypeIndex:
        x = self._checked(keys, "keys")
        n_bytes = 2.0 * x.size * {"float16": 2, "int8": 1}.get(self.keys, x.itemsize)  # keys, and prepared for search
        refuse_too_large(n_bytes, f"{len(x)} keys of {x.shape[1]} numbers", "add fewer, or take keys='int8'")
        new = packed(to_tensor(x), self.keys)
        labels = np.arange(self._next, self._next + len(new)) if labels is None else labels
        added = _whole_numbers(as_labels(labels, name="labels", known=self._known_labels()))
        if len(added) != len(new):
            raise ValueError(
                f"found {counted(len(added), 'label')} for {counted(len(new), 'key')}; give one label for each key"
            )
        self._next += len(new)
        if (state := self._state) is None or not state.n_alive:
            # Copies: the caller may change the arrays later.
            self._begin(new.clone(), added.copy())
        elif len(new):
            state = state.without(added) if replace else state
            is_large = len(new) > max(capacity(state.base), len(state.base) // 2)
            self._state = state.merged_with(new, added) if is_large else state.with_keys(new, added)
            self._merge_if_due(self._state)
        return self

    def _begin(self, keys: Tensor, labels: NDArray[Any]) -> None:
        self._state = State.of(Base(take_snapshot(keys, self.metric, self.index, self.recall), labels))

    def _merge_if_due(self, state: State) -> None:
        if not is_merge_due(state):
            return
        if is_quick(state):
            self._merge(state)
        elif self._merger is None or not self._merger.is_alive():  # a forked child has the object but no thread
            self._merger = begin(state, lambda _: self._merge(state), "merging keys in the background")

    def _merge(self, begun: State) -> None:
        """Merge all live keys of a state into a new base; changes made meanwhile are kept."""
        level = logging.DEBUG if is_quick(begun) else logging.INFO
        with timed(_log, "compacted an index of %d keys", begun.n_alive, level=level):
            base = merged(begun)
        with lock_of(self):
            if (now := self._state) is not None and now.base is begun.base:  # else another merge was faster
                self._state = now.moved_to(base, begun)

    def _known_labels(self) -> NDArray[Any] | None:
        return self._state.base.labels if self._state is not None and len(self) else None

    def _checked(self, x: ArrayLike, what: str) -> NDArray[Any]:
        array = as_values(x, name=what)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{what} are of type {array.dtype}; expected numbers")
        if array.ndim != 2:
            cure = "; give one as x[None]" if array.ndim == 1 else ""
            raise ValueError(f"{what} have shape {array.shape}; expected two dimensions, (n, d){cure}")
        d = array.shape[1] if self._state is None else width(self._state.rows.raw)
        if array.shape[1] != d:
            raise ValueError(
                f"{what} have {array.shape[1]} dimensions, the index holds {d}; embed both with the same backbone"
            )
        return check_values(array, what, f"the array of {what}")


def _whole_numbers(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels with floats as integers: joined with floats, large integers would lose digits."""
    if labels.dtype.kind == "f" and (np.abs(labels.astype(np.float64)) < 2.0**63).all():  # float16 cannot hold 2**63
        return labels.astype(np.int64)
    return labels
