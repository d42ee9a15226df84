"""Approximate search with FAISS, trained on the keys and tuned until it finds what exact search finds."""

from __future__ import annotations

import logging
import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.persistence.files import open_regular, read_regular
from fewshot.search.background import while_wanted
from fewshot.utils.threads import use_one_thread_after_fork

_log = logging.getLogger(__name__)
Rows = Callable[[NDArray[np.int64]], NDArray[np.float32]]
#: Fewest candidates that a classifier's sum over keys reads.
CANDIDATES = 256
#: Lists and FAISS's exact search propose 2k + SPARE candidates, because FAISS's distances are rounded; lists up to
#: some times as many, since they hold two numbers in 4 bits.
SPARE, MOST_PROPOSED = 16, 4
#: Number of keys for each list that k-means is trained on.
TRAINING_POINTS = 40
#: The vectors that stand for two numbers of a row in a list.
CODES = 16
#: Rows added at a time to lists, and to a graph, where a thousand take a second.
PART = {"flat": 65536, "ivf": 65536, "hnsw": 1024}
#: HNSW's links for each key, its search width while building, and its largest search width.
LINKS, WIDTH_BUILDING, WIDEST = 24, 80, 2048
#: A graph or lists may grow this many times beyond the number of keys for which they were tuned.
MOST_GROWN = 1.25
#: A search for one neighbour reads this share of its lists first, and the others unless it is surely found.
#: Of the tuning queries that lie near a key, this share must be sure, or the first look would cost more than it saves.
#: Lists of fewer keys are read in the time that a second search takes.
GLANCE, LEAST_SURE, GLANCED_FROM = 0.1, 0.5, 50_000
#: The effort reaches a little more than the recall, by this share of what may be missed: tuning queries are a sample.
RESERVE = 0.25
#: Numbers of neighbours for which the effort of a search is tuned; for more it grows in proportion.
TUNED_FOR = (1, 10, 100)

use_one_thread_after_fork()


@cache
def faiss_module() -> ModuleType:
    """Return FAISS, imported on first use."""
    import faiss

    return faiss


@contextmanager
def _threads(n_queries: int = 2) -> Iterator[None]:
    """Use as many threads as torch does, or one for a single query: more would only wait for each other."""
    # FAISS keeps the number for each calling thread, so threads may search at the same time.
    faiss = faiss_module()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads() if n_queries > 1 else 1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@dataclass(frozen=True)
class Choice:
    """The chosen index, and how good it is.

    Attributes
    ----------
    kind : {"exact", "flat", "ivf", "hnsw"}
        How candidates are found: by products with all keys (in torch, or in FAISS), in inverted lists, or in a graph.
    n_lists, effort : int
        Number of lists of ``ivf``, and how many of them a search for one neighbour reads; for ``hnsw`` the width of
        such a search.
    recall : float
        The share of nearest keys that are found, measured against exact answers to tuning queries; 1 for exact.
    seconds : float
        Time to build and tune.
    efforts : tuple of (int, int, int)
        Numbers of neighbours that are asked for, the effort that finds the required share of them, and how many
        candidates are compared exactly.
    n_keys : int
        Number of keys for which the effort was tuned.
    glance : int
        How many lists a search for one neighbour reads first; 0 if it reads all at once.
    sure : float
        The closeness (see `closeness`) from which what was found in these is the nearest key; see `hasten`.
    """

    kind: str
    n_lists: int = 0
    effort: int = 0
    recall: float = 1.0
    seconds: float = 0.0
    efforts: tuple[tuple[int, int, int], ...] = ()
    n_keys: int = 0
    glance: int = 0
    sure: float = 0.0


