"""ProbCover: cover the pool with balls."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.images.suggesting.cover import most_covering
from fewshot.images.suggesting.pool import Pool

#: Balls are as large as they can be with this share of them within one cluster.
PURITY = 0.95
#: The cosines that are compared, and the items whose balls are looked at.
COSINES, LOOKED_AT = tuple(i / 20 for i in range(1, 20)), 1000


def probcover(pool: Pool, k: int) -> tuple[list[int], list[float]]:
    """Choose the items whose balls hold most of what no ball holds yet (O. Yehuda et al. 2022, arXiv:2205.11320)."""
    least = _cosine_of_pure_balls(pool, k)
    return most_covering(pool, k, lambda cosine: (cosine >= least).to(cosine.dtype))


def _cosine_of_pure_balls(pool: Pool, k: int) -> float:
    """Return the least cosine at which `PURITY` of the balls hold items of one cluster only."""
    from sklearn.cluster import KMeans  # slow to import

    rows = torch.from_numpy(pool.rng().permutation(len(pool))[:LOOKED_AT])
    x = pool.x[rows]
    n_clusters = min(len(pool.labelled) + k, len(x))
    clusters = torch.from_numpy(KMeans(n_clusters, random_state=pool.seed, n_init=1).fit_predict(x.numpy()))
    other: Tensor = (x @ x.T).masked_fill(clusters[:, None] == clusters, -1).amax(-1)  # the nearest of another cluster
    pure = [float((other < cosine).float().mean()) >= PURITY for cosine in COSINES]
    return COSINES[pure.index(True) if True in pure else -1]
