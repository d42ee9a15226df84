"""Approximate search with FAISS: trained on the keys, and tuned until it finds what exact search finds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Rows = Callable[[NDArray[np.int64]], NDArray[np.float32]]
#: Keys that k-means is trained on for each list, and the keys whose neighbours the tuning asks for.
TRAINING_POINTS, N_TUNING, NEIGHBOURS = 40, 200, 10
#: HNSW's links of a key, and the candidates it weighs while building and at most while searching.
LINKS, WIDTH_BUILDING, WIDEST = 32, 80, 4096


@cache
def faiss_module() -> ModuleType:
    """Return FAISS, imported when it is first needed."""
    import faiss

    return faiss


def use_one_thread() -> None:
    """Keep a forked child from waiting for ever for the OpenMP threads that its parent had and it has not."""
    torch.set_num_threads(1)
    if "faiss" in sys.modules:
        faiss_module().omp_set_num_threads(1)


@dataclass(frozen=True)
class Choice:
    """What was chosen, and how good it is.

    Attributes
    ----------
    kind : {"exact", "flat", "ivf", "hnsw"}
        How candidates are found: by products with all keys (in torch, or in FAISS), in inverted lists, or in a graph.
    n_lists, effort : int
        Lists of ``ivf``, and how many of them a search looks into; for ``hnsw`` the width of the search.
    recall : float
        The share of the nearest neighbours of keys, measured against exact answers, that are found; 1 for exact ones.
    seconds : float
        What building and tuning took.
    """

    kind: str
    n_lists: int = 0
    effort: int = 0
    recall: float = 1.0
    seconds: float = 0.0


class Approximate:
    """A FAISS index over rows of float32, with the effort that reaches a recall.

    Parameters
    ----------
    kind : {"flat", "ivf", "hnsw"}
        Structure.
    is_product : bool
        Whether larger inner products are nearer; else smaller distances are.
    n, d : int
        Rows and their length.
    rows : callable
        ``rows(places)`` returns some of them, (k, d).
    exact : callable
        ``exact(places, k)`` returns the k nearest rows of each of these rows, itself among them.
    recall : float
        Wanted.
    """

    def __init__(
        self,
        kind: str,
        is_product: bool,
        n: int,
        d: int,
        rows: Rows,
        exact: Callable[[NDArray[np.int64], int], NDArray[np.int64]],
        recall: float,
    ) -> None:
        start = time.perf_counter()
        self._faiss = faiss_module()
        self._single_thread_or_torchs()
        self._kind = kind
        n_lists = max(1, round(n**0.5)) if kind == "ivf" else 0
        self.index = self._empty(kind, is_product, d, n_lists)
        if kind == "ivf":
            sample = np.random.default_rng(0).permutation(n)[: TRAINING_POINTS * n_lists]
            self.index.train(rows(np.sort(sample)))
        for part in _parts(n):
            self.index.add(rows(part))
        self.choice = Choice(kind, n_lists, *self._tune(n, n_lists, rows, exact, recall))
        self.choice = Choice(
            kind, n_lists, self.choice.effort, self.choice.recall, round(time.perf_counter() - start, 3)
        )

    def search(self, x: NDArray[np.float32], k: int, effort: int = 0) -> NDArray[np.int64]:
        """Return the places (q, k) of the nearest rows of `x` (q, d) that were found, -1 where there are fewer."""
        self._single_thread_or_torchs(len(x))
        effort = effort or self.choice.effort
        if self._kind == "ivf":
            settings = self._faiss.SearchParametersIVF(nprobe=effort)
        elif self._kind == "hnsw":
            settings = self._faiss.SearchParametersHNSW(efSearch=max(effort, k))
        else:
            settings = None
        _, found = self.index.search(x, k, params=settings)
        return found

    def _empty(self, kind: str, is_product: bool, d: int, n_lists: int) -> Any:
        faiss = self._faiss
        metric = faiss.METRIC_INNER_PRODUCT if is_product else faiss.METRIC_L2
        if kind == "flat":
            return faiss.IndexFlat(d, metric)
        if kind == "hnsw":
            index = faiss.IndexHNSWFlat(d, LINKS, metric)
            index.hnsw.efConstruction = WIDTH_BUILDING
            return index
        index = faiss.IndexIVFFlat(faiss.IndexFlat(d, metric), d, n_lists, metric)
        index.cp.seed, index.cp.max_points_per_centroid = 0, TRAINING_POINTS
        index.cp.min_points_per_centroid = 1  # it warns on standard error otherwise
        return index

    def _tune(
        self,
        n: int,
        n_lists: int,
        rows: Rows,
        exact: Callable[[NDArray[np.int64], int], NDArray[np.int64]],
        recall: float,
    ) -> tuple[int, float]:
        """Return the least effort, of the powers of two, that finds `recall` of the neighbours; and what it finds."""
        if self._kind == "flat" or n < 2:
            return 1, 1.0
        places = np.sort(np.random.default_rng(1).permutation(n)[:N_TUNING])
        k = min(NEIGHBOURS + 1, n)
        # A key finds itself at once; its neighbours are harder to find than the key nearest to a query.
        wanted = [set(row) - {place} for row, place in zip(exact(places, k).tolist(), places.tolist(), strict=True)]
        queries, most = rows(places), n_lists or WIDEST
        effort, found = 1 if n_lists else 16, 0.0
        while True:
            answers = self.search(queries, k, effort).tolist()
            hits = sum(len(want & set(row)) for want, row in zip(wanted, answers, strict=True))
            found = hits / sum(map(len, wanted))
            if found >= recall or effort >= most:
                return effort, round(found, 4)
            effort = min(2 * effort, most)

    def _single_thread_or_torchs(self, n_queries: int = 2) -> None:
        """Take as many threads as torch does; one for one query, where more would only wait for each other."""
        # Acts on the calling thread alone, so that threads may search beside each other.
        self._faiss.omp_set_num_threads(torch.get_num_threads() if n_queries > 1 else 1)


def _parts(n: int, size: int = 65536) -> Iterator[NDArray[np.int64]]:
    for start in range(0, n, size):
        yield np.arange(start, min(start + size, n))
