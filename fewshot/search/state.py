"""What readers see at one moment: a large base, a small delta, and which keys of both are dead."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.search.packing import packed, precision_of, unpacked
from fewshot.search.similarity import KeySnapshot, PreparedKeys, sum_of_squares, top
from fewshot.search.single import best, similarities
from fewshot.search.snapshot import FaissSnapshot, take_snapshot
from fewshot.utils.claims import Claims
from fewshot.utils.isolation import isolated

#: Neighbours beyond the requested ones that are scored again.
SPARE = 4


@dataclass(frozen=True, eq=False)
class Base:
    """Immutable keys with their labels, in the order in which they came.

    Attributes
    ----------
    snapshot, labels
        The keys and their labels.
    keeps_dead : bool
        Whether it holds the keys of the base before with those that had been removed, which a graph cannot lose.
    """

    snapshot: KeySnapshot
    labels: NDArray[Any]
    keeps_dead: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def like(self, keys: Tensor, labels: NDArray[Any]) -> Base:
        """Return a base of other keys with the same settings."""
        like = self.snapshot
        return Base(take_snapshot(keys, like.metric, like.index, like.recall, steady=like.steady), labels)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the keys."""
        keys = self.snapshot.keys.contiguous()
        found = hashlib.sha256(f"{keys.dtype} {tuple(keys.shape)}\n".encode())
        found.update(keys.numpy().data)
        return found.hexdigest()

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self.labels, kind="stable")

    def places(self, label: Any) -> NDArray[np.int64]:
        """Return the positions of a label by binary search; the first call sorts the labels."""
        if isinstance(label, str) and label.endswith("\0"):
            return _places(self.labels, label)
        if isinstance(label, str) and self.labels.dtype.kind == "U" and 4 * len(label) > self.labels.dtype.itemsize:
            return np.empty(0, np.int64)  # longer than all labels: numpy would widen each of them to compare
        low, high = (np.searchsorted(self.labels, label, side, sorter=self._order) for side in ("left", "right"))
        return self._order[low:high]


def _places(labels: NDArray[Any], label: Any) -> NDArray[np.int64]:
    """Return the positions of a label among a few."""
    if isinstance(label, str) and label.endswith("\0"):  # numpy ignores the NUL
        return np.flatnonzero([known == label for known in labels.tolist()])
    return np.flatnonzero(labels == label)


@dataclass(frozen=True, eq=False)
class Rows:
    """Buffers for the keys of a delta, which only grow; each state reads its first rows, which never change.

    Attributes
    ----------
    raw, keys, sqnorm : Tensor of shape (r, d), (r, d), (r, 1)
        Keys as they came; in the frame of the base, in float64; their squared norms in that frame.
    claims : Claims
        After how many rows a state has written more.
    """

    raw: Tensor
    keys: Tensor
    sqnorm: Tensor
    claims: Claims = field(default_factory=Claims)

    def extended(self, used: int, raw: Tensor, keys: Tensor) -> Rows:
        """Return buffers with more rows after the first `used`, in place if no other state has written there."""
        end, wide = used + len(raw), torch.promote_types(self.raw.dtype, raw.dtype)
        rows = self
        if wide != self.raw.dtype or end > len(self.raw) or not self.claims.take(used):
            size = max(2 * len(self.raw), end, 64)
            copies = [_copied(buffer, used, size) for buffer in (self.raw.to(wide), self.keys, self.sqnorm)]
            rows = Rows(copies[0], copies[1], copies[2])
            rows.claims.take(used)
        rows.raw[used:end], rows.keys[used:end], rows.sqnorm[used:end, 0] = raw, keys, sum_of_squares(keys)
        return rows


def _copied(buffer: Tensor, used: int, size: int) -> Tensor:
    """Return a copy of the first `used` rows with room for `size`."""
    larger = buffer.new_empty((size, buffer.shape[1]))
    larger[:used] = buffer[:used]
    return larger


