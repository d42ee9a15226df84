"""An immutable set of keys, searched by exact matrix products or FAISS, with the same scores either way."""

from __future__ import annotations

import os
import sys
from functools import cache, cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.checks import NEEDS_FLOAT64
from fewshot.similarity import PreparedKeys, pairwise_similarity, prepare_keys

INDEXES = ("auto", "exact", "faiss")
#: Up to this many keys one matrix product beats an index on a CPU.
EXACT_LIMIT = 100_000
#: Nearest keys that FAISS proposes at the least; they are scored again, and only they are read.
CANDIDATES = 256
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
    def _scale(self) -> float:
        """What the keys are divided by so that their squares fit float32; a common factor keeps the ranking."""
        return max(1.0, float(self._double.keys.abs().max()) / NEEDS_FLOAT64) if self.keys.numel() else 1.0

    @cached_property
    def _needs_double(self) -> bool:
        """Whether float32 overflows, or would blur neighbours: its rounding reaches 1 % of what parts near keys.

        So it is where clusters lie far apart for their width, or all keys point nearly the same way. Distances are
        measured from 64 keys to 1024 others; equal keys do not count.
        """
        if self.metric == "dot" or len(self.keys) < 2 or self._scale > 1:
            return self._scale > 1 and self.metric != "cosine"
        keys = self._double.keys
        scale = 1.0 if self.metric == "cosine" else float(keys.square().sum(-1).max())
        some, others = (keys[:: max(1, len(keys) // n)] for n in (64, 1024))
        apart = -pairwise_similarity(some, others)
        nearest = torch.where(apart > 1e-12 * scale, apart, torch.inf).amin(-1)
        return bool(nearest.median() < 100 * torch.finfo(torch.float32).eps * scale)

    def _to_faiss(self, prepared: Tensor) -> NDArray[np.float32]:
        """Bring prepared keys or queries into FAISS's frame, out of which none may fall: it would answer -1."""
        shifted = ((prepared - self._centre) / self._scale).clamp(-NEEDS_FLOAT64, NEEDS_FLOAT64)
        return np.ascontiguousarray(shifted.float().numpy())

    @cached_property
    def _index(self) -> Any:
        faiss = _faiss()
        keys = self._to_faiss(self._double.keys)
        metric = faiss.METRIC_INNER_PRODUCT if self.metric == "dot" else faiss.METRIC_L2
        # A graph finds unnormalised inner products badly, so `dot` stays flat.
        if len(keys) > EXACT_LIMIT and self.metric != "dot":
            index = faiss.IndexHNSWFlat(keys.shape[1], 32, metric)
            index.hnsw.efConstruction, index.hnsw.efSearch = 80, 256
        else:
            index = faiss.IndexFlat(keys.shape[1], metric)
        index.add(keys)
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
        double = queries.dtype == torch.float64 or self._needs_double
        prepared = self._double if double else self._single
        shifted = prepared.prepare_queries(queries.double() if double else queries)
        if not self.uses_faiss:
            return None, prepared.compare(shifted)
        n_candidates = min(len(self.keys), max(4 * k, CANDIDATES))
        _, found = self._index.search(self._to_faiss(shifted), n_candidates)
        ids = torch.from_numpy(found)
        similarity = prepared.take(ids.clamp(min=0)).compare(shifted.unsqueeze(-2)).squeeze(-2)
        return ids, torch.where(ids >= 0, similarity, -torch.inf)

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return ids and similarities (q, k) of the nearest keys, nearest first; among equals the first key."""
        ids, similarity = top(*self.retrieve(queries, k), k)
        missed = (ids < 0).any(-1)
        if missed.any():  # a graph may reach fewer than k keys, and an id of -1 must never become a label
            exact = KeySnapshot(self.keys, self.metric, "exact").search(queries[missed], k)
            ids[missed], similarity[missed] = exact[0], exact[1].to(similarity.dtype)
        return ids, similarity

    def chunk(self, k: int = 1) -> int:
        """Return how many queries to ask at a time, so that the work fits `CHUNK_BYTES`."""
        m, d = self.keys.shape
        row = (min(m, max(4 * k, CANDIDATES)) * d if self.uses_faiss else m) + d
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
