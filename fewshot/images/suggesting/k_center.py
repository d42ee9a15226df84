"""K-center: the item that is farthest from all that is labelled or chosen."""

from __future__ import annotations

from fewshot.images.suggesting.pool import Pool


def k_center(pool: Pool, k: int) -> tuple[list[int], list[float]]:
    """Choose items that are far from each other (core-set, greedy; O. Sener, S. Savarese 2018, arXiv:1708.00489)."""
    nearest = pool.nearest_labelled.clone()
    if not len(pool.labelled):  # begin in the middle
        nearest[(pool.x @ pool.x.mean(0)).argmax()] = -2
    chosen: list[int] = []
    scores: list[float] = []
    for _ in range(k):
        best = int(nearest.argmin())
        chosen.append(best)
        scores.append(min(1.0, (1 - float(nearest[best])) / 2))
        nearest = nearest.maximum(pool.x @ pool.x[best])
        nearest[chosen] = 2
    return chosen, scores
