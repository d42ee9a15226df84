"""Similarities between queries and keys, where higher is always closer, and exact search for the nearest keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.errors import UnknownNameError
from fewshot.search.packing import precision_of, unpacked, width
from fewshot.search.single import LARGEST_SQUARE, LEAST_SQUARE, Array, Marks, SingleSearch, similarities
from fewshot.utils.values import NEEDS_FLOAT64, TINY

Metric = Literal["sqeuclidean", "cosine", "dot"]
METRICS: tuple[Metric, ...] = get_args(Metric)
#: numpy multiplies batches of matrices faster than torch up to this many multiplications for each matrix.
SMALL_PRODUCT = 2**18
#: Of these, it multiplies few long keys one by one in down to half the time: at most as many keys, at least as long.
FEW_KEYS, LONG_ROWS = 5, 256
#: Keys are not centred if their mean is at most this many times as long as the distance of any key from it: the
#: digits lost are three bits at most.
NEAR_ORIGIN = 2.0
#: Binary digits of a grid on which products are exact, and the longest row (below sqrt(2)) for which they are.
GRID_DIGITS, GRID_LENGTH = 26, 1.41
#: Up to this many of the largest values, repeated `argmax` is faster than ``topk`` on a CPU.
FEW_LARGEST = 4
#: Number of keys prepared at a time.
PART = 16384
#: Number of keys scored at a time for many queries, so that the scores stay in the processor's cache.
BLOCK = 4096
#: Score at least this many pairs at a time: one query sees all keys at once.
FEWEST_SCORES = 2**20
#: Bytes that the similarities of one chunk of queries may take.
CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class PreparedKeys:
    """Keys prepared for one metric, so that many queries share the work.

    Attributes
    ----------
    metric : str
        One of `METRICS`.
    keys : Tensor of shape (..., m, d)
        For ``sqeuclidean`` the keys minus `offset`, for ``cosine`` unit vectors, for ``dot`` the keys.
    offset : Tensor of shape (..., 1, d) or None
        Subtracted from keys and queries for ``sqeuclidean``; None for nothing. Distances do not depend on it, but the
        expansion |x|^2 + |y|^2 - 2xy loses all digits if the points share a large offset.
    sqnorm : Tensor of shape (..., 1, m) or None
        Squared norms of the shifted keys, for ``sqeuclidean``.
    steady : bool
        Whether keys and queries are rounded to a grid on which products are exact; see `to_grid`.
    """

    metric: str
    keys: Tensor
    offset: Tensor | None = None
    sqnorm: Tensor | None = None
    steady: bool = False
    inverse_norm: Tensor | None = None

    def steadied(self) -> PreparedKeys:
        """Return float64 keys whose similarities to a query are the same, to the last bit, in any batch of queries."""
        keys = to_grid(self.keys)
        sqnorm = None if self.sqnorm is None else sum_of_squares(keys).unsqueeze(-2)
        return PreparedKeys(self.metric, keys, self.offset, sqnorm, steady=True)

    def part(self, start: int, stop: int) -> PreparedKeys:
        """Return a slice of unbatched keys."""
        sqnorm = None if self.sqnorm is None else self.sqnorm[:, start:stop]
        factor = None if self.inverse_norm is None else self.inverse_norm[:, start:stop]
        keys = unpacked(self.keys[start:stop])
        return PreparedKeys(self.metric, keys, self.offset, sqnorm, self.steady, factor)

    def parts(self, n_queries: int, k: int) -> Iterator[PreparedKeys]:
        """Yield slices of unbatched keys that are searched at once for the `k` nearest."""
        size = max(BLOCK, 4 * k, FEWEST_SCORES // max(n_queries, 1))
        yield from (self.part(start, start + size) for start in range(0, len(self.keys), size))

    def for_one(self) -> SingleSearch:
        """Return unbatched keys for searches with one query in numpy."""
        rows = (x if x is None else x[0].numpy() for x in (self.sqnorm, self.inverse_norm, self.offset))
        return SingleSearch(self.keys.numpy(), self.metric == "cosine", *rows)

    def similarity(self, queries: Tensor) -> Tensor:
        """Return the similarities (..., q, m) of `queries` (..., q, d)."""
        prepared = self.prepare_queries(queries)
        return self.finish(prepared, self.rank(prepared))

    def prepare_queries(self, queries: Tensor) -> Tensor:
        """Shift and cast `queries` (..., q, d) as the keys are.

        For ``cosine`` they keep their length unless its square would lose digits: `finish` divides by it.
        """
        prepared = self._shifted(queries)
        return to_grid(prepared) if self.steady else prepared

    def rank(self, prepared: Tensor) -> Tensor:
        """Return scores (..., q, m) of prepared queries that rank the keys of each query as similarity does.

        A score lacks only a term or factor that all keys of a query share, which `finish` supplies.
        """
        # Mixed precision would round the product but not the norms that are subtracted from it.
        with torch.autocast(prepared.device.type, enabled=False):
            if self.sqnorm is None:
                products = inner_products(prepared, self.keys)
                return products if self.inverse_norm is None else products.mul_(self.inverse_norm)
            if self.steady or prepared.dim() > 2 or self.keys.dim() > 2 or len(prepared) == 1:
                return inner_products(prepared, self.keys).mul_(2).sub_(self.sqnorm)
            # Saves two passes over the result; but a sum that begins with the norms is not exact on the grid.
            return torch.addmm(self.sqnorm, prepared, self.keys.T, beta=-1, alpha=2)

    def finish(self, prepared: Tensor, ranks: Tensor) -> Tensor:
        """Return the similarities (..., q, k) for the `rank` scores of some keys, which are overwritten."""
        if self.metric == "cosine":
            return ranks * _inverse_norm(prepared).unsqueeze(-1)
        if self.sqnorm is None:
            return ranks
        # Rounding can leave a tiny positive value for equal query and key.
        return ranks.sub_(sum_of_squares(prepared).unsqueeze(-1)).clamp_(max=0)

    def _shifted(self, queries: Tensor) -> Tensor:
        if self.offset is None:
            unfit = self.metric == "cosine" and not _squares_fit(queries)
            return (normalize(queries) if unfit else queries).to(self.keys.dtype)
        if queries.dtype == self.keys.dtype == torch.float32 and self.offset.dtype == torch.float64:
            # Two steps, each rounded once: as exact as copies in float64, in a quarter of the time.
            high = self.offset.float()
            return (queries - high).sub_((self.offset - high).float())
        return (queries.to(torch.promote_types(queries.dtype, self.offset.dtype)) - self.offset).to(self.keys.dtype)


def prepare_keys(keys: Tensor, metric: str, offset: Tensor | None = None) -> PreparedKeys:
    """Prepare `keys` (..., m, d) for comparison under `metric`.

    Parameters
    ----------
    keys : Tensor of shape (..., m, d)
        The keys.
    metric : {"sqeuclidean", "cosine", "dot"}
        ``sqeuclidean`` is *minus* the squared Euclidean distance.
    offset : Tensor of shape (..., 1, d), optional
        Subtracted for ``sqeuclidean``; by default the mean key, or nothing if that would save few digits.

    Raises
    ------
    UnknownNameError
        If the metric is unknown.

    Examples
    --------
    >>> keys = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    >>> prepare_keys(keys, "sqeuclidean").similarity(torch.tensor([[0.0, 0.0]]))
    tensor([[  0., -25.]])
    """
    if keys.dtype in (torch.float16, torch.bfloat16) or not keys.is_floating_point():
        keys = keys.float()  # before any square: half precision ends at 65504
    if metric == "dot":
        return PreparedKeys(metric, keys)
    if metric == "cosine":
        return PreparedKeys(metric, normalize(keys))
    if metric != "sqeuclidean":
        raise UnknownNameError("metric", metric, METRICS)
    if offset is None:
        offset = keys.detach().sum(-2, keepdim=True) / max(keys.shape[-2], 1)
        if _numpy_may_read(keys) and keys.shape[-2]:
            nearest = sum_of_squares(keys - offset).amin(-1, keepdim=True)
            near = sum_of_squares(offset) <= NEAR_ORIGIN**2 * nearest
            if near.all():  # saves a copy of all queries: a third of the time of an episode of 640 dimensions
                return PreparedKeys(metric, keys, None, sum_of_squares(keys).unsqueeze(-2))
            # An episode has the same answers in a batch as alone.
            offset = torch.where(near.unsqueeze(-1), 0, offset)
    shifted = keys - offset
    return PreparedKeys(metric, shifted, offset, sum_of_squares(shifted).unsqueeze(-2))


def pairwise_similarity(queries: Tensor, keys: Tensor, metric: Metric = "sqeuclidean") -> Tensor:
    """Return the similarity of every query to every key; higher is closer.

    No array of shape (q, m, d) is built. Gradients are finite everywhere, also on equal rows and on zero rows,
    whose cosine with anything is 0.

    Parameters
    ----------
    queries : Tensor of shape (..., q, d)
        Queries.
    keys : Tensor of shape (..., m, d)
        Keys; leading dimensions broadcast against those of `queries`.
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Minus the squared Euclidean distance, the cosine, or the inner product.

    Returns
    -------
    Tensor of shape (..., q, m)
        Similarities.

    Raises
    ------
    ValueError
        If the embeddings of queries and keys differ in length, or the metric is unknown.

    Examples
    --------
    >>> import torch
    >>> from fewshot import pairwise_similarity
    >>> pairwise_similarity(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    tensor([[ 0., -5.]])
    """
    if queries.shape[-1] != keys.shape[-1]:
        raise ValueError(
            f"queries have {queries.shape[-1]} dimensions and keys {keys.shape[-1]}; embed both with the same backbone"
        )
    return prepare_keys(keys, metric).similarity(queries)


# ---- parts of the formulas ------------------------------------------------------------------------------------------


def _numpy_may_read(*tensors: Tensor) -> bool:
    """Whether tensors are on the CPU and no gradients are recorded, so that numpy and Python may read them."""
    return not torch.is_grad_enabled() and all(x.device.type == "cpu" for x in tensors)


def inner_products(rows: Tensor, others: Tensor) -> Tensor:
    """Return the inner products (..., q, m) of `rows` (..., q, d) with `others` (..., m, d).

    On a CPU, without gradients, numpy multiplies single rows and small matrices of many episodes. Torch takes up to
    three times as long, and more if its threads wait for busy cores.
    """
    if rows.dim() < 2 or rows.dtype != others.dtype or not _numpy_may_read(rows, others):
        return rows @ others.mT
    q, (m, d) = rows.shape[-2], others.shape[-2:]
    rows, others = rows.detach(), others.detach()
    is_small = rows.dim() > 2 and q * m * d <= SMALL_PRODUCT
    with np.errstate(all="ignore"):  # overflow gives infinity, as in torch
        if q == 1 or (is_small and m <= FEW_KEYS and d >= LONG_ROWS):  # equal keys get equal products
            return torch.from_numpy(np.vecdot(rows.unsqueeze(-2).numpy(), others.unsqueeze(-3).numpy()))
        return torch.from_numpy(np.matmul(rows.numpy(), others.mT.numpy())) if is_small else rows @ others.mT


def to_grid(x: Tensor) -> Tensor:
    """Round float64 rows (..., d) to 26 binary digits below their length, so that products of two of them are exact.

    The terms of an inner product are then multiples of 2^-52 of at most twice the product of the lengths, and so are
    their sums in any order: no processor, library, number of threads or size of a batch rounds them differently. The
    grid is finer than the rounding of float32.
    """
    length = sum_of_squares(x).sqrt().unsqueeze(-1)
    # Adding and subtracting `shift` removes the digits below the grid.
    exponent = torch.frexp(length / GRID_LENGTH).exponent
    shift = torch.ldexp(torch.full_like(length, 1.5), exponent + (52 - GRID_DIGITS))
    return (x + shift) - shift


def sum_of_squares(x: Tensor) -> Tensor:
    """Return the squared lengths (...) of rows (..., d)."""
    if not _numpy_may_read(x):
        return x.square().sum(-1)
    rows = x.detach().numpy()
    with np.errstate(all="ignore"):  # overflow gives infinity; no copy of squares: a tenth of the time for 1e5 rows
        return torch.from_numpy(np.asarray(np.vecdot(rows, rows)))


def _squares_fit(x: Tensor) -> bool:
    """Whether the squares of all rows (..., d) keep their digits; False also if they may not be read."""
    if not x.numel() or not _numpy_may_read(x) or x.dtype in (torch.float16, torch.bfloat16):
        return False
    low, high = sum_of_squares(x).aminmax()
    return bool(low > LEAST_SQUARE and high < LARGEST_SQUARE)


def _inverse_norm(x: Tensor) -> Tensor:
    """Return the factors (...) that scale rows (..., d) to unit length, 1 for a zero row."""
    squares = sum_of_squares(x)
    return torch.where(squares > 0, squares, 1).rsqrt()


def normalize(x: Tensor) -> Tensor:
    """Scale rows (..., d) to unit length; a zero row stays zero, with zero gradient.

    Rows whose squares could over- or underflow are divided by their largest entry first.
    """
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if _squares_fit(x):  # two copies fewer: a third of the time
        return x * _inverse_norm(x).unsqueeze(-1)
    largest = x.detach().abs().amax(-1, keepdim=True)
    scaled = x / torch.where(largest > 0, largest, 1)
    norm = scaled.square().sum(-1, keepdim=True)
    # The argument is guarded, not the result: the gradient of rsqrt(0) would be 0 * inf.
    return torch.where(norm > 0, scaled * torch.where(norm > 0, norm, 1).rsqrt(), 0)


# ---- the best of many -----------------------------------------------------------------------------------------------


def argmax(x: Tensor) -> NDArray[np.int64]:
    """Return the position (...) of the largest value of each row of `x` (..., m) on the CPU; ties go to the first.

    Torch's own takes ten times as long there.
    """
    return x.detach().numpy().argmax(-1)


def top(ids: Tensor | None, similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return ids and values of the k best of each row of `similarity` (q, m); ties are ordered by id.

    By default the ids are column numbers.
    """
    if ids is not None:
        # Sorted by id first, so that the stable sort below keeps this order among ties.
        ids, order = ids.sort(-1)
        similarity = similarity.gather(-1, order)
    columns = torch.from_numpy(argmax(similarity))[..., None] if k == 1 else _stable_topk(similarity, k)
    return (columns if ids is None else ids.gather(-1, columns)), similarity.gather(-1, columns)


def largest(x: Tensor, k: int) -> Tensor:
    """Return the positions (..., k) of the k largest values of each row of `x` (..., m), largest first.

    On a CPU `x` is overwritten. At least k values of each row must be finite.
    """
    if k > FEW_LARGEST or x.device.type != "cpu":
        return x.topk(k, -1).indices
    found = torch.empty((*x.shape[:-1], k), dtype=torch.long, device="cpu")
    for i in range(k):  # takes a third of the time of topk for 3 of 75
        found[..., i] = torch.from_numpy(argmax(x))
        x.scatter_(-1, found[..., i : i + 1], -torch.inf)
    return found


def _stable_topk(similarity: Tensor, k: int) -> Tensor:
    values, columns = similarity.topk(k, -1)
    # topk picks any of several equal values: rows with more of them than fit are sorted in full.
    tied = (similarity >= values[:, -1:]).sum(-1) > k
    if tied.any():
        columns[tied] = similarity[tied].argsort(dim=-1, descending=True, stable=True)[:, :k]
    columns = columns.sort(-1).values
    order = similarity.gather(-1, columns).argsort(dim=-1, descending=True, stable=True)
    return columns.gather(-1, order)


# ---- searching many keys --------------------------------------------------------------------------------------------


class KeySnapshot:
    """An immutable set of keys that is searched exactly; any number of threads may read it.

    Parameters
    ----------
    keys : Tensor of shape (m, d)
        Keys in float32 or float64, or as `packed` returns them.
    metric : str
        Similarity.
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="exact"
        What was asked for; see `take_snapshot`.
    recall : float, default=0.99
        The share of nearest keys that ``ivf`` and ``hnsw`` must find.
    steady : bool, default=False
        Whether similarities of float32 queries must be the same, to the last bit, in any batch. Exact search then takes
        up to twice as long.
    """

    def __init__(
        self, keys: Tensor, metric: str, index: str = "exact", recall: float = 0.99, *, steady: bool = False
    ) -> None:
        self.keys, self.metric, self.index, self.recall, self.steady = keys, metric, index, recall, steady

    @cached_property
    def offset(self) -> Tensor | None:
        """The mean key (1, d) in float64, subtracted from both sides for ``sqeuclidean``."""
        if self.metric != "sqeuclidean":
            return None
        if len(self.keys) > PART:  # in a quarter of the time of mean
            sums = [unpacked(part).double().sum(0, keepdim=True) for part in self.keys.split(PART)]
            mean = torch.cat(sums).sum(0, keepdim=True) / len(self.keys)
        else:
            keys = unpacked(self.keys)
            mean = keys.mean(0, keepdim=True, dtype=torch.float64) if len(keys) else keys
        # Rounded to the precision of the keys, so that subtracting it from float32 queries is exact in one step.
        return mean.to(self.rows(slice(0)).dtype).double()

    def rows(self, places: Any) -> Tensor:
        """Return some keys (..., d) in float32 or float64, whatever they are kept in."""
        return unpacked(self.keys[places])

    def prepare(self, keys: Tensor) -> PreparedKeys:
        """Prepare some keys (..., d) in the frame of all, in float64."""
        return prepare_keys(unpacked(keys).double(), self.metric, self.offset)

    def _prepare_all(self, dtype: torch.dtype) -> PreparedKeys:
        """Prepare all keys, a part at a time."""
        keys = self.keys.new_empty((len(self.keys), width(self.keys)), dtype=dtype)
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
        return (self._plain if self.keys.dtype == torch.float32 else None) or self._prepare_all(torch.float32)

    @cached_property
    def _plain(self) -> PreparedKeys | None:
        """All keys as they are, prepared for float32 queries without a copy; None if float32 would lose digits."""
        keys, sqnorm, factor = self.keys, None, None
        if keys.dtype == torch.float64 or self._scale != 1 or len(keys) < 2:
            return None
        if self.metric != "dot":
            squares = torch.cat([sum_of_squares(unpacked(part)) for part in keys.split(PART)])
            low, high = squares.aminmax()
            if self.metric == "cosine" and not (low > LEAST_SQUARE and high < LARGEST_SQUARE):
                return None
            near = NEAR_ORIGIN**2 / (1 + NEAR_ORIGIN**2)
            if self.offset is not None and sum_of_squares(self.offset) > squares.mean() * near:
                return None
            sqnorm = squares[None] if self.metric == "sqeuclidean" else None
            factor = squares.rsqrt()[None] if self.metric == "cosine" else None
        return PreparedKeys(self.metric, keys, None, sqnorm, inverse_norm=factor)

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

    @cached_property
    def _scale(self) -> float:
        """Divisor of all keys by which their squares fit float32; a common factor does not change the ranking."""
        parts = self.keys.split(PART)
        largest = self._largest(parts[0])
        # A bound that takes one pass, without copies.
        if largest >= TINY and len(parts) > 1 and self.keys.dtype == torch.float32:
            low, high = self.keys.aminmax()
            if 2 * max(float(high), -float(low)) <= NEEDS_FLOAT64:
                return 1.0
        largest = max([largest, *map(self._largest, parts[1:])])
        return largest if 0 < largest < TINY else max(1.0, largest / NEEDS_FLOAT64)

    def _largest(self, part: Tensor) -> float:
        return float(self.prepare(part).keys.abs().max()) if part.numel() else 0.0

    def retrieve(self, queries: Tensor, k: int) -> tuple[Tensor | None, Tensor]:
        """Score `queries` (q, d), finite and of the right length, against candidates.

        Returns
        -------
        ids : Tensor of shape (q, c) or None
            Candidate keys, at least `k` of them if there are as many, -1 for a missing one; None means all keys.
        similarities : Tensor of shape (q, m) or (q, c)
            Exact similarities, in float64 if float32 cannot tell them apart, else in the precision of the queries.
        """
        prepared = self._prepared_for(queries)
        return None, prepared.similarity(queries.to(prepared.keys.dtype)).to(self._answer_dtype(queries))

    def _answer_dtype(self, queries: Tensor) -> torch.dtype:
        return torch.float64 if self.needs_double else queries.dtype

    def score(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Return float64 similarities (q, c) of `queries` (q, d) to `candidates` (q, c, d) of their own."""
        if self._scale == 1 and _numpy_may_read(queries, candidates):
            x, rows = queries.double().numpy(), unpacked(candidates).double().numpy()
            return torch.from_numpy(similarities(x, rows, self.metric))
        return self.prepare(candidates).similarity(queries.double().unsqueeze(-2)).squeeze(-2)

    def search_one(
        self, x: Array, k: int, dead: Marks = None, sought: int = 0, known: float = -np.inf
    ) -> tuple[NDArray[np.int64], Array] | None:
        """Return ids and similarities (k,) for one query (d,), as `search`; None if only that can answer."""
        if self.steady or not len(self.keys) or self.needs_double or precision_of(self.keys) != "full":
            return None
        return (self._one_single if x.dtype == np.float32 else self._one_double).search(x, k, dead)

    @cached_property
    def _one_single(self) -> SingleSearch:
        return self._single.for_one()

    @cached_property
    def _one_double(self) -> SingleSearch:
        return self._double.for_one()

    def search(
        self, queries: Tensor, k: int, dead: Tensor | None = None, sought: int = 0, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ids and similarities (q, k) of the nearest keys that are not `dead` (m,), nearest first.

        An approximate index finds the first `sought` of them with its recall, by default all. It may miss those of a
        query for which a key elsewhere, of similarity `known` (q,), is surely nearer. Ties go to the first key.
        """
        return self.exact_top(queries, k, dead)

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
        yield from self._prepared_for(queries).parts(len(queries), k)

    def chunk(self) -> int:
        """Return how many queries to score at a time, so that the work fits `CHUNK_BYTES`."""
        return max(1, CHUNK_BYTES // (8 * max(sum(self.keys.shape), 1)))

    def search_chunk(self, k: int) -> int:
        """Return how many queries to search for at a time."""
        m, d = self.keys.shape
        return max(1, CHUNK_BYTES // (8 * (min(m, max(BLOCK, 4 * k)) + d + 1)))


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


def check_k(k: Any, n: int, what: str = "keys") -> None:
    """Raise unless k is an integer from 1 to n, the number of `what`."""
    if not isinstance(k, (int, np.integer)) or not 1 <= k <= n:
        raise ValueError(f"k is {k!r}; expected an integer from 1 to {n}, the number of {what}")
