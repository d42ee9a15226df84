"""Approximate search with FAISS, trained on the keys and tuned until it finds what exact search finds."""

from __future__ import annotations

import mmap
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.persistence.files import open_regular, read_regular
from fewshot.utils.threads import use_one_thread_after_fork

Rows = Callable[[NDArray[np.int64]], NDArray[np.float32]]
Trial = Callable[[], tuple[NDArray[np.float32], NDArray[np.int64]]]
#: Fewest candidates of a query; they are scored exactly, and no other keys are read.
CANDIDATES = 256
#: Number of keys for each list that k-means is trained on.
TRAINING_POINTS = 40
#: Rows added at a time to lists, and to a graph, where a thousand take a second.
PART = {"flat": 65536, "ivf": 65536, "hnsw": 1024}
#: HNSW's links for each key, its search width while building, and its largest search width.
LINKS, WIDTH_BUILDING, WIDEST = 32, 80, 4096

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
        Number of lists of ``ivf``, and how many of them a search reads; for ``hnsw`` the width of the search.
    recall : float
        The share of nearest keys that are found, measured against exact answers to tuning queries; 1 for exact.
    seconds : float
        Time to build and tune.
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
    index : faiss.Index
        The index.
    choice : Choice
        Its kind and effort.
    """

    def __init__(self, index: Any, choice: Choice) -> None:
        self.index, self.choice = index, choice
        self._file: mmap.mmap | None = None

    @classmethod
    def build(cls, kind: str, is_product: bool, n: int, d: int, rows: Rows, trial: Trial, recall: float) -> Approximate:
        """Build an index and tune it.

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
        trial : callable
            Returns queries (q, d) and the position (q,) of the nearest row of each, found by exact search.
        recall : float
            The recall to reach.
        """
        began = time.perf_counter()
        n_lists = max(1, round(n**0.5)) if kind == "ivf" else 0
        index = _empty(kind, is_product, d, n_lists)
        with _threads():
            if kind == "ivf":
                sample = np.random.default_rng(0).permutation(n)[: TRAINING_POINTS * n_lists]
                index.train(rows(np.sort(sample)))
            for start in range(0, n, PART[kind]):
                index.add(rows(np.arange(start, min(start + PART[kind], n))))
        built = cls(index, Choice(kind, n_lists, 1))
        effort, found = (1, 1.0) if kind == "flat" else built._tune(*trial(), recall)
        built.choice = Choice(kind, n_lists, effort, found, round(time.perf_counter() - began, 3))
        return built

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
            Whether the rows stay in the file, which is then mapped.
        """
        faiss = faiss_module()
        if not mapped:
            data = read_regular(path, sys.maxsize)
            check(data)
            return cls(faiss.deserialize_index(np.frombuffer(data, np.uint8)), choice)
        with open_regular(path) as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        check(whole)
        flag = faiss.IO_FLAG_MMAP if choice.kind == "ivf" else faiss.IO_FLAG_MMAP_IFC
        opened = cls(faiss.read_index(str(path), flag), choice)
        if choice.kind == "ivf":
            # Each search would start threads that read ahead, which a forked child lacks.
            faiss.downcast_InvertedLists(opened.index.invlists).prefetch_nthread = 0
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

    def search(self, x: NDArray[np.float32], k: int, effort: int = 0) -> NDArray[np.int64]:
        """Return the positions (q, k) of the nearest rows found for queries `x` (q, d), -1 for missing ones."""
        effort, faiss = effort or self.choice.effort, faiss_module()
        if self.choice.kind == "ivf":
            settings = faiss.SearchParametersIVF(nprobe=effort)
        elif self.choice.kind == "hnsw":
            settings = faiss.SearchParametersHNSW(efSearch=max(effort, k))
        else:
            settings = None
        # Importing faiss.contrib.torch_utils anywhere replaces `search` by one that takes no settings.
        search = getattr(self.index, "search_numpy", self.index.search)
        with _threads(len(x)):
            found: NDArray[np.int64] = search(x, k, params=settings)[1]
        return found

    def _tune(self, queries: NDArray[np.float32], nearest: NDArray[np.int64], recall: float) -> tuple[int, float]:
        """Return the least effort, doubling from the smallest, that reaches `recall`, and the recall it reaches."""
        n_lists = self.choice.n_lists
        effort, most = (1, n_lists) if n_lists else (LINKS // 2, WIDEST)
        while True:
            # Candidates are scored exactly, so the nearest row may be anywhere among them.
            candidates = self.search(queries, min(CANDIDATES, self.index.ntotal), effort)
            found = float((candidates == nearest[:, None]).any(1).mean())
            if found >= recall or effort >= most:
                return effort, round(found, 4)
            effort = min(2 * effort, most)


def _empty(kind: str, is_product: bool, d: int, n_lists: int) -> Any:
    faiss = faiss_module()
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