class Approximate:
    """A FAISS index over rows of float32, with the effort that reaches a recall.

    Parameters
    ----------
    index : faiss.Index
        The index.
    choice : Choice
        Its kind and effort.
    """

    def __init__(self, index: Any, choice: Choice) -> None:
        self.index, self.choice = index, choice
        self._file: mmap.mmap | None = None

    @classmethod
    def build(cls, kind: str, is_product: bool, n: int, d: int, rows: Rows) -> Approximate:
        """Build an index, which `tune` must make ready to search.

        Parameters
        ----------
        kind : {"flat", "ivf", "hnsw"}
            Structure.
        is_product : bool
            Whether larger inner products are nearer; else smaller distances are.
        n, d : int
            Number of rows and their length.
        rows : callable
            ``rows(places)`` returns the rows (k, d) at these positions.
        """
        n_lists = max(1, round(n**0.5)) if kind == "ivf" else 0
        index = empty_index(kind, is_product, d, n_lists)
        with _threads():
            if kind != "flat":
                sample = np.sort(np.random.default_rng(0).permutation(n)[: TRAINING_POINTS * (n_lists or 1000)])
                index.train(rows(np.resize(sample, max(n_lists and CODES, len(sample)))))
            for start in while_wanted(range(0, n, PART[kind])):
                index.add(rows(np.arange(start, min(start + PART[kind], n))))
        if kind == "hnsw":  # without the room that its arrays had to grow: a third of its memory
            faiss = faiss_module()
            index = faiss.deserialize_index(faiss.serialize_index(index))
        return cls(index, Choice(kind, n_lists, 1))

    def grown(self, rows: NDArray[np.float32]) -> Approximate | None:
        """Return a copy with more rows (k, d), as well tuned; None if there are too many."""
        if self.choice.kind in ("flat", "exact") or self.index.ntotal + len(rows) > MOST_GROWN * self.choice.n_keys:
            return None
        faiss = faiss_module()
        index = faiss.deserialize_index(faiss.serialize_index(self.index))
        with _threads():
            for start in while_wanted(range(0, len(rows), PART[self.choice.kind])):
                index.add(rows[start : start + PART[self.choice.kind]])
        return Approximate(index, self.choice)

    @classmethod
    def open(cls, path: Path, choice: Choice, check: Callable[[Any], None], mapped: bool) -> Approximate:
        """Open the file that `write` wrote.

        Parameters
        ----------
        path : path
            The file.
        choice : Choice
            Its kind and effort.
        check : callable
            Takes all bytes, and raises ValueError if FAISS must not read them.
        mapped : bool
            Whether the rows of a graph stay in the file, which is then mapped.
        """
        faiss = faiss_module()
        if choice.kind == "ivf" or not mapped:
            data = read_regular(path, sys.maxsize)
            check(data)
            return cls(faiss.deserialize_index(np.frombuffer(data, np.uint8)), choice)
        with open_regular(path) as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        check(whole)
        opened = cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), choice)
        opened._file = whole
        return opened

    def write(self, path: Path) -> None:
        """Write the index to a file.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        with path.open("wb") as target:
            if self._file is not None:  # an opened index would write the file name instead of its rows
                target.write(self._file)
                return
            faiss = faiss_module()
            try:  # through a Python file: FAISS's own writer misses an error if the disk is full at the last bytes
                faiss.write_index(self.index, faiss.PyCallbackIOWriter(target.write))
            except RuntimeError as error:
                raise OSError(f"{path} cannot be written: {error}") from error

    def propose(self, x: NDArray[np.float32], k: int, least: int = 0) -> NDArray[np.int64]:
        """Return candidates (q, c) for the `k` nearest rows to queries `x` (q, d), at least `least`; -1 is missing."""
        effort, wanted = self._plan(k)
        return self.search(x, min(max(wanted, least, k), self.index.ntotal), effort)[0]

    def propose_nearest(
        self, x: NDArray[np.float32], least: int, dead: NDArray[np.bool_] | None, close: NDArray[np.floating] | float
    ) -> NDArray[np.int64]:
        """Return candidates (q, c) for the nearest row that is not `dead`, as `propose`, but after a first look.

        It ends the search where something is surely the nearest, also a key elsewhere of closeness `close` (q,).
        """
        effort, wanted = self._plan(1)
        n = min(max(wanted, least), self.index.ntotal)
        ids, closeness = self.glance(x, n, dead)
        unsure = np.maximum(closeness, close) < self.choice.sure
        if unsure.any():
            ids[unsure] = self.search(x[unsure], n, effort)[0]
        return ids

    def glance(
        self, x: NDArray[np.float32], n: int, dead: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the positions (q, n) found in few lists, and the closeness (q,) of the best that is not `dead`."""
        ids, scores = self.search(x, n, max(1, self._first))
        closeness = self.closeness(scores, x[:, None])
        closeness[ids < 0] = -np.inf
        if dead is not None:
            closeness[dead[ids]] = -np.inf
        return ids, closeness.max(-1)

    def closeness(self, scores: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
        """Return how close rows of these `scores` (...) are to queries `x` (..., d), whatever the length of a query.

        The scores are products or squared distances.
        """
        if not self.is_product:
            return -scores
        length = np.sqrt(np.vecdot(x, x))
        return np.where(length > 0, scores / np.where(length > 0, length, 1), -np.inf)  # nothing is close to zero

    def took(self, seconds: float, n: int) -> None:
        """Note how long building and tuning took, for `n` keys."""
        self.choice = replace(self.choice, seconds=round(seconds, 3))
        found = self.choice.kind, self.choice.recall
        _log.info("built an index of %d keys in %.2f s: %s, recall %.3f", n, seconds, *found)

    @property
    def is_product(self) -> bool:
        """Whether larger inner products are nearer."""
        return bool(self.index.metric_type == faiss_module().METRIC_INNER_PRODUCT)

    def search(self, x: NDArray[np.float32], k: int, effort: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return positions (q, k) and scores of the nearest rows found for queries `x` (q, d), -1 for missing ones."""
        faiss = faiss_module()
        if self.choice.kind == "ivf":
            settings = faiss.SearchParametersIVF(nprobe=effort)
        elif self.choice.kind == "hnsw":
            settings = faiss.SearchParametersHNSW(efSearch=max(effort, k))
        else:
            settings = None
        # Importing faiss.contrib.torch_utils anywhere replaces `search` by one that takes no settings.
        search = getattr(self.index, "search_numpy", self.index.search)
        with _threads(len(x)):
            scores, found = search(x, k, params=settings)
        return found, scores

    def _plan(self, k: int) -> tuple[int, int]:
        """Return effort and number of candidates for `k` neighbours."""
        for known, effort, wanted in self.choice.efforts:
            if k <= known:
                return effort, wanted
        if not self.choice.efforts:
            return self.choice.effort, 2 * k + SPARE
        known, effort, wanted = self.choice.efforts[-1]
        scaled = -(-effort * k // known)
        return min(scaled, self.choice.n_lists or scaled), -(-wanted * k // known)

    def tune(self, measure: Callable[[int, int], dict[int, float]], recall: float) -> None:
        """Find the least effort that reaches a recall, for each number of neighbours, and the fewest candidates.

        Parameters
        ----------
        measure : callable
            ``measure(effort, c)`` returns the recall reached for each number of neighbours, in rising order, by the c
            best candidates.
        recall : float
            The recall to reach.
        """
        effort, most = (1, self.choice.n_lists) if self.choice.n_lists else (LINKS, WIDEST)
        target = recall + RESERVE * (1 - recall)
        plans: dict[int, tuple[int, int]] = {}
        reached, found = dict[int, float](), dict[int, float]()
        while len(plans) < max(len(found), 1):
            found = measure(effort, most_candidates(self.choice.kind, effort, TUNED_FOR[-1]))
            for k, share in found.items():
                if k not in plans and (share >= target or effort >= most):
                    plans[k], reached[k] = (effort, self._fewest(measure, effort, k, min(target, share))), share
            effort = min(most, max(effort + 1, round(1.4 * effort)))
        before = {k: [plan for j, plan in plans.items() if j <= k] for k in plans}
        efforts = tuple((k, max(e for e, _ in some), max(n for _, n in some)) for k, some in before.items())
        self.choice = replace(
            self.choice,
            effort=efforts[0][1],
            recall=round(min(reached.values()), 4),
            efforts=efforts,
            n_keys=self.index.ntotal,
        )

    def hasten(
        self, closeness: NDArray[np.floating], is_right: NDArray[np.bool_], is_near: NDArray[np.bool_], recall: float
    ) -> None:
        """Let a search for one neighbour end after a first look that finds something so close that it is the nearest.

        Of the tuning queries that find something as close, so few may be wrong that what `tune` keeps in reserve makes
        up for them.

        Parameters
        ----------
        closeness : ndarray of shape (q,)
            How close the best is that the first look has found, for each tuning query; see `glance`.
        is_right : bool ndarray of shape (q,)
            Whether it is the nearest key.
        is_near : bool ndarray of shape (q,)
            Whether the query lies near a key, or is drawn as the keys are.
        recall : float
            The recall to reach.
        """
        limits = []
        for kind in (is_near, ~is_near):
            wrong = np.sort(closeness[kind & ~is_right])[::-1]
            limits.append(wrong[int(RESERVE * (1 - recall) * kind.sum()) :].max(initial=-np.inf))
        sure = float(np.nextafter(max(limits), np.inf))
        if self._first and np.isfinite(sure) and (closeness[is_near] >= sure).mean() >= LEAST_SURE:
            self.choice = replace(self.choice, glance=self._first, sure=sure)

    @property
    def _first(self) -> int:
        """How many lists a first look reads; 0 if they are too few for one."""
        return self.choice.glance or round(GLANCE * self.choice.effort)

    def _fewest(self, measure: Callable[[int, int], dict[int, float]], effort: int, k: int, target: float) -> int:
        """Return the fewest candidates of a search that reach a recall: each takes a random access to memory."""
        most, n = most_candidates(self.choice.kind, effort, TUNED_FOR[-1]), 2 * k + SPARE
        while n < most and measure(effort, n)[k] < target:
            n = round(1.6 * n)
        return min(n, most)

    @contextmanager
    def without(self, gone: NDArray[np.bool_]) -> Iterator[None]:
        """Remove the links to some rows inside the block, as if they had never been added to a graph."""
        if self.choice.kind != "hnsw":
            yield
            return
        faiss, graph = faiss_module(), self.index.hnsw
        links = faiss.rev_swig_ptr(graph.neighbors.data(), graph.neighbors.size())
        starts = faiss.rev_swig_ptr(graph.offsets.data(), graph.offsets.size())
        places = np.flatnonzero((links >= 0) & gone[links])
        kept = links[places].copy()
        links[places] = np.searchsorted(starts, places, "right") - 1  # to itself
        try:
            yield
        finally:
            links[places] = kept


def most_candidates(kind: str, effort: int, k: int) -> int:
    """Return how many candidates of a search are worth being compared exactly: lists rank them nearly rightly."""
    return effort if kind == "hnsw" else MOST_PROPOSED * (2 * k + SPARE)


def empty_index(kind: str, is_product: bool, d: int, n_lists: int) -> Any:
    """Return a FAISS index of `kind` without rows.

    A list holds two numbers of a row in 4 bits, which FAISS compares many rows at a time (F. André, A.-M. Kermarrec,
    N. Le Scouarnec 2017, Accelerated Nearest Neighbor Search with Quick ADC, arXiv:1704.07355); a graph holds a number
    in 8 bits.
    """
    faiss = faiss_module()
    metric = faiss.METRIC_INNER_PRODUCT if is_product else faiss.METRIC_L2
    if kind == "flat":
        return faiss.IndexFlat(d, metric)
    if kind == "hnsw":
        index = faiss.IndexHNSWSQ(d, faiss.ScalarQuantizer.QT_8bit, LINKS, metric)
        index.hnsw.efConstruction = WIDTH_BUILDING
        return index
    pairs = d // 2 if d % 2 == 0 else d
    index = faiss.IndexIVFPQFastScan(faiss.IndexFlat(d, metric), d, n_lists, pairs, 4, metric)
    # What differs from the middle of the list is more precise, but with distances each list would need its own tables.
    index.by_residual = is_product
    index.cp.seed, index.cp.max_points_per_centroid = 0, TRAINING_POINTS
    for clustering in (index.cp, index.pq.cp):
        clustering.min_points_per_centroid = 1  # it warns on standard error otherwise
    return index
