"""The items of which the model is least sure, and random ones."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.images.suggesting.pool import Pool


def margin(pool: Pool, k: int) -> tuple[list[int], list[float]]:
    """Choose the items whose two likeliest classes are about as likely (T. Scheffer et al. 2001)."""
    return _highest(1 - pool.margin, pool, k)


def entropy(pool: Pool, k: int) -> tuple[list[int], list[float]]:
    """Choose the items whose probabilities have the highest entropy (B. Settles 2009, Active Learning Survey)."""
    return _highest(pool.entropy, pool, k)


def at_random(pool: Pool, k: int) -> tuple[list[int], list[float]]:
    """Choose random items: what other strategies must beat."""
    return _highest(torch.zeros_like(pool.margin), pool, k)


def _highest(scores: Tensor, pool: Pool, k: int) -> tuple[list[int], list[float]]:
    """Return the rows of the highest scores; of equal ones, random ones."""
    order = torch.from_numpy(pool.rng().permutation(len(pool)))
    rows = order[scores[order].sort(descending=True, stable=True).indices[:k]]
    return rows.tolist(), scores[rows].tolist()
