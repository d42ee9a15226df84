"""The writer's side: states are published, deltas grow, and both are merged."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.search.snapshot import EXACT_LIMIT
from fewshot.search.state import Base, Room, State
from fewshot.utils.isolation import isolated
from fewshot.utils.locks import new_lock

#: Rows of a delta before it is merged: where the base is small, and where merging means building an index anew.
SMALL_DELTA, LARGE_DELTA = 1024, 8192
#: The share of dead keys in a base beyond which it is made anew.
MOST_DEAD = 0.25


class Segments:
    """The writer's side: add and remove keys, publish states, merge.

    Parameters
    ----------
    base : Base
        To begin with; its keys may be none.
    """

    def __init__(self, base: Base) -> None:
        self._lock = new_lock(self)
        self._merger: threading.Thread | None = None
        self.state = self._begin(base)

    def restore(self, raw: Tensor, labels: NDArray[Any], dead_base: Tensor, dead_delta: Tensor) -> None:
        """Put a delta (k, d) with its labels, and what is dead, beside a base that is new here."""
        state = self._with(self.state, raw, labels)
        n_dead = int(dead_base.sum()) + int(dead_delta.sum())
        self.state = replace(state, dead_base=dead_base, dead_delta=dead_delta, n_dead=n_dead)

    @staticmethod
    @isolated(gradients=True)
    def _begin(base: Base) -> State:
        """Return the state of a new base with an empty delta."""
        d, n = base.keys.keys.shape[1], len(base)
        double = torch.empty((0, d), dtype=torch.float64, device="cpu")
        room = Room(base.keys.keys.new_empty((0, d)), double, double.new_empty((0, 1)))
        return State(
            base,
            base.keys.prepare(base.keys.keys[:0]),
            room.raw,
            base.labels[:0],
            torch.zeros(n, dtype=torch.bool, device="cpu"),
            torch.zeros(0, dtype=torch.bool, device="cpu"),
            room,
        )

    def add(self, keys: Tensor, labels: NDArray[Any], instead: bool = False) -> None:
        """Add keys (k, d) with their labels; where `instead`, keys that have these labels go in the same moment."""
        with self._lock:
            state = self._without(self.state, labels) if instead else self.state
            if len(keys) > max(_capacity(state.base), len(state.base) // 2) or not len(state.base):
                self.state = self._grown(state, keys, labels)
            else:
                self.state = self._with(state, keys, labels)
        self._merge_if_due()

    def remove(self, labels: NDArray[Any]) -> int:
        """Remove all keys of some labels; return how many there were."""
        with self._lock:
            before, self.state = self.state.n_alive, self._without(self.state, labels)
            gone = before - self.state.n_alive
        self._merge_if_due()
        return gone

    def _grown(self, state: State, keys: Tensor, labels: NDArray[Any]) -> State:
        """Return the state of a new base of all that was there and more."""
        old_keys, old_labels = state.alive()
        if len(old_labels):
            keys, labels = torch.cat([old_keys, keys]), np.concatenate([old_labels, labels])
        else:
            keys, labels = keys.clone(), labels.copy()  # the caller may go on to change the arrays
        return self._begin(state.base.like(keys, labels))

    @staticmethod
    @isolated(gradients=True)
    def _with(state: State, keys: Tensor, labels: NDArray[Any]) -> State:
        """Return the state with more rows in its delta; readers of older states never look beyond theirs."""
        start, end = len(state.labels), len(state.labels) + len(keys)
        prepared, room = state.base.keys.prepare(keys), state.room
        wide = torch.promote_types(room.raw.dtype, keys.dtype)
        room = Room(*(_roomy(buffer, start, end) for buffer in (room.raw.to(wide), room.keys, room.sqnorm)))
        room.raw[start:end], room.keys[start:end] = keys, prepared.keys
        sqnorm = None
        if prepared.sqnorm is not None:
            room.sqnorm[start:end] = prepared.sqnorm.T
            sqnorm = room.sqnorm[:end].T
        return replace(
            state,
            delta=replace(prepared, keys=room.keys[:end], sqnorm=sqnorm),
            raw=room.raw[:end],
            labels=np.concatenate([state.labels, labels]) if start else labels.copy(),
            dead_delta=torch.cat([state.dead_delta, state.dead_delta.new_zeros(len(keys))]),
            room=room,
        )

    @staticmethod
    def _without(state: State, labels: NDArray[Any]) -> State:
        dead_base, dead_delta, n_dead = state.dead_base, state.dead_delta, state.n_dead
        for label in dict.fromkeys(labels.tolist()):
            places, own = state.places(label)
            n_dead += int((~dead_base[places]).sum()) + int((~dead_delta[own]).sum())
            if len(places):
                dead_base = dead_base.clone() if dead_base is state.dead_base else dead_base
                dead_base[places] = True
            if len(own):
                dead_delta = dead_delta.clone() if dead_delta is state.dead_delta else dead_delta
                dead_delta[own] = True
        return replace(state, dead_base=dead_base, dead_delta=dead_delta, n_dead=n_dead)

    # ---- merging ----------------------------------------------------------------------------------------------------

    def _merge_if_due(self) -> None:
        state = self.state
        n, n_delta = len(state.base), len(state.labels)
        many_dead = state.n_dead > max(SMALL_DELTA, MOST_DEAD * n)
        if n_delta <= max(_capacity(state.base), n // 8 if n <= EXACT_LIMIT else 0) and not many_dead:
            return
        if n + n_delta <= EXACT_LIMIT and state.base.keys.kind == "exact":
            self.compact()
            return
        with self._lock:
            if self._merger is None or not self._merger.is_alive():  # a forked child has the object and no thread
                self._merger = threading.Thread(target=self.compact, name="fewshot-merge", daemon=True)
                self._merger.start()

    def compact(self) -> None:
        """Make a new base of all that is there; what comes and goes meanwhile is kept."""
        begun = self.state
        base = begun.base.like(*begun.alive())
        if base.keys.uses_faiss:
            base.keys.build()  # built before it is published
        with self._lock:
            now = self.state
            if now.base is not begun.base:
                return  # another merge was quicker
            # Published once, at the end: between, a key would be gone from its old place and not yet in its new one.
            later, n = slice(len(begun.labels), None), len(begun.labels)
            was = torch.cat([~begun.dead_base, ~begun.dead_delta])
            dead = torch.cat([now.dead_base, now.dead_delta[:n]])[was]
            state = replace(self._begin(base), dead_base=dead, n_dead=int(dead.sum()))
            if len(now.labels[later]):
                alive = ~now.dead_delta[later]
                state = self._with(state, now.raw[later][alive], now.labels[later][alive.numpy()])
            self.state = state

    def wait(self) -> None:
        """Wait until a merge in the background is done."""
        merger = self._merger
        if merger is not None:
            merger.join()


def _capacity(base: Base) -> int:
    return LARGE_DELTA if len(base) > EXACT_LIMIT else SMALL_DELTA


def _roomy(buffer: Tensor, used: int, needed: int) -> Tensor:
    """Return a buffer with room for `needed` rows; a larger one is a copy, so that readers keep theirs."""
    if needed <= len(buffer):
        return buffer
    larger = buffer.new_empty((max(2 * len(buffer), needed, 64), buffer.shape[1]))
    larger[:used] = buffer[:used]
    return larger
