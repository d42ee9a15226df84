"""Check a file of FAISS before FAISS reads it: its reader trusts every length and row number in the file."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.search.approximate import CODES, LINKS, empty_index, faiss_module

_DUMMY = 1 << 20


class _Reader:
    """Reads one part of a buffer after another."""

    def __init__(self, data: Any) -> None:
        self.data, self.at = memoryview(data), 0

    def expect(self, layout: str, *values: Any) -> None:
        if self.take(layout) != values:
            raise ValueError("it is not laid out as FAISS writes such an index")

    def take(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return found

    def array(self, dtype: str, n: int) -> NDArray[Any]:
        found = np.frombuffer(self.data, f"<{dtype}", n, self.at)
        self.at += found.nbytes
        return found

    def header(self, name: bytes, d: int, n: int, metric: int) -> None:
        self.expect("4siqqqBi", name, d, n, _DUMMY, _DUMMY, 1, metric)

    def flat(self, d: int, n: int, is_product: bool) -> None:
        self.header(b"IxFI" if is_product else b"IxF2", d, n, int(not is_product))
        self.expect("Q", n * d)
        self.at += 4 * n * d

    def code(self, kind: int, d: int, n_bytes: int) -> None:
        """Read how `d` numbers are held, in `n_bytes` bytes."""
        self.expect("iifQQ", kind, faiss_module().ScalarQuantizer.RS_minmax, 0.0, d, n_bytes)


def check_faiss_file(data: Any, kind: str, is_product: bool, n: int, d: int, n_lists: int) -> None:
    """Raise unless the bytes are an index of `kind` over `n` rows of `d` numbers, with every row number in range.

    Parameters
    ----------
    data : buffer
        The file.
    kind : {"ivf", "hnsw"}
        Structure.
    is_product : bool
        Whether larger inner products are nearer.
    n, d, n_lists : int
        Number of rows, their length, and the number of lists of ``ivf``.

    Raises
    ------
    ValueError
        If they are not, or another version of FAISS has another layout.
    """
    reader = _Reader(data)
    try:
        (_check_ivf if kind == "ivf" else _check_graph)(reader, is_product, n, d, n_lists)
    except struct.error as error:
        raise ValueError("it ends too early") from error
    if reader.at != len(reader.data):
        raise ValueError("its length differs from the sum of its parts")


def _check_ivf(reader: _Reader, is_product: bool, n: int, d: int, n_lists: int) -> None:
    empty = empty_index("ivf", is_product, d, n_lists)
    reader.header(b"IwPf", d, n, int(not is_product))
    reader.expect("QQ", n_lists, 1)
    reader.flat(d, n_lists, is_product)
    reader.expect("BQ", 0, 0)  # no map from rows to lists
    reader.expect("BQiQiQ", empty.by_residual, empty.code_size, empty.bbs, empty.M2, 0, 0)
    reader.expect("QQQQ", d, empty.pq.M, empty.pq.nbits, CODES * d)
    if not np.isfinite(reader.array("f4", CODES * d)).all():
        raise ValueError("what its codes stand for is not finite")
    block = empty.bbs * empty.M2 // 2
    reader.expect("4sQQQQ", b"ilbl", n_lists, 2**64 - 1, empty.bbs, block)
    n_found = 0
    for _ in range(n_lists):
        (size,) = reader.take("Q")
        if size > n - n_found:
            raise ValueError("its lists do not hold each row once")
        n_found += size
        ids = reader.array("i8", size)
        if size and not 0 <= int(ids.min()) <= int(ids.max()) < n:
            raise ValueError("its lists name rows that do not exist")
        reader.expect("Q", n_bytes := -(-size // empty.bbs) * block)
        reader.at += n_bytes
    if n_found != n:
        raise ValueError("its lists do not hold each row once")


def _check_graph(reader: _Reader, is_product: bool, n: int, d: int, n_lists: int) -> None:
    faiss = faiss_module()
    reader.header(b"IHNs", d, n, int(not is_product))
    empty = faiss.IndexHNSWFlat(d, LINKS)
    slots = faiss.vector_to_array(empty.hnsw.cum_nneighbor_per_level)
    reader.expect("Q", len(slots) - 1)
    reader.array("f8", len(slots) - 1)
    reader.expect(f"Q{len(slots)}i", len(slots), *slots.tolist())
    levels = _checked_levels(reader, slots, n)
    entry, top = reader.take("ii")
    if not 0 <= entry < n or top != levels[entry] - 1:
        raise ValueError("its entry point is not a row of the highest level")
    _, width, _ = reader.take("iii")
    if width < 1:
        raise ValueError("its search width is below 1")
    reader.header(b"IxSQ", d, n, int(not is_product))
    reader.code(faiss.ScalarQuantizer.QT_8bit, d, d)
    reader.expect("Q", 2 * d)
    if not np.isfinite(reader.array("f4", 2 * d)).all():
        raise ValueError("the ranges of its numbers are not finite")
    reader.expect("Q", n * d)
    reader.at += n * d


def _checked_levels(reader: _Reader, slots: NDArray[Any], n: int) -> NDArray[Any]:
    """Return the number of levels of each row of a graph, after checking its links."""
    reader.expect("Q", n)
    levels = reader.array("i4", n)
    if not 1 <= int(levels.min()) <= int(levels.max()) < len(slots):
        raise ValueError("its rows are on levels that do not exist")
    reader.expect("Q", n + 1)
    starts = reader.array("u8", n + 1)
    if starts[0] or (np.diff(starts.astype(np.int64)) != slots[levels]).any():
        raise ValueError("the links of its rows do not fit their levels")
    reader.expect("Q", int(starts[-1]))
    links = reader.array("i4", int(starts[-1]))
    if len(links) and not -1 <= int(links.min()) <= int(links.max()) < n:
        raise ValueError("it links rows that do not exist")
    high = np.flatnonzero(levels > 1)
    for level in range(1, int(levels.max())):  # from a linked row, a search follows the links of the same level
        rows = high[levels[high] > level]
        places = starts[rows].astype(np.int64)[:, None] + np.arange(slots[level], slots[level + 1])
        linked = links[places]
        if (levels[linked[linked >= 0]] <= level).any():
            raise ValueError("it links rows on levels that they are not on")
    return levels
