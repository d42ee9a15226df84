"""An immutable set of keys, searched by exact matrix products or FAISS, with the same scores either way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.search.approximate import CANDIDATES, Approximate, Choice
from fewshot.search.similarity import PreparedKeys, pairwise_similarity, prepare_keys, top
from fewshot.utils.locks import lock_of
from fewshot.utils.values import NEEDS_FLOAT64, TINY

INDEXES = ("auto", "exact", "faiss", "ivf", "hnsw")
#: Up to this many keys one matrix product is faster than an index on a CPU.
EXACT_LIMIT = 100_000
#: Number of tuning queries, and their position between a key (0) and its nearest neighbour (1).
N_TRIALS, WAY_OUT = 200, 0.4
#: Number of keys prepared at a time.
PART = 16384
#: Number of keys scored at a time for many queries, so that the scores stay in the processor's cache.
BLOCK = 4096
#: Score at least this many pairs at a time: one query sees all keys at once.
FEWEST_SCORES = 2**20
#: Bytes that the similarities of one chunk of queries may take.
CHUNK_BYTES = 64 * 2**20


class KeySnapshot:
    """An immutable set of keys that can be searched; any number of threads may read it.

    Parameters
    ----------
    keys : Tensor of shape (m, d)
        Float32 or float64 keys.
    metric : str
        Similarity.
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}
        What proposes the candidates.
    recall : float, default=0.99
        The share of nearest keys that ``ivf`` and ``hnsw`` must find.
    steady : bool, default=False
        Whether similarities of float32 queries must be the same, to the last bit, in any batch. Exact search then takes
        up to twice as long.
    """

    def __init__(
        self, keys: Tensor, metric: str, index: str = "auto", recall: float = 0.99, *, steady: bool = False
    ) -> None:
        self.keys, self.metric, self.index, self.recall, self.steady = keys, metric, index, recall, steady
        self.kind = choose_kind(index, metric, len(keys))

    @property
    def uses_faiss(self) -> bool:
        """Whether FAISS proposes candidates."""
        return self.kind != "exact"

    def __getstate__(self) -> dict[str, Any]:
        # A FAISS index in a pickle is a risk, and can be rebuilt from the keys.
        return {name: self.__dict__[name] for name in ("keys", "metric", "index", "recall", "steady", "kind")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"steady": False, **state})

    # ---- the frame in which keys and queries are compared ---------------------------------------------------------

    @cached_property
    def offset(self) -> Tensor | None:
        """The mean key (1, d) in float64, subtracted from both sides for ``sqeuclidean``."""
        if self.metric != "sqeuclidean":
            return None
        mean = self.keys.mean(0, keepdim=True, dtype=torch.float64) if len(self.keys) else self.keys
        # Rounded to the precision of the keys, so that subtracting it from float32 queries is exact in one step.
        return mean.to(self.keys.dtype).double()

    def prepare(self, keys: Tensor) -> PreparedKeys:
        """Prepare some keys (..., d) in the frame of all, in float64."""
        return prepare_keys(keys.double(), self.metric, self.offset)

    def _prepare_all(self, dtype: torch.dtype) -> PreparedKeys:
        """Prepare all keys, a part at a time."""
        keys = self.keys.new_empty(self.keys.shape, dtype=dtype)
        sqnorm = keys.new_empty((1, len(keys))) if self.metric == "sqeuclidean" else None
        for start in range(0, len(keys), PART):
            part = self.prepare(self.keys[start : start + PART])
            keys[start : start + PART] = part.keys
            if sqnorm is not None and part.sqnorm is not None:
                sqnorm[:, start : start + PART] = part.sqnorm
        return PreparedKeys(self.metric, keys, self.offset, sqnorm)

    @cached_property
    def _double(self) -> PreparedKeys:
        prepared = self._prepare_all(torch.float64)
        return prepared.steadied() if self.steady else prepared

    @cached_property
    def _single(self) -> PreparedKeys:
        return self._prepare_all(torch.float32)

    def _prepared_for(self, queries: Tensor) -> PreparedKeys:
        """Return all keys in the precision in which `queries` are compared."""
        double = queries.dtype == torch.float64 or self.steady or self.needs_double
        return self._double if double else self._single

    @cached_property
    def needs_double(self) -> bool:
        """Whether float32 over- or underflows, or rounds by more than 1 % of the distance between near keys.

        The latter happens if clusters lie far apart for their width, or all keys point nearly the same way. Distances
        are measured from 64 keys to 1024 others; equal keys do not count.
        """
        if self.metric == "dot" or len(self.keys) < 2 or self._scale != 1:
            return self._scale != 1 and self.metric != "cosine"
        some, others = (self.prepare(self.keys[:: max(1, len(self.keys) // n)]).keys for n in (64, 1024))
        scale = 1.0 if self.metric == "cosine" else max(float(x.square().sum(-1).max()) for x in (some, others))
        apart = -pairwise_similarity(some, others)
        nearest = torch.where(apart > 1e-12 * scale, apart, torch.inf).amin(-1)
        return bool(nearest.median() < 100 * torch.finfo(torch.float32).eps * scale)

    # ---- FAISS ------------------------------------------------------------------------------------------------------

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

    @cached_property
    def _scale(self) -> float:
        """Divisor of all keys by which their squares fit float32; a common factor does not change the ranking."""
        found = (float(self.prepare(part).keys.abs().max()) for part in self.keys.split(PART) if part.numel())
        largest = max(found, default=0.0)
        return largest if 0 < largest < TINY else max(1.0, largest / NEEDS_FLOAT64)

    def _to_faiss(self, x: Tensor) -> NDArray[np.float32]:
        """Bring keys or queries into FAISS's frame and range: outside it, FAISS would answer -1."""
        shifted = (self.prepare(x).keys - self._centre) / self._scale
        if self.metric == "dot":  # the length of a query does not change its ranking
            shifted = shifted / shifted.abs().amax(-1, keepdim=True).clamp(min=1)
        shifted = shifted.clamp(-NEEDS_FLOAT64, NEEDS_FLOAT64)
        return np.ascontiguousarray(shifted.float().numpy())

    @property
    def approximate(self) -> Approximate:
        """The FAISS index, built on first use while other threads wait."""
        with lock_of(self):
            return self._index

    @cached_property
    def _index(self) -> Approximate:
        def rows(places: NDArray[np.int64]) -> NDArray[np.float32]:
            return self._to_faiss(self.keys[torch.from_numpy(places)])

        m, d = self.keys.shape
        return Approximate.build(self.kind, self.metric == "dot", m, d, rows, self._trial, self.recall)

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
        """Build the FAISS index if it is missing; return what was chosen and how good it is."""
        return self.approximate.choice if self.uses_faiss else Choice("exact")

    @property
    def built(self) -> Approximate | None:
        """The FAISS index, if it has been built."""
        return self.__dict__.get("_index")

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

    def retrieve(self, queries: Tensor, k: int) -> tuple[Tensor | None, Tensor]:
        """Score `queries` (q, d), finite and of the right length, against candidates.

        Returns
        -------
        ids : Tensor of shape (q, c) or None
            Candidate keys, at least `k` of them if there are as many, -1 for a missing one; None means all keys.
        similarities : Tensor of shape (q, m) or (q, c)
            Exact similarities, in float64 if float32 cannot tell them apart, else in the precision of the queries.
        """
        if self.uses_faiss:
            return self.candidates(queries, k)
        prepared = self._prepared_for(queries)
        return None, prepared.similarity(queries.to(prepared.keys.dtype)).to(self._answer_dtype(queries))

    def candidates(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return what `retrieve` does for the candidates that FAISS proposes."""
        n_candidates = min(len(self.keys), max(4 * k, CANDIDATES))
        ids = torch.from_numpy(self.approximate.search(self._to_faiss(queries), n_candidates))
        similarity = self.score(queries, self.keys[ids.clamp(min=0)])
        return ids, torch.where(ids >= 0, similarity, -torch.inf).to(self._answer_dtype(queries))

    def _answer_dtype(self, queries: Tensor) -> torch.dtype:
        return torch.float64 if self.needs_double else queries.dtype

    def score(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Return float64 similarities (q, c) of `queries` (q, d) to `candidates` (q, c, d) of their own."""
        return self.prepare(candidates).similarity(queries.double().unsqueeze(-2)).squeeze(-2)

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return ids and similarities (q, k) of the nearest keys, nearest first; ties go to the first key."""
        if not self.uses_faiss:
            return self.exact_top(queries, k)
        ids, similarity = top(*self.candidates(queries, k), k)
        missed = (ids < 0).any(-1)
        if missed.any():  # a graph may reach fewer than k keys, and an id of -1 must never become a label
            ids[missed], similarity[missed] = self.exact_top(queries[missed], k)
        return ids, similarity

    def exact_top(self, queries: Tensor, k: int, dead: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ids and similarities (q, k) of the nearest keys that are not `dead` (m,), a part of them at a time."""
        ids, ranks = queries.new_empty((len(queries), 0), dtype=torch.long), queries.new_empty((len(queries), 0))
        if not len(self.keys):
            return ids, ranks
        start, x = 0, queries
        for part in self._parts(queries, k):
            x = part.prepare_queries(queries.to(part.keys.dtype)) if not start else x
            found, m = part.rank(x), len(part.keys)
            if dead is not None:
                found = found.masked_fill_(dead[start : start + m], -torch.inf)
            columns, values = top(None, found, min(k, m))
            if start:
                columns, values = torch.cat([ids, columns + start], -1), torch.cat([ranks, values], -1)
                columns, values = top(columns, values, min(k, columns.shape[1]))
            ids, ranks, start = columns, values, start + m
        return ids, part.finish(x, ranks).to(self._answer_dtype(queries))

    def _parts(self, queries: Tensor, k: int) -> Iterator[PreparedKeys]:
        """Yield all keys, a part at a time, in the precision in which `queries` (q, d) are compared."""
        m = len(self.keys)
        if self.uses_faiss:  # whose users should not pay for a prepared copy of all keys
            size = max(PART, 4 * k)
            parts = map(self.prepare, self.keys.split(size))
            yield from (part.steadied() if self.steady else part for part in parts)
            return
        prepared = self._prepared_for(queries)
        size = max(BLOCK, 4 * k, FEWEST_SCORES // max(len(queries), 1))
        yield from (prepared.part(start, start + size) for start in range(0, m, size))

    def chunk(self, k: int = 1) -> int:
        """Return how many queries to score at a time, so that the work fits `CHUNK_BYTES`."""
        m, d = self.keys.shape
        row = (min(m, max(4 * k, CANDIDATES)) * d if self.uses_faiss else m) + d
        return max(1, CHUNK_BYTES // (8 * max(row, 1)))

    def search_chunk(self, k: int = 1) -> int:
        """Return how many queries to search for at a time."""
        m, d = self.keys.shape
        return self.chunk(k) if self.uses_faiss else max(1, CHUNK_BYTES // (8 * (min(m, max(BLOCK, 4 * k)) + d + 1)))


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


def search_in_chunks(snapshot: KeySnapshot, queries: Tensor, k: int) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """Search any number of `queries` (n, d) in bounded memory; return ids and similarities (n, k)."""
    if not len(queries):
        return np.empty((0, k), np.int64), queries.new_empty((0, k)).numpy()
    parts = [snapshot.search(part, k) for part in queries.split(snapshot.search_chunk(k))]
    return torch.cat([ids for ids, _ in parts]).numpy(), torch.cat([values for _, values in parts]).numpy()


def to_tensor(array: NDArray[Any]) -> Tensor:
    """Return a float tensor that shares memory if possible: float32 and float16 become float32, the rest float64."""
    single = array.dtype in (np.float32, np.float16)
    array = np.require(array, np.float32 if single else np.float64, ["C", "W"])
    return torch.from_numpy(array)


def check_k(k: Any, n_keys: int) -> None:
    """Raise unless k is an integer from 1 to n_keys."""
    if not isinstance(k, (int, np.integer)) or not 1 <= k <= n_keys:
        raise ValueError(f"k is {k!r}; expected an integer from 1 to {n_keys}, the number of keys")
