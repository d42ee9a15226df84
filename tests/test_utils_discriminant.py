"""The closed form with every row really left out, and one body for numpy and torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.utils import discriminant
from fewshot.utils.discriminant import TEMPERATURES, LabelledRows, class_keys, strength_and_scale


def support_of(n, d, n_way, seed, weighted=False):
    """LabelledRows in numpy whose last class may have one row, or none."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_way), rng.integers(0, n_way, max(0, n - n_way))])[:n]
    weight = rng.choice([0.5, 1.0, 2.0], n) if weighted else np.ones(n)
    return make(np.abs(rng.normal(size=(n, d))) + labels[:, None] % 2, labels, weight, n_way)


def make(x, labels, weight, n_way):
    count = np.bincount(labels, weight, n_way)
    means = np.stack([(x * (weight * (labels == c))[:, None]).sum(0) / max(count[c], 1e-9) for c in range(n_way)])
    return LabelledRows(x, labels, weight, means, count)


def as_torch(support):
    return LabelledRows(*(torch.from_numpy(np.asarray(v)) for v in vars(support).values()))


def similarity(support, query, strength):
    """The definition, with the inverse written out."""
    second = (support.x * support.weight[:, None]).T @ support.x + strength * np.eye(support.x.shape[1])
    there = support.count > 0
    centred = support.means - (support.means[there].mean(0) if there.sum() > 1 else 0)
    inverse = np.linalg.inv(second)
    return np.array(
        [query @ inverse @ v / np.sqrt(v @ inverse @ v) if p else 0 for v, p in zip(centred, there, strict=True)]
    )


@pytest.mark.parametrize(("n", "d"), [(9, 20), (30, 8), (12, 12)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("strength", [0.1, 3.0])
def test_a_row_is_left_out_as_if_the_support_had_never_held_it(n, d, weighted, strength):
    support = support_of(n, d, 4, 0, weighted)
    rotated = discriminant._Rotated.of(support, np)
    found, unit = rotated.left_out(strength, np), np.minimum(support.weight, 1)
    usable = rotated._shares(np) > 0
    for i in range(n):
        weight = support.weight - unit * (np.arange(n) == i)
        without = make(support.x, support.labels, weight, 4)
        assert usable[i] == (without.count[support.labels[i]] > 0)
        if usable[i]:
            np.testing.assert_allclose(found[i], similarity(without, support.x[i], strength), rtol=1e-9, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_numpy_and_torch_agree_and_keys_are_the_definition(n, d, n_way, seed, weighted):
    support = support_of(n, d, n_way, seed, weighted)
    found = strength_and_scale(support, None, np)
    for one, other in zip(found, strength_and_scale(as_torch(support), None, torch), strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-8)
    strength, scale = found
    keys = class_keys(support, strength, scale, np)
    np.testing.assert_allclose(
        keys, class_keys(as_torch(support), *map(torch.tensor, (strength, scale)), torch), atol=1e-9
    )
    query = np.random.default_rng(1).normal(size=d)
    expected = similarity(support, query, float(strength)) * scale
    centred = np.abs(support.centred(np)).max(-1) > 1e-9  # equal means have no direction
    np.testing.assert_allclose((keys @ query)[centred], expected[centred], rtol=1e-6, atol=1e-8)


def test_the_temperature_and_strength_make_the_left_out_rows_likeliest():
    support = support_of(60, 10, 3, 0)
    rotated = discriminant._Rotated.of(support, np)
    strength, scale = (float(v) for v in strength_and_scale(support, None, np))
    temperature = 0.05 / (scale * float(rotated.length(strength, np)))
    losses = {}
    for r in discriminant.STRENGTHS:
        rows = np.stack(
            [
                similarity(make(support.x, support.labels, (np.arange(60) != i).astype(float), 3), support.x[i], r)
                for i in range(60)
            ]
        )
        rows = rows / float(rotated.length(r, np))
        share = (1 / support.count)[support.labels] * 60 / 3
        for t in (*TEMPERATURES, temperature):
            logits = rows / t
            surprise = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
            surprise -= logits[np.arange(60), support.labels]
            usual = 0.06 * (r / 0.3) ** (1 / 3) * 20**-0.3
            losses[r, t] = (share * surprise).sum() + 4 * np.log10(r / 0.3) ** 2 + 8 * np.log(t / usual) ** 2
    best = min(losses, key=losses.get)
    assert best[0] == strength
    assert losses[strength, temperature] <= min(losses.values()) + 1e-2  # the vertex of a parabola through three


def test_many_rows_are_sampled_whatever_their_order():
    support = support_of(5000, 6, 4, 0)
    order = np.random.default_rng(1).permutation(5000)
    shuffled = make(support.x[order], support.labels[order], support.weight[order], 4)
    for one, other in zip(strength_and_scale(support, None, np), strength_and_scale(shuffled, None, np), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert discriminant._Rotated.of(support, np).to_leave_out(np).labels.shape == (1000,)
