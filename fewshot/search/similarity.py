"""Similarities between queries and keys, where higher is always closer, and the best of many similarities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.errors import UnknownNameError

METRICS = ("sqeuclidean", "cosine", "dot")
#: A sum of squares within this range has kept its digits.
TINY, HUGE = 1e-20, 1e20
#: numpy multiplies batches of matrices faster than torch up to this many multiplications for each matrix.
SMALL_PRODUCT = 2**18
#: Keys are not centred if their mean is at most this many times as long as the distance of any key from it: the
#: digits lost are three bits at most.
NEAR_ORIGIN = 2.0
#: Binary digits of a grid on which products are exact, and the longest row (below sqrt(2)) for which they are.
GRID_DIGITS, GRID_LENGTH = 26, 1.41
#: Up to this many of the largest values, repeated `argmax` is faster than ``topk`` on a CPU.
FEW_LARGEST = 4


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

    def steadied(self) -> PreparedKeys:
        """Return float64 keys whose similarities to a query are the same, to the last bit, in any batch of queries."""
        keys = to_grid(self.keys)
        sqnorm = None if self.sqnorm is None else sum_of_squares(keys).unsqueeze(-2)
        return PreparedKeys(self.metric, keys, self.offset, sqnorm, steady=True)

    def part(self, start: int, stop: int) -> PreparedKeys:
        """Return a slice of unbatched keys."""
        sqnorm = None if self.sqnorm is None else self.sqnorm[:, start:stop]
        return PreparedKeys(self.metric, self.keys[start:stop], self.offset, sqnorm, self.steady)

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
                return inner_products(prepared, self.keys)
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


def pairwise_similarity(queries: Tensor, keys: Tensor, metric: str = "sqeuclidean") -> Tensor:
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
    with np.errstate(all="ignore"):  # overflow gives infinity, as in torch
        if q == 1:  # equal keys get equal products here, and not from a matrix product
            return torch.from_numpy(np.vecdot(others.numpy(), rows.numpy())).unsqueeze(-2)
        if rows.dim() > 2 and q * m * d <= SMALL_PRODUCT:
            return torch.from_numpy(np.matmul(rows.numpy(), others.mT.numpy()))
    return rows @ others.mT


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
    return bool(low > TINY and high < HUGE)


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
