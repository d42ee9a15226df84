"""Searchable keys of which each change gives a new version, as a classifier needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.search.background import begin, is_running
from fewshot.search.similarity import KeySnapshot
from fewshot.search.snapshot import EXACT_LIMIT, FaissSnapshot, take_snapshot
from fewshot.search.state import Base, State

#: Most rows of a delta: of a small base, and of one with a FAISS index, which a merge copies or builds.
SMALL_DELTA, LARGE_DELTA = 1024, 2048
#: Share of dead keys beyond which a base is rebuilt.
MOST_DEAD = 0.25


class _Merge:
    """The live keys of a state on their way into a new base, which takes long enough to happen in the background."""

    def __init__(self, begun: State) -> None:
        self.begun = begun
        self.base: Base | None = None
        begin(self, _finish, "merging keys in the background")

    @property
    def is_running(self) -> bool:
        """Whether it is under way; a forked child has the object but no thread."""
        return self.base is None and is_running(self)


def _finish(alive: Callable[[], _Merge]) -> None:
    alive().base = merged(alive().begun)


class Growing:
    """Keys with whole numbers as labels, at most one of each; a change returns a new version and leaves the old one.

    Parameters
    ----------
    state : State
        The keys, minus `origin`.
    origin : Tensor of shape (1, d) or None
        Subtracted from keys and queries, so that the precision of the state tells them apart.
    merge : optional
        A merge that has begun with a state of which this one is a later version.
    turn : optional
        What keys and queries are multiplied by, see `of`.
    """

    def __init__(
        self,
        state: State,
        origin: Tensor | None,
        merge: _Merge | None = None,
        turn: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self._versions, self.origin, self._turn = (state, merge), origin, turn

    @classmethod
    def of(
        cls,
        parts: Iterable[Tensor],
        some: Tensor,
        labels: NDArray[np.int64],
        metric: str,
        index: str,
        *,
        origin: Tensor | None = None,
        turn: tuple[Tensor, Tensor] | None = None,
        double: bool = False,
        steady: bool = False,
    ) -> Self:
        """Return searchable keys, by default in as few bytes as tell them apart.

        Parameters
        ----------
        parts : iterable of Tensor
            The float64 keys (m, d), a part of them at a time.
        some : Tensor of shape (s, d)
            Some of the keys, by which origin and precision are chosen.
        labels : ndarray of shape (m,)
            Their labels.
        metric, index : str
            As for `PrototypeIndex`.
        origin : Tensor of shape (1, d), optional
            What to subtract; by default a point among the keys for ``sqeuclidean``, else nothing.
        turn : pair of Tensors of shape (d, d), optional
            Multiplied with keys, and with queries, from the right, so that keys lie near the queries that they answer;
            products stay what they are.
        double : bool, default=False
            Whether to keep them in float64.
        steady : bool, default=False
            As for `KeySnapshot`, for `similarities`.
        """
        some = some if turn is None else some @ turn[0]
        sample = KeySnapshot(some if origin is None else some - origin, metric)
        origin = sample.offset if origin is None and not double else origin
        dtype = torch.float64 if double or sample.needs_double else torch.float32
        keys, start = torch.empty((len(labels), some.shape[1]), dtype=dtype, device="cpu"), 0
        for part in parts if turn is None else (part @ turn[0] for part in parts):
            keys[start : start + len(part)] = part if origin is None else part - origin
            start += len(part)
        return cls(State.of(Base(take_snapshot(keys, metric, index, steady=steady), labels)), origin, turn=turn)

    def _cast(self, x: Tensor, are_keys: bool = False) -> Tensor:
        """Bring keys or queries (n, d) into the frame and precision of the state."""
        if self._turn is not None:
            x = x.double() @ self._turn[0 if are_keys else 1]
        moved = x if self.origin is None else x.double() - self.origin
        return moved.to(self._versions[0].rows.raw.dtype)

    @property
    def state(self) -> State:
        """The keys, over the merged base as soon as there is one."""
        state, merge = self._versions  # both at once: another thread may do the same
        if merge is not None and merge.base is not None:
            state = state.moved_to(merge.base, merge.begun)
            self._versions = (state, None)
        return state

    def changed(self, gone: NDArray[np.int64], keys: Tensor, labels: NDArray[np.int64]) -> Growing | None:
        """Return a version without the keys of the labels `gone`, and with more; None if a new one would be faster."""
        state, (_, merge) = self.state, self._versions
        if len(gone) + len(labels) > capacity(state.base):
            return None
        if len(gone):
            state = state.without(gone)
        if len(labels):
            state = state.with_keys(self._cast(keys, are_keys=True), labels)
        if merge is None or not merge.is_running:
            merge = None
            if is_merge_due(state) and is_quick(state):
                state = State.of(merged(state))
            elif is_merge_due(state):
                merge = _Merge(state)
        return Growing(state, self.origin, merge, self._turn)

    def search(self, queries: Tensor, k: int, sought: int) -> NDArray[np.int64]:
        """Return labels (q, k) of the nearest keys to `queries` (q, d); see `State.search` for `sought`."""
        state, x = self.state, self._cast(queries)
        found = state.search_one(x[0].numpy(), k, sought) if len(x) == 1 else None
        return (found or state.search(x, k, sought))[0]

    def similarities(self, queries: Tensor) -> tuple[State, Tensor]:
        """Return the state, and the exact similarities (q, m) of all its keys, dead ones too."""
        state = self.state
        similarity = state.similarities(self._cast(queries))
        return state, similarity if state.base.snapshot.needs_double else similarity.to(queries.dtype)

    def similarities_in(self, queries: Tensor, column: NDArray[np.int64], n: int) -> Tensor:
        """Return the exact similarities (q, n) of keys, each in the column of its label; minus infinity for no key."""
        state, similarity = self.similarities(queries)
        alive = np.flatnonzero(state.alive_keys)
        found = similarity.new_full((len(queries), n), -torch.inf)
        found[:, torch.from_numpy(column[state.all_labels[alive]])] = similarity[:, torch.from_numpy(alive)]
        return found

    def chunk(self, k: int) -> int:
        """Return how many queries to search for at a time."""
        return self.state.chunk(k)


def is_merge_due(state: State) -> bool:
    """Whether so much has changed that the live keys should become a new base."""
    n, n_delta = len(state.base), len(state.labels)
    return _has_many_dead(state) or n_delta > max(capacity(state.base), n // 8 if n <= EXACT_LIMIT else 0)


def _has_many_dead(state: State) -> bool:
    return state.n_dead > max(SMALL_DELTA, MOST_DEAD * len(state.base))


def is_quick(state: State) -> bool:
    """Whether a merge takes milliseconds."""
    n = len(state.base) + len(state.labels)
    return n <= EXACT_LIMIT and not isinstance(state.base.snapshot, FaissSnapshot)


def merged(state: State) -> Base:
    """Return a base of all live keys of a state, ready to be searched; removed ones may stay in a graph that grows."""
    if not _has_many_dead(state) and (grown := state.grown()) is not None:
        return grown
    base = state.base.like(*state.alive())
    if isinstance(base.snapshot, FaissSnapshot):
        base.snapshot.build()  # before it is published
    return base


def capacity(base: Base) -> int:
    """Return the most rows of a delta."""
    return LARGE_DELTA if len(base) > EXACT_LIMIT else SMALL_DELTA


def changed_keys(
    held: Mapping[Any, Growing], gone: NDArray[np.int64], keys: Tensor, labels: NDArray[np.int64]
) -> dict[Any, Growing]:
    """Return searchable keys without the labels `gone` and with more; without those that are faster to make again."""
    found = {kind: one.changed(gone, keys, labels) for kind, one in held.items()}
    return {kind: one for kind, one in found.items() if one is not None}
