"""Similarities between queries and keys: one meaning everywhere, higher is closer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewshot.errors import UnknownNameError

METRICS = ("sqeuclidean", "cosine", "dot")
#: Between these a sum of squares has kept its digits.
TINY, HUGE = 1e-20, 1e20
#: Multiplications up to which numpy's product of two matrices is quicker than torch's, and stays in one thread.
FEW = 2**18
#: Where the mean key is at most so many times as long as each key is far from it, the origin costs three bits at most.
NEAR = 2.0
#: Binary digits of a grid on which products are exact, and the length of a row, below the root of 2, that they allow.
GRID_DIGITS, GRID_LENGTH = 26, 1.41


@dataclass(frozen=True, eq=False)
class PreparedKeys:
    """Keys made ready for one metric, so that many queries share the work.

    Attributes
    ----------
    metric : str
        One of `METRICS`.
    keys : Tensor of shape (..., m, d)
        For ``sqeuclidean`` the keys minus `offset`, for ``cosine`` unit vectors, for ``dot`` the keys.
    offset : Tensor of shape (..., 1, d) or None
        What is subtracted from both sides for ``sqeuclidean``. The expansion |x|^2 + |y|^2 - 2xy loses
        all digits when the points share a large offset; distances do not depend on it. None for nothing.
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
        """Return float64 keys whose similarities are the same to the last bit for whatever batch a query comes in."""
        keys = to_grid(self.keys)
        sqnorm = None if self.sqnorm is None else sum_of_squares(keys).unsqueeze(-2)
        return PreparedKeys(self.metric, keys, self.offset, sqnorm, steady=True)

    def prepare_queries(self, queries: Tensor) -> Tensor:
        """Bring `queries` (..., q, d) into the frame and precision of the keys.

        For ``cosine`` they keep their length where its square keeps its digits: `compare` and `finish` divide by it.
        """
        prepared = self._shifted(queries)
        return to_grid(prepared) if self.steady else prepared

    def _shifted(self, queries: Tensor) -> Tensor:
        if self.offset is None:
            unfit = self.metric == "cosine" and not _squares_fit(queries)
            return (normalize(queries) if unfit else queries).to(self.keys.dtype)
        if queries.dtype == self.keys.dtype == torch.float32 and self.offset.dtype == torch.float64:
            # In two steps, each rounded once: as good as copies in double precision to the last digit, and quicker.
            high = self.offset.float()
            shifted, low = queries - high, (self.offset - high).float()
            if not low.any():
                return shifted
            return shifted - low if shifted.requires_grad else shifted.sub_(low)
        return (queries.to(torch.promote_types(queries.dtype, self.offset.dtype)) - self.offset).to(self.keys.dtype)

    def compare(self, prepared: Tensor) -> Tensor:
        """Return the similarities (..., q, m) of queries that `prepare_queries` has made ready."""
        # Mixed precision would round the product but not the norms it is set against.
        with torch.autocast(prepared.device.type, enabled=False):
            product = inner_products(prepared, self.keys)
        if self.metric == "cosine":
            return product * _inverse_norm(prepared).unsqueeze(-1)
        if self.sqnorm is None:
            return product
        sqnorm = sum_of_squares(prepared).unsqueeze(-1)
        # Rounding can leave a tiny positive value where query and key are equal.
        if product.requires_grad:
            return (2 * product - sqnorm - self.sqnorm).clamp(max=0)
        return product.mul_(2).sub_(sqnorm).sub_(self.sqnorm).clamp_(max=0)  # the same without four copies

    def rank(self, prepared: Tensor) -> Tensor:
        """Return for prepared queries (q, d) what is the larger the nearer a key is, (q, m), in a single product.

        It is the similarity, but for a term or a factor that all keys of a query share; `finish` puts that in.
        """
        with torch.autocast(prepared.device.type, enabled=False):  # as in `compare`
            if self.sqnorm is None:
                return inner_products(prepared, self.keys)
            if len(prepared) == 1 or self.steady:  # a product that begins with the norms is not exact
                return inner_products(prepared, self.keys).mul_(2).sub_(self.sqnorm)
            return torch.addmm(self.sqnorm, prepared, self.keys.T, beta=-1, alpha=2)

    def finish(self, prepared: Tensor, ranks: Tensor) -> Tensor:
        """Return the similarities (q, k) of what `rank` has given for some keys."""
        if self.metric == "cosine":
            return ranks * _inverse_norm(prepared)[:, None]
        if self.sqnorm is None:
            return ranks
        return ranks.sub(sum_of_squares(prepared)[:, None]).clamp_(max=0)

    def part(self, start: int, stop: int) -> PreparedKeys:
        """Return some of unbatched keys."""
        sqnorm = None if self.sqnorm is None else self.sqnorm[:, start:stop]
        return PreparedKeys(self.metric, self.keys[start:stop], self.offset, sqnorm, self.steady)

    def similarity(self, queries: Tensor) -> Tensor:
        """Return the similarities (..., q, m) of `queries` (..., q, d)."""
        return self.compare(self.prepare_queries(queries))


