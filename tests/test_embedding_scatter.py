"""Statistics that add, and the accuracy expected on left-out classes."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.embedding.scatter import Scatter, expected_accuracy, powered, shrunk
from fewshot.utils.discriminant import unit_length


def _labelled(n_classes: int = 8, n: int = 15, d: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings whose largest differences are within classes."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n_classes, n, d)) * np.where(np.arange(d) < 3, 3.0, 0.3)
    return (rng.normal(size=(n_classes, 1, d)) + noise).reshape(-1, d), np.repeat(np.arange(n_classes), n)


def test_scatters_of_parts_add_up_to_that_of_the_whole() -> None:
    x, y = _labelled()
    order = np.random.default_rng(1).permutation(len(x))
    whole = Scatter.of(x, y)
    parts = [Scatter.of(x[part], y[part]) for part in np.array_split(order, 7)]
    total = sum(parts[1:], start=parts[0])
    assert total.labels.tolist() == whole.labels.tolist()
    assert (total.counts == whole.counts).all()
    for one, other in ((total.sums, whole.sums), (total.covariance(), whole.covariance())):
        assert np.abs(one - other).max() < 1e-12 * np.abs(x).max() ** 2 * len(x)
    oracle = sum(np.cov(x[y == c].T, bias=True) * 15 for c in range(8)) / (len(x) - 8)
    assert np.allclose(whole.covariance(), oracle)


@pytest.mark.parametrize("d", [12, 150])  # more, and fewer, items than numbers
def test_expected_accuracy_is_that_of_drawn_episodes(d: int) -> None:
    x, y = _labelled(n_classes=10, d=d)
    rows = powered(x, 1.0)
    found = expected_accuracy(rows, y, (0.1, 1.0))
    for shrinkage, expected in found.items():
        rng, wins = np.random.default_rng(0), []
        for group in (np.arange(10)[i::3] for i in range(3)):
            rest = ~np.isin(y, group)
            mean = np.mean([rows[y == c].mean(0) for c in range(10) if c not in group], 0)
            values, turn = np.linalg.eigh(Scatter.of(rows[rest], y[rest]).covariance())
            z = unit_length((rows - mean) @ turn * shrunk(values, shrinkage, values.mean()) ** -0.5).reshape(10, 15, d)
            for _ in range(1000):
                c = rng.choice(group)
                query, own = rng.choice(15, 2, replace=False)
                rivals = np.delete(z, c, 0).reshape(-1, d)[rng.choice(135, 4, replace=False)]
                wins.append(z[c, query] @ z[c, own] > (rivals @ z[c, query]).max())
        assert abs(np.mean(wins) - expected) < 0.03
    assert found[0.1] > found[1.0]  # whitening removes the noise
