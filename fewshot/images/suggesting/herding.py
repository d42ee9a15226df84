"""Herding: cover the pool with a smooth kernel, first of all what the model is unsure of."""

from __future__ import annotations

from torch import Tensor

from fewshot.images.suggesting.cover import most_covering
from fewshot.images.suggesting.pool import Pool

#: An item covers another of cosine s to the degree exp((s - 1) / WIDTH).
WIDTH = 0.2


def herding(pool: Pool, k: int) -> tuple[list[int], list[float]]:
    """Choose the items that cover most of the pool (MaxHerding; W. Bae et al. 2024, arXiv:2407.12212)."""
    return most_covering(pool, k, smooth)


def uncertainty_herding(pool: Pool, k: int) -> tuple[list[int], list[float]]:
    """Choose the items that cover most of what the model is unsure of (W. Bae et al. 2025, arXiv:2412.20644).

    An item counts 1 minus the margin between its two likeliest classes. In deviation from the paper, the less of the
    pool is like what is labelled, the more all items count the same: a model that does not know a class is not unsure
    of its items.
    """
    return most_covering(pool, k, smooth, pool.known * (1 - pool.margin) + (1 - pool.known))


def smooth(cosine: Tensor) -> Tensor:
    """Return to what degree an item covers another."""
    return ((cosine - 1) / WIDTH).exp()
