"""Choose, one after the other, the items that cover most of a pool."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.images.suggesting.pool import Pool

#: Of a larger pool, this many items, drawn at random, may be chosen and count as covered; half of them at a time.
MOST = 5000


def most_covering(
    pool: Pool, k: int, kernel: Callable[[Tensor], Tensor], weight: Tensor | None = None
) -> tuple[list[int], list[float]]:
    """Return `k` rows, each of which adds most to the coverage, and the share of all weight that each adds.

    The coverage is ``sum over items i of weight[i] * max over labelled and chosen items j of kernel(cosine of i, j)``.
    It is submodular, so that the greedy choice reaches 1 - 1/e of the best one (Nemhauser et al. 1978). Memory does not
    grow with the pool, and time only to find the nearest labelled items.

    Parameters
    ----------
    pool : Pool
        n items.
    k : int
        How many, at most n.
    kernel : callable
        From cosines to values in 0..1; not falling.
    weight : Tensor of shape (n,), optional
        What it is worth to cover each item; by default 1.
    """
    order, nearest = torch.from_numpy(pool.rng().permutation(len(pool))), pool.nearest_labelled
    chosen: list[int] = []
    scores: list[float] = []
    while len(chosen) < k:  # once, unless k is large
        rows = order[~torch.isin(order, order.new_tensor(chosen))][:MOST]
        worth = pool.margin.new_ones(len(rows)) if weight is None else weight[rows]
        n = min(k - len(chosen), max(1, len(rows) // 2) if len(pool) > MOST else len(rows))
        best, gains = _greedy(kernel(pool.x[rows] @ pool.x[rows].T), _known(kernel, nearest[rows]), worth, n)
        chosen += rows[best].tolist()
        scores += gains
        if len(chosen) < k:
            nearest = torch.cat([(part @ pool.x[rows[best]].T).amax(-1) for part in pool.x.split(MOST)]).maximum(
                nearest
            )
    return chosen, scores


def _known(kernel: Callable[[Tensor], Tensor], nearest: Tensor) -> Tensor:
    """Return how much of each item the nearest labelled one covers; 0 if there is none."""
    return torch.where(nearest > -1, kernel(nearest), 0)


def _greedy(kernel: Tensor, covered: Tensor, weight: Tensor, k: int) -> tuple[list[int], list[float]]:
    """Return `k` columns of `kernel` (m, m), given how much of each row is `covered` (m,), and their gains."""
    gains = weight @ torch.relu(kernel - covered[:, None])
    total, chosen, scores = float(weight.sum()) or 1.0, [], []
    for _ in range(k):
        best = int(gains.argmax())
        chosen.append(best)
        scores.append(max(0.0, float(gains[best])) / total)
        more = torch.maximum(covered, kernel[:, best])
        changed = (more > covered).nonzero()[:, 0]
        part = kernel[changed]
        lost = torch.relu(part - covered[changed, None]) - torch.relu(part - more[changed, None])
        gains -= weight[changed] @ lost
        gains[best], covered = -torch.inf, more
    return chosen, scores