def prepare_keys(keys: Tensor, metric: str, offset: Tensor | None = None) -> PreparedKeys:
    """Make `keys` (..., m, d) ready for comparison under `metric`.

    Parameters
    ----------
    keys : Tensor of shape (..., m, d)
        The keys.
    metric : {"sqeuclidean", "cosine", "dot"}
        ``sqeuclidean`` is *minus* the squared Euclidean distance.
    offset : Tensor of shape (..., 1, d), optional
        What to subtract for ``sqeuclidean``; by default the mean key, and nothing where that would save few digits.

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
        if _are_plain(keys) and keys.shape[-2]:
            nearest = sum_of_squares(keys - offset).amin(-1, keepdim=True)
            near = sum_of_squares(offset) <= NEAR**2 * nearest
            if near.all():  # a copy of all queries less
                return PreparedKeys(metric, keys, None, sum_of_squares(keys).unsqueeze(-2))
            # Of several episodes each has the answers that it has alone.
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


def _are_plain(*tensors: Tensor) -> bool:
    """Whether numbers may be looked at, and numpy used: on a CPU, where no gradients are recorded."""
    return not torch.is_grad_enabled() and all(x.device.type == "cpu" for x in tensors)


def inner_products(rows: Tensor, others: Tensor) -> Tensor:
    """Return the inner products (..., q, m) of `rows` (..., q, d) with `others` (..., m, d).

    Those of one row, and of few rows in each of many episodes, come from numpy on a CPU where no gradient is recorded.
    Torch's products are made for large matrices, and there take up to five times as long.
    """
    if rows.dim() < 2 or rows.dtype != others.dtype or not _are_plain(rows, others):
        return rows @ others.mT
    q, (m, d) = rows.shape[-2], others.shape[-2:]
    rows, others = rows.detach(), others.detach()
    with np.errstate(all="ignore"):  # what is too large is infinite, as with torch
        if q == 1:
            return torch.from_numpy(np.vecdot(others.numpy(), rows.numpy())).unsqueeze(-2)
        if rows.dim() > 2 and q * m * d <= FEW:
            return torch.from_numpy(np.matmul(rows.numpy(), others.mT.numpy()))
    return rows @ others.mT


def to_grid(x: Tensor) -> Tensor:
    """Round float64 rows (..., d) to 26 binary digits below their length, so that products of two of them are exact.

    The terms of an inner product are then multiples of 2^-52 of at most twice the product of the lengths, and so are
    their sums, whatever their order: no processor, library, number of threads or of rows rounds them differently. The
    rounding to the grid is finer than that of float32.
    """
    length = sum_of_squares(x).sqrt().unsqueeze(-1)
    # What is added and subtracted again takes the digits below the grid with it.
    exponent = torch.frexp(length / GRID_LENGTH).exponent
    shift = torch.ldexp(torch.full_like(length, 1.5), exponent + (52 - GRID_DIGITS))
    return (x + shift) - shift


def sum_of_squares(x: Tensor) -> Tensor:
    """Return the squared lengths (...) of rows (..., d)."""
    if not _are_plain(x):
        return x.square().sum(-1)
    rows = x.detach().numpy()  # the same without a copy of squares
    with np.errstate(all="ignore"):  # what is too large is infinite
        return torch.from_numpy(np.asarray(np.vecdot(rows, rows)))


def _squares_fit(x: Tensor) -> bool:
    """Whether the squares of all rows (..., d) keep their digits; False where nobody may look at them."""
    if not x.numel() or not _are_plain(x) or x.dtype in (torch.float16, torch.bfloat16):
        return False
    low, high = sum_of_squares(x).aminmax()
    return bool(low > TINY and high < HUGE)


def _inverse_norm(x: Tensor) -> Tensor:
    """Return what scales rows (..., d) to unit length, 1 for a zero row."""
    squares = sum_of_squares(x)
    return torch.where(squares > 0, squares, 1).rsqrt()


def normalize(x: Tensor) -> Tensor:
    """Scale rows (..., d) to unit length; a zero row stays zero, with zero gradient.

    Rows are divided by their largest entry first where a square could over- or underflow.
    """
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if _squares_fit(x):  # as always but for a zero row: without two copies
        return x * _inverse_norm(x).unsqueeze(-1)
    largest = x.detach().abs().amax(-1, keepdim=True)
    scaled = x / torch.where(largest > 0, largest, 1)
    norm = scaled.square().sum(-1, keepdim=True)
    if not scaled.requires_grad:  # the same without two copies
        return scaled.mul_(torch.where(norm > 0, torch.where(norm > 0, norm, 1).rsqrt(), 0))
    # A guarded argument, not a guarded result: otherwise the gradient of rsqrt(0) would be 0 * inf.
    return torch.where(norm > 0, scaled * torch.where(norm > 0, norm, 1).rsqrt(), 0)