@dataclass(frozen=True, eq=False)
class State:
    """What readers see at one moment. Changes return a new state, which shares the base and the rows of the delta.

    Attributes
    ----------
    base : Base
        Keys numbered 0..n-1; there are none only if the delta is empty too.
    rows : Rows
        Buffers of the keys numbered n, n + 1, ..., the delta.
    labels : ndarray
        Labels of the delta.
    dead_base, dead_delta : bool Tensor
        Which keys have been removed.
    n_dead : int
        Number of removed keys.
    """

    base: Base
    rows: Rows
    labels: NDArray[Any]
    dead_base: Tensor
    dead_delta: Tensor
    n_dead: int = 0

    @classmethod
    @isolated(gradients=True)
    def of(cls, base: Base) -> State:
        """Return the state of a base with an empty delta."""
        raw = base.snapshot.keys[:0].clone()
        rows = Rows(raw, unpacked(raw).double(), raw.new_empty((0, 1), dtype=torch.float64))
        dead = torch.zeros(len(base), dtype=torch.bool, device="cpu")
        return cls(base, rows, base.labels[:0], dead, dead[:0])

    @property
    def n_alive(self) -> int:
        """Number of keys that have not been removed."""
        return len(self.base) + len(self.labels) - self.n_dead

    @property
    def raw(self) -> Tensor:
        """The keys of the delta as they came."""
        return self.rows.raw[: len(self.labels)]

    # ---- changes ----------------------------------------------------------------------------------------------------

    @isolated(gradients=True)
    def with_keys(self, keys: Tensor, labels: NDArray[Any]) -> State:
        """Return the state with more keys in its delta, in the precision of the base."""
        used, keys = len(self.labels), packed(keys, precision_of(self.base.snapshot.keys))
        return replace(
            self,
            rows=self.rows.extended(used, keys, self.base.snapshot.prepare(keys).keys),
            labels=np.concatenate([self.labels, labels]) if used else labels.copy(),
            dead_delta=torch.cat([self.dead_delta, self.dead_delta.new_zeros(len(keys))]),
        )

    def with_dead(self, dead_base: Tensor, dead_delta: Tensor) -> State:
        """Return the state in which exactly these keys have been removed."""
        n_dead = sum(int(np.count_nonzero(dead.numpy())) for dead in (dead_base, dead_delta))
        return replace(self, dead_base=dead_base, dead_delta=dead_delta, n_dead=n_dead)

    def without(self, labels: NDArray[Any]) -> State:
        """Return the state with all keys of some labels removed."""
        dead_base, dead_delta, n_dead = self.dead_base.clone(), self.dead_delta.clone(), self.n_dead
        for label in dict.fromkeys(labels.tolist()):
            for dead, places in zip((dead_base, dead_delta), self._places(label), strict=True):
                n_dead += len(places) - int(dead[places].sum())
                dead[places] = True
        return replace(self, dead_base=dead_base, dead_delta=dead_delta, n_dead=n_dead)

    def merged_with(self, keys: Tensor, labels: NDArray[Any]) -> State:
        """Return the state of a new base of all live keys and more."""
        old_keys, old_labels = self.alive()
        if len(old_labels):
            keys, labels = torch.cat([old_keys, keys]), np.concatenate([old_labels, labels])
        else:
            keys, labels = keys.clone(), labels.copy()  # the caller may change the arrays later
        return self.of(self.base.like(keys, labels))

    def moved_to(self, base: Base, begun: State) -> State:
        """Return this state over `base`, which holds all live keys of the earlier state `begun`, or `keeps_dead`."""
        n = len(begun.labels)
        was_alive = torch.cat([~begun.dead_base | base.keeps_dead, ~begun.dead_delta])
        dead = torch.cat([self.dead_base, self.dead_delta[:n]])[was_alive]
        later = ~self.dead_delta[n:]
        state = State.of(base).with_keys(self.raw[n:][later], self.labels[n:][later.numpy()])
        return state.with_dead(dead, state.dead_delta)

    def grown(self) -> Base | None:
        """Return a base with the live keys of the delta added to its graph; None if one must be built."""
        snapshot, live = self.base.snapshot, ~self.dead_delta
        if not isinstance(snapshot, FaissSnapshot) or (found := snapshot.grown(self.raw[live])) is None:
            return None
        labels = np.concatenate([self.base.labels, self.labels[live.numpy()]])
        return Base(found, labels, keeps_dead=True)

    def alive(self) -> tuple[Tensor, NDArray[Any]]:
        """Return keys and labels of all that has not been removed, in the order in which they came."""
        keep, keep_delta = ~self.dead_base, ~self.dead_delta
        keys, labels = self.base.snapshot.keys, self.base.labels[keep.numpy()]
        if self.n_dead:
            keys = keys[keep]
        if not len(self.labels):
            return keys, labels
        return torch.cat([keys, self.raw[keep_delta]]), np.concatenate([labels, self.labels[keep_delta.numpy()]])

    # ---- reading ----------------------------------------------------------------------------------------------------

    def has(self, label: Any) -> bool:
        """Whether a live key has this label."""
        places, own = self._places(label)
        return bool((~self.dead_base[places]).any()) or bool((~self.dead_delta[own]).any())

    def _places(self, label: Any) -> tuple[Tensor, Tensor]:
        """Return the positions of a label in the base, and in the delta."""
        return torch.from_numpy(self.base.places(label)), torch.from_numpy(_places(self.labels, label))

    def chunk(self, k: int) -> int:
        """Return how many queries to search for at a time."""
        return min(self.base.snapshot.search_chunk(k), max(1, 2**23 // max(len(self.labels), 1)))

    def search_one(
        self, x: NDArray[np.floating], k: int, sought: int = 0
    ) -> tuple[NDArray[Any], NDArray[np.floating]] | None:
        """Return labels and similarities (1, k) for one query (d,) in numpy; None if only `search` can."""
        n, n_delta = len(self.base), len(self.labels)
        dead = self.dead_base.numpy() if self.n_dead else None
        if not n_delta:
            found = self.base.snapshot.search_one(x, k, dead, sought or k)
            return None if found is None else (self.base.labels[found[0][None]], found[1][None])
        if self.raw.dtype == torch.float64:
            return None
        own, known = self._nearest_own(x, min(k + SPARE, n_delta))
        if (found := self.base.snapshot.search_one(x, min(k + SPARE, n), dead, sought or k, known)) is None:
            return None
        # Base and delta round differently, and ties must stay ties: the best are all scored again in one way.
        of_base, of_delta = self.base.snapshot.rows(torch.from_numpy(found[0])), self.raw[torch.from_numpy(own)]
        keys = torch.cat([of_base.double(), unpacked(of_delta).double()]).numpy()
        similarity = similarities(x.astype(np.float64), keys, self.base.snapshot.metric)
        similarity[: len(found[0])][~np.isfinite(found[1])] = -np.inf
        similarity[len(found[0]) :][self.dead_delta.numpy()[own]] = -np.inf
        order = np.argsort(ids := np.concatenate([found[0], own + n]))  # ties go to the first
        places = order[best(similarity[order], k)]
        return self._labels_of(torch.from_numpy(ids[places][None])), similarity[places][None].astype(x.dtype)

    def _nearest_own(self, x: NDArray[np.floating], k: int) -> tuple[NDArray[np.int64], float]:
        """Return the places (k,) of the keys of the delta nearest to a query (d,), dead ones last.

        And the similarity of the nearest, minus infinity if all are dead.
        """
        rows, n, offset = self.rows, len(self.labels), self.base.snapshot.offset
        query = x.astype(np.float64) if offset is None else x - offset[0].numpy()
        ranks = np.vecdot(rows.keys[:n].numpy(), query)
        if self.base.snapshot.metric == "sqeuclidean":
            ranks = 2 * ranks - rows.sqnorm[:n, 0].numpy()
        ranks[self.dead_delta.numpy()] = -np.inf
        places = best(ranks, k)
        square = np.vecdot(query, query) if self.base.snapshot.metric == "sqeuclidean" else 0.0
        return places, float(ranks[places[0]] - square)

    def search(self, queries: Tensor, k: int, sought: int = 0) -> tuple[NDArray[Any], Tensor]:
        """Return labels and similarities (q, k) of the nearest keys; ties go to the key that came first.

        An approximate index finds the first `sought` of them with its recall, by default all.
        """
        snapshot = self.base.snapshot
        if not len(self.labels) and not self.n_dead:
            ids, similarity = snapshot.search(queries, k, sought=sought)
            return self._labels_of(ids), similarity
        ids, similarity = self._best(queries, k, sought or k)
        return self._labels_of(ids), similarity

    def _best(self, queries: Tensor, k: int, sought: int) -> tuple[Tensor, Tensor]:
        """Return ids and similarities (q, k or fewer) of the nearest live keys, of all or of FAISS's candidates."""
        snapshot, n, n_delta = self.base.snapshot, len(self.base), len(self.labels)
        wanted = k + SPARE if n_delta else k
        dead = self.dead_base if self.n_dead else None
        if not n_delta:
            ids, similarity = snapshot.search(queries, min(wanted, n), dead, sought)
            return top(ids, similarity, min(wanted, similarity.shape[-1]))
        own = self._delta.similarity(queries.double())
        known = own.masked_fill(self.dead_delta, -torch.inf).amax(-1)
        ids, similarity = snapshot.search(queries, min(wanted, n), dead, sought, known)
        if own.abs().max() > torch.finfo(similarity.dtype).max:
            similarity = similarity.double()  # keys of the delta may lie outside the range of float32
        own = own.masked_fill(self.dead_delta, -torch.inf).to(similarity.dtype)
        ids = torch.cat([ids, torch.arange(n, n + n_delta, device=ids.device).expand(len(queries), -1)], -1)
        ids, similarity = top(ids, torch.cat([similarity, own], -1), min(wanted, ids.shape[-1]))
        # Base and delta round differently, and ties must stay ties: the best are all scored again in one way.
        again = torch.where(torch.isfinite(similarity), snapshot.score(queries, self._keys_of(ids)), -torch.inf)
        ids, again = top(ids, again, min(k, ids.shape[-1]))
        return ids, again.to(similarity.dtype)

    def similarities(self, queries: Tensor) -> Tensor:
        """Return the similarities (q, m) of all keys, dead ones too; the base is searched exactly."""
        similarity = KeySnapshot.retrieve(self.base.snapshot, queries, 1)[1]
        if not len(self.labels):
            return similarity
        return torch.cat([similarity, self._delta.similarity(queries.double()).to(similarity.dtype)], -1)

    @cached_property
    def all_labels(self) -> NDArray[Any]:
        """The labels (m,) of all keys, dead ones too."""
        return np.concatenate([self.base.labels, self.labels])

    @property
    def alive_keys(self) -> NDArray[np.bool_]:
        """Which of all keys (m,) are not dead."""
        return ~torch.cat([self.dead_base, self.dead_delta]).numpy()

    @property
    def _delta(self) -> PreparedKeys:
        snapshot, n = self.base.snapshot, len(self.labels)
        sqnorm = self.rows.sqnorm[:n].T if snapshot.metric == "sqeuclidean" else None
        prepared = PreparedKeys(snapshot.metric, self.rows.keys[:n], snapshot.offset, sqnorm)
        return prepared.steadied() if snapshot.steady else prepared

    def _keys_of(self, ids: Tensor) -> Tensor:
        n = len(self.base)
        keys, own = self.base.snapshot.rows(ids.clamp(0, n - 1)).double(), ids >= n
        keys[own] = unpacked(self.raw[ids[own] - n]).double()
        return keys

    def _labels_of(self, ids: Tensor) -> NDArray[Any]:
        places, n = ids.numpy(), len(self.base)
        if not len(self.labels):
            return self.base.labels[places]
        found, own = np.empty(places.shape, np.result_type(self.base.labels, self.labels)), places >= n
        found[own], found[~own] = self.labels[places[own] - n], self.base.labels[places[~own]]
        return found
