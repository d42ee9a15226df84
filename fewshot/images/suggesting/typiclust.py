"""TypiClust: the most typical item of each large cluster without a label."""

from __future__ import annotations

import numpy as np
import torch

from fewshot.images.suggesting.pool import Pool

#: Typicality is the mean similarity to this many neighbours in the cluster; smaller clusters come last; the most
#: clusters, and the most items of one whose typicality is compared.
NEIGHBOURS, SMALLEST, MOST_CLUSTERS, MOST_TYPICAL = 20, 5, 500, 2048


def typiclust(pool: Pool, k: int) -> tuple[list[int], list[float]]:
    """Choose the most typical items of the largest clusters without a label (G. Hacohen et al. 2022, arXiv:2202.02794).

    There are as many clusters as labelled and chosen items, at most `MOST_CLUSTERS`.
    """
    from sklearn.cluster import MiniBatchKMeans  # slow to import

    every = torch.cat([pool.x, pool.labelled]).numpy()
    n_clusters = min(len(pool.labelled) + k, MOST_CLUSTERS, len(every))
    clusters = MiniBatchKMeans(n_clusters, random_state=pool.seed, n_init=3, batch_size=4096).fit_predict(every)
    size = np.bincount(clusters[: len(pool)], minlength=n_clusters)
    labels = np.bincount(clusters[len(pool) :], minlength=n_clusters)
    left = {c: _by_typicality(pool, np.flatnonzero(clusters[: len(pool)] == c)) for c in np.flatnonzero(size).tolist()}
    chosen: list[int] = []
    scores: list[float] = []
    while len(chosen) < k:
        best = min(left, key=lambda c: (size[c] < SMALLEST, labels[c], -size[c]))
        row, score = left[best].pop(0)
        chosen.append(row)
        scores.append(score)
        labels[best] += 1
        left = {c: rows for c, rows in left.items() if rows}
    return chosen, scores


def _by_typicality(pool: Pool, rows: np.ndarray) -> list[tuple[int, float]]:
    """Return the rows of a cluster, the most typical first, each with its mean similarity to its neighbours."""
    some = pool.rng().permutation(rows)[:MOST_TYPICAL]
    near = torch.cat([part @ pool.x[some].T for part in pool.x[rows].split(MOST_TYPICAL)])
    typical = near.topk(min(NEIGHBOURS, len(some)), -1).values.mean(-1).numpy()
    order = np.argsort(-typical, kind="stable")
    return list(zip(rows[order].tolist(), typical[order].tolist(), strict=True))
