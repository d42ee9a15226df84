"""Domains: the map, its shrinkage, and its file."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.embedding.domain import Domain
from fewshot.utils.discriminant import unit_length


def _labelled(n_classes: int = 8, n: int = 15, d: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings whose largest differences are within classes."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n_classes, n, d)) * np.where(np.arange(d) < 3, 3.0, 0.3)
    return (rng.normal(size=(n_classes, 1, d)) + noise).reshape(-1, d), np.repeat(np.arange(n_classes), n)


def test_the_map_is_the_formula() -> None:
    x, y = _labelled()
    domain = Domain.fit(x, y, embedder="e", shrinkage=0.5, power=0.5)
    rows = np.sign(x) * np.abs(x) ** 0.5
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    means = np.stack([rows[y == c].mean(0) for c in range(8)])
    rest = rows - means[y]
    covariance = rest.T @ rest / (len(x) - 8)
    shrunk_one = 0.5 * covariance / np.trace(covariance) * 12 + 0.5 * np.eye(12)
    mapped = domain(x)
    # The inverse of the shrunk covariance is the metric.
    expected = (rows - means.mean(0)) @ np.linalg.inv(shrunk_one) @ (rows - means.mean(0)).T
    assert np.allclose(mapped.astype(float) @ mapped.T.astype(float), expected, atol=1e-5)


def test_a_class_counts_as_a_class_however_many_items_it_has() -> None:
    x, y = _labelled()
    few = np.concatenate([np.flatnonzero(y == c)[: 15 if c == 0 else 3] for c in range(8)])
    domain = Domain.fit(x[few], y[few], embedder="e", shrinkage=1.0, power=1.0)
    rows = unit_length(x[few])
    assert np.allclose(domain.mean, np.mean([rows[y[few] == c].mean(0) for c in range(8)], 0))


def test_order_of_items_does_not_matter() -> None:
    x, y = _labelled()
    order = np.random.default_rng(1).permutation(len(x))
    one, other = Domain.fit(x, y, embedder="e"), Domain.fit(x[order], y[order], embedder="e")
    assert one.shrinkage == other.shrinkage
    assert np.allclose(one.matrix, other.matrix, atol=1e-10)


def test_adapting_helps_classes_that_it_has_not_seen() -> None:
    x, y = _labelled(n_classes=40)
    domain = Domain.fit(x[:300], y[:300], embedder="e")
    assert domain.accuracy is not None
    assert domain.n_classes == 20
    assert domain.n_items == 300

    def margin(z: np.ndarray) -> float:
        unit = unit_length(z.astype(float))
        same = y[300:, None] == y[None, 300:]
        return float((unit @ unit.T)[same].mean() - (unit @ unit.T)[~same].mean())

    assert margin(domain(x[300:])) > 1.4 * margin(x[300:])


def test_unlabelled_items_give_the_total_covariance() -> None:
    x, _ = _labelled()
    domain = Domain.fit(x, None, embedder="e", shrinkage=1e-3, power=1.0)
    mapped = domain(x).astype(float)
    covariance = np.cov(mapped.T)
    assert domain.n_classes == 0
    assert np.allclose(covariance, np.eye(12) * covariance[0, 0], atol=2e-2)


def test_rows_that_are_not_finite_become_nan_and_zero_rows_stay_finite() -> None:
    x, y = _labelled()
    domain = Domain.fit(x, y, embedder="e")
    some = np.concatenate([x[:2], np.full((1, 12), np.nan), np.zeros((1, 12))]).astype(np.float32)
    mapped = domain(some)
    assert np.isnan(mapped[2]).all()
    assert np.isfinite(mapped[[0, 1, 3]]).all()
    assert np.array_equal(mapped[:2], domain(some[:2]))
    assert domain(some[:0]).shape == (0, 12)


def test_saved_and_loaded_it_is_the_same(tmp_path) -> None:
    x, y = _labelled()
    domain = Domain.fit(x, y, embedder="e")
    domain.save(tmp_path / "domain.safetensors")
    loaded = Domain.load(tmp_path / "domain.safetensors")
    assert loaded.fingerprint == domain.fingerprint
    assert np.array_equal(loaded(x), domain(x))
    assert (loaded.shrinkage, loaded.accuracy, loaded.n_classes) == (domain.shrinkage, domain.accuracy, 8)


def test_wrong_input_is_refused(tmp_path) -> None:
    x, y = _labelled()
    with pytest.raises(ValueError, match="no class has two different items"):
        Domain.fit(x[::15], y[::15], embedder="e")
    with pytest.raises(ValueError, match="finite"):
        Domain.fit(np.full((4, 3), np.nan), None, embedder="e")
    with pytest.raises(ValueError, match="shrinkage is 2"):
        Domain.fit(x, y, embedder="e", shrinkage=2)
    with pytest.raises(ValueError, match="adapt again"):
        Domain.fit(x, y, embedder="e")(x[:, :5])
    with pytest.raises(ValueError, match="does not exist"):
        Domain.load(tmp_path / "none")
    (tmp_path / "text").write_text("no")
    with pytest.raises(ValueError):
        Domain.load(tmp_path / "text")


def test_the_power_follows_the_signs() -> None:
    x, y = _labelled()
    assert Domain.fit(x, y, embedder="e").power == 1
    assert Domain.fit(np.abs(x), y, embedder="e").power == 0.5
