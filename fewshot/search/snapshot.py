"""Sets of keys in which FAISS finds the candidates, with the scores of exact search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.search.approximate import CANDIDATES, Approximate, Choice
from fewshot.search.background import begin
from fewshot.search.similarity import CHUNK_BYTES, PART, KeySnapshot, PreparedKeys, top
from fewshot.utils.isolation import isolated
from fewshot.utils.locks import lock_of
from fewshot.utils.values import NEEDS_FLOAT64

INDEXES = ("auto", "exact", "faiss", "ivf", "hnsw")
#: Up to this many keys one matrix product is faster than an index on a CPU.
EXACT_LIMIT = 100_000
#: An index of up to this many keys is built at once, a larger one in the background.
QUICK = 8192
#: Exact search compares float64 queries with all keys in float32, then with the 2k + SPARE best in float64.
SPARE = 16
#: Number of tuning queries, and their position between a key (0) and its nearest neighbour (1).
N_TRIALS, WAY_OUT = 200, 0.4


def take_snapshot(
    keys: Tensor, metric: str, index: str = "auto", recall: float = 0.99, *, steady: bool = False
) -> KeySnapshot:
    """Return keys (m, d) that are searched through `index`, or exactly if that is faster; see `KeySnapshot`."""
    kind = choose_kind(index, metric, len(keys))
    if kind == "exact":
        return KeySnapshot(keys, metric, index, recall, steady=steady)
    return FaissSnapshot(kind, keys, metric, index, recall, steady=steady)


class FaissSnapshot(KeySnapshot):
    """An immutable set of keys of which FAISS proposes candidates; their scores are those of exact search.

    Parameters
    ----------
    kind : {"flat", "ivf", "hnsw"}
        Structure of the index, which is built when first needed.
    keys, metric, index, recall, steady
        As for `KeySnapshot`.
    """

    def __init__(
        self, kind: str, keys: Tensor, metric: str, index: str, recall: float, *, steady: bool = False
    ) -> None:
        super().__init__(keys, metric, index, recall, steady=steady)
        self.kind = kind
        self._index: Approximate | None = None

    # ---- the frame of FAISS -----------------------------------------------------------------------------------------

    @cached_property
    def _centre(self) -> Tensor | float:
        """The mean unit vector for ``cosine``: unit vectors rank by distance, which it does not change."""
        if self.metric != "cosine":
            return 0.0
        total = sum(
            (self.prepare(part).keys.sum(0) for part in self.keys.split(PART)),
            self.keys.new_zeros(1, dtype=torch.float32),
        )
        return total / max(len(self.keys), 1)

    def _to_faiss(self, x: Tensor) -> NDArray[np.float32]:
        """Bring keys or queries into FAISS's frame and range: outside it, FAISS would answer -1."""
        shifted = (self.prepare(x).keys - self._centre) / self._scale
        if self.metric == "dot":  # the length of a query does not change its ranking
            shifted = shifted / shifted.abs().amax(-1, keepdim=True).clamp(min=1)
        shifted = shifted.clamp(-NEEDS_FLOAT64, NEEDS_FLOAT64)
        return np.ascontiguousarray(shifted.float().numpy())

    @property
    def approximate(self) -> Approximate:
        """The FAISS index, built first if it is missing, while other threads wait."""
        with lock_of(self):
            return self._index or self._build(lambda: self)

    @property
    def ready(self) -> Approximate | None:
        """The FAISS index; None if it is being built in the background, which begins when this is first asked."""
        if self.built is not None:
            return self.built
        if len(self.keys) <= QUICK:
            return self.approximate
        begin(self, FaissSnapshot._build, "building an index in the background")
        return self.built

    @staticmethod
    @isolated(gradients=False)
    def _build(alive: Callable[[], FaissSnapshot]) -> Approximate:
        """Build the index of the snapshot that ``alive()`` returns, unless another thread has."""

        def rows(places: NDArray[np.int64]) -> NDArray[np.float32]:
            snapshot = alive()
            return snapshot._to_faiss(snapshot.keys[torch.from_numpy(places)])

        if (snapshot := alive()).built is not None:
            return snapshot.built
        (m, d), kind, is_product, recall = snapshot.keys.shape, snapshot.kind, snapshot.metric == "dot", snapshot.recall
        del snapshot  # so that it can be forgotten
        found = Approximate.build(kind, is_product, m, d, rows, lambda: alive()._trial(), recall)
        alive()._index = found
        return found

    def _trial(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return queries for tuning, in FAISS's frame, and the nearest key of each.

        They lie between some keys and their nearest neighbours, as far from the key as its queries may well be.
        """
        some = np.random.default_rng(1).permutation(len(self.keys))[:N_TRIALS]
        keys = self.keys[torch.from_numpy(np.sort(some))].double()
        neighbours = self.exact_top(keys, min(2, len(self.keys)))[0][:, -1]
        queries = torch.lerp(keys, self.keys[neighbours].double(), WAY_OUT)
        return self._to_faiss(queries), self.exact_top(queries, 1)[0][:, 0].numpy()

    def build(self) -> Choice:
        """Build the index if it is missing; return what was chosen and how good it is."""
        return self.approximate.choice

    @property
    def built(self) -> Approximate | None:
        """The FAISS index, if it has been built."""
        return self._index

    @property
    def frame(self) -> dict[str, Tensor]:
        """The tensors that took a pass over all keys to compute, for `adopt`."""
        found = {"offset": self.offset, "centre": self._centre, "scale": self._scale}
        return {name: torch.as_tensor(value, device="cpu") for name, value in found.items() if value is not None}

    def adopt(self, index: Approximate, frame: Mapping[str, Tensor]) -> None:
        """Take over the index and the `frame` of the same keys instead of computing them again."""
        centre = frame["centre"]
        self.__dict__ |= {
            "offset": frame.get("offset"),
            "_centre": centre if centre.ndim else float(centre),
            "_scale": float(frame["scale"]),
            "_index": index,
        }

    # ---- searching --------------------------------------------------------------------------------------------------

    def retrieve(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Score `queries` (q, d) against the candidates that FAISS proposes; see `KeySnapshot.retrieve`."""
        n_candidates = min(len(self.keys), max(4 * k, CANDIDATES))
        if (index := self.ready) is None:
            return self.exact_top(queries, n_candidates)
        ids = torch.from_numpy(index.search(self._to_faiss(queries), n_candidates))
        similarity = self.score(queries, self.keys[ids.clamp(min=0)])
        return ids, torch.where(ids >= 0, similarity, -torch.inf).to(self._answer_dtype(queries))

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return ids and similarities (q, k) of the nearest keys found, nearest first; ties go to the first key."""
        if self.ready is None:
            return self.exact_top(queries, k)
        ids, similarity = top(*self.retrieve(queries, k), k)
        missed = (ids < 0).any(-1)
        if missed.any():  # a graph may reach fewer than k keys, and an id of -1 must never become a label
            ids[missed], similarity[missed] = self.exact_top(queries[missed], k)
        return ids, similarity

    def exact_top(self, queries: Tensor, k: int, dead: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what exact search finds; see `KeySnapshot.exact_top`.

        Queries in float64 are compared in float32 first, and the best of all keys again in float64.
        """
        n_best = min(len(self.keys), 2 * k + SPARE)
        if queries.dtype == torch.float32 or self._plain is None or self.needs_double or n_best == len(self.keys):
            return super().exact_top(queries, k, dead)
        ids, ranks = super().exact_top(queries.float(), n_best, dead)
        similarity = torch.where(torch.isfinite(ranks), self.score(queries, self.keys[ids]), -torch.inf)
        return top(ids, similarity, k)

    def _parts(self, queries: Tensor, k: int) -> Iterator[PreparedKeys]:
        """Yield all keys, a part at a time: users of FAISS should not pay for a prepared copy of all."""
        if self._plain is not None and queries.dtype == torch.float32 and not (self.steady or self.needs_double):
            yield from super()._parts(queries, k)
            return
        parts = map(self.prepare, self.keys.split(max(PART, 4 * k)))
        yield from (part.steadied() if self.steady else part for part in parts)

    def chunk(self, k: int = 1) -> int:
        """Return how many queries to score at a time, so that the work fits `CHUNK_BYTES`."""
        m, d = self.keys.shape
        return max(1, CHUNK_BYTES // (8 * max(min(m, max(4 * k, CANDIDATES)) * d + d, 1)))

    search_chunk = chunk


def choose_kind(index: str, metric: str, n: int) -> str:
    """Return what searches `n` keys.

    Up to 1e5 keys one matrix product is faster than any index, beyond that inverted lists are. A graph finds
    unnormalised inner products badly, so ``dot`` never uses one.
    """
    if not n:
        return "exact"
    if index == "hnsw":
        return "flat" if metric == "dot" else "hnsw"
    if index in ("exact", "ivf"):
        return index
    if n > EXACT_LIMIT:
        return "ivf"
    return "exact" if index == "auto" else "flat"
