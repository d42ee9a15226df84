"""The writer's side of an index: it publishes states, lets deltas grow, and merges them into the base."""

from __future__ import annotations

import threading
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.search.snapshot import EXACT_LIMIT, FaissSnapshot
from fewshot.search.state import Base, State
from fewshot.utils.locks import lock_of

#: Most rows of a delta: of a small base, and of one whose FAISS index a merge must rebuild.
SMALL_DELTA, LARGE_DELTA = 1024, 8192
#: Share of dead keys beyond which a base is rebuilt.
MOST_DEAD = 0.25


class Segments:
    """Adds and removes keys by publishing one `state` after another, and merges delta and base.

    Parameters
    ----------
    state : State
        The first state.
    """

    def __init__(self, state: State) -> None:
        self._merger: threading.Thread | None = None
        self.state = state

    def add(self, keys: Tensor, labels: NDArray[Any], replace: bool = False) -> None:
        """Add keys (k, d) with their labels; `replace` removes the old keys of these labels in the same step."""
        with lock_of(self):
            state = self.state.without(labels) if replace else self.state
            if len(keys) > max(_capacity(state.base), len(state.base) // 2):
                self.state = state.merged_with(keys, labels)
            else:
                self.state = state.with_keys(keys, labels)
        self._merge_if_due()

    def remove(self, labels: NDArray[Any]) -> None:
        """Remove all keys of some labels."""
        with lock_of(self):
            self.state = self.state.without(labels)
        self._merge_if_due()

    def _merge_if_due(self) -> None:
        state = self.state
        n, n_delta = len(state.base), len(state.labels)
        many_dead = state.n_dead > max(SMALL_DELTA, MOST_DEAD * n)
        if n_delta <= max(_capacity(state.base), n // 8 if n <= EXACT_LIMIT else 0) and not many_dead:
            return
        if n + n_delta <= EXACT_LIMIT and not isinstance(state.base.snapshot, FaissSnapshot):
            self.compact()
            return
        with lock_of(self):
            if self._merger is None or not self._merger.is_alive():  # a forked child has the object but no thread
                self._merger = threading.Thread(target=self.compact, name="fewshot-merge", daemon=True)
                self._merger.start()

    def compact(self) -> None:
        """Merge all live keys into a new base; changes made meanwhile are kept."""
        begun = self.state
        base = begun.base.like(*begun.alive())
        if isinstance(base.snapshot, FaissSnapshot):
            base.snapshot.build()  # before it is published
        with lock_of(self):
            now, n = self.state, len(begun.labels)
            if now.base is not begun.base:
                return  # another merge was faster
            was_alive = torch.cat([~begun.dead_base, ~begun.dead_delta])
            dead = torch.cat([now.dead_base, now.dead_delta[:n]])[was_alive]
            later = ~now.dead_delta[n:]
            state = State.of(base).with_keys(now.raw[n:][later], now.labels[n:][later.numpy()])
            # Published once, at the end: before it, a key would be in neither its old nor its new place.
            self.state = state.with_dead(dead, state.dead_delta)

    def wait(self) -> None:
        """Wait for a merge in the background to end."""
        merger = self._merger
        if merger is not None:
            merger.join()


def _capacity(base: Base) -> int:
    return LARGE_DELTA if len(base) > EXACT_LIMIT else SMALL_DELTA
