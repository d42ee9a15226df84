"""The closed form with every row really left out, and one body for numpy and torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.utils import discriminant
from fewshot.utils.discriminant import TEMPERATURES, ClassMetric, LabelledRows, choose, class_keys


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
    return LabelledRows(*(v if v is None else torch.from_numpy(np.asarray(v)) for v in vars(support).values()))


def similarity(support, query, strength):
    """The definition, with the inverse written out."""
    second = (support.x * support.weight[:, None]).T @ support.x + strength * np.eye(support.x.shape[1])
    there = support.count > 0
    centred = support.means - (support.means[there].mean(0) if there.sum() > 1 else 0)
    inverse = np.linalg.inv(second)
    return np.array(
        [query @ inverse @ v / np.sqrt(v @ inverse @ v) if p else 0 for v, p in zip(centred, there, strict=True)]
    )


def plain_cosine(support, query):
    there = support.count > 0
    return np.array([query @ v / np.linalg.norm(v) if p else 0 for v, p in zip(support.means, there, strict=True)])


@pytest.mark.parametrize(("n", "d"), [(9, 20), (30, 8), (12, 12)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("strength", [0.1, 3.0])
@pytest.mark.parametrize("by_means", [False, True])
def test_a_row_is_left_out_as_if_the_support_had_never_held_it(n, d, weighted, strength, by_means):
    support = support_of(n, d, 4, 0, weighted)
    rotated = discriminant._Rotated.of(support, np)
    of_means = rotated.of_means(strength, np) if by_means else None
    found, unit = rotated.left_out(strength, of_means, np), np.minimum(support.weight, 1)
    cosine = rotated.left_out_cosine(np)
    usable = rotated._shares(np) > 0
    for i in range(n):
        weight = support.weight - unit * (np.arange(n) == i)
        without = make(support.x, support.labels, weight, 4)
        assert usable[i] == (without.count[support.labels[i]] > 0)
        if usable[i]:
            np.testing.assert_allclose(found[i], similarity(without, support.x[i], strength), rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(cosine[i], plain_cosine(without, support.x[i]), rtol=1e-9, atol=1e-11)


def test_products_of_very_many_means_are_not_made():
    assert discriminant._Rotated.of(support_of(6, 5, 6, 0, False), np).of_means(0.3, np) is None
    assert discriminant._Rotated.of(support_of(7, 5, 6, 0, False), np).of_means(0.3, np).shape == (6, 6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_numpy_and_torch_agree_and_keys_are_the_definition(n, d, n_way, seed, weighted):
    support = support_of(n, d, n_way, seed, weighted)
    found, other = choose(support, None, np), choose(as_torch(support), None, torch)
    for name, value in vars(found).items():
        np.testing.assert_allclose(value, getattr(other, name).numpy(), rtol=1e-8)
    keys = class_keys(support, found, np)
    np.testing.assert_allclose(keys, class_keys(as_torch(support), found.map(torch.tensor), torch), atol=1e-9)
    query = np.random.default_rng(1).normal(size=d)
    expected = similarity(support, query, float(found.strength)) * found.scale
    expected = expected + plain_cosine(support, query) * found.cosine
    centred = np.abs(support.centred(np)).max(-1) > 1e-9  # equal means have no direction
    np.testing.assert_allclose((keys @ query)[centred], expected[centred], rtol=1e-6, atol=1e-8)


def test_the_temperature_and_strength_make_the_left_out_rows_likeliest():
    support = support_of(60, 10, 3, 0)
    rotated = discriminant._Rotated.of(support, np)
    chosen = choose(support, None, np).map(float)
    strength, temperature = (
        chosen.strength,
        0.05 / (chosen.scale * float(rotated.length(chosen.strength, rotated.x**2, np))),
    )
    assert chosen.cosine / 0.05 == pytest.approx((1 - 20**-0.5) / temperature)
    spread = float(rotated.spread(np))
    losses = {}
    for r in discriminant.STRENGTHS:
        rows = np.empty((60, 3))
        for i in range(60):
            without = make(support.x, support.labels, (np.arange(60) != i).astype(float), 3)
            rows[i] = similarity(without, support.x[i], r) / float(rotated.length(r, rotated.x**2, np))
            rows[i] += (1 - 20**-0.5) * plain_cosine(without, support.x[i])
        share = (1 / support.count)[support.labels] * 60 / 3
        for t in (*TEMPERATURES, temperature):
            logits = rows / t
            surprise = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
            surprise -= logits[np.arange(60), support.labels]
            usual = 0.068 * (spread / 0.2) ** 0.41 * (3 / 10) ** -0.09 * (r / 0.3) ** (1 / 3) * 20**-0.3
            losses[r, t] = (share * surprise).sum() + 4 * np.log10(r / 0.3) ** 2 + 8 * np.log(t / usual) ** 2
    best = min(losses, key=losses.get)
    assert best[0] == strength
    assert losses[strength, temperature] <= min(losses.values()) + 5e-2  # the vertex of a parabola through three


def test_of_many_rows_each_is_kept_for_itself_alone():
    support = support_of(9000, 6, 4, 0)
    order = np.random.default_rng(1).permutation(9000)
    shuffled = make(support.x[order], support.labels[order], support.weight[order], 4)
    part = make(support.x[:6000], support.labels[:6000], support.weight[:6000], 4)
    kept, again, fewer = ({tuple(row) for row in one.limited(np).x.tolist()} for one in (support, shuffled, part))
    assert len(kept) == len(fewer) == discriminant.MOST_ROWS
    assert kept == again == {tuple(row) for row in as_torch(support).limited(torch).x.tolist()}
    assert kept & {tuple(row) for row in part.x.tolist()} <= fewer  # later support only displaces others
    assert part.limited(np).means is part.means
    few = make(support.x[:4096], support.labels[:4096], support.weight[:4096], 4)
    assert few.limited(np) is few


@pytest.mark.parametrize("n_way", [1, 2, 6, 15])
def test_the_spread_is_that_of_the_cosines_between_class_means(n_way):
    support = support_of(3 * n_way, 8, n_way, 0)
    centred = support.centred(np)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(n_way, 1)]
    squared = (cosines.var() if n_way > 1 else 0) * len(cosines) + 3 * 0.2**2
    assert support.spread(np) == pytest.approx((squared / (len(cosines) + 3)) ** 0.5)


def test_many_rows_are_sampled_whatever_their_order():
    support = support_of(5000, 6, 4, 0)
    order = np.random.default_rng(1).permutation(5000)
    shuffled = make(support.x[order], support.labels[order], support.weight[order], 4)
    found, other = choose(support, None, np), choose(shuffled, None, np)
    for name, value in vars(found).items():
        np.testing.assert_allclose(value, getattr(other, name), rtol=1e-9)
    assert discriminant._Rotated.of(support, np).to_leave_out(np).labels.shape == (1000,)


def test_a_sample_of_many_classes_stands_for_all(monkeypatch):
    """Which classes it has depends on each alone; its metric and choices are those of its classes."""
    support = support_of(900, 6, 100, 0)
    monkeypatch.setattr(discriminant, "MOST_CLASSES", 30)
    monkeypatch.setattr(discriminant, "MOST_ROWS", 200)
    order, names = np.random.default_rng(1).permutation(900), np.random.default_rng(2).permutation(100)
    shuffled = make(support.x[order], names[support.labels[order]], support.weight[order], 100)
    limited, other = support.limited(np), shuffled.limited(np)
    assert set(names[limited.sample]) == set(other.sample)
    assert {tuple(row) for row in limited.x} == {tuple(row) for row in other.x}
    assert limited.sample.tolist() == as_torch(support).limited(torch).sample.tolist()
    own = np.isin(limited.labels, limited.sample)
    assert own[: own.sum()].all()  # theirs come first
    chosen, same = choose(limited, None, np), choose(as_torch(support).limited(torch), None, torch)
    place = {label: i for i, label in enumerate(limited.sample.tolist())}
    labels = np.array([place.get(label, -1) for label in limited.labels.tolist()])
    sample = LabelledRows(
        limited.x, labels, limited.weight, limited.means[limited.sample], limited.count[limited.sample]
    )
    again = choose(sample, None, np, 64)  # the power of two below
    for name, value in vars(chosen).items():
        np.testing.assert_allclose(value, getattr(same, name).numpy(), rtol=1e-8)
        np.testing.assert_allclose(value, getattr(again, name), rtol=1e-8)
    keys = class_keys(limited, chosen, np)
    np.testing.assert_allclose(keys, class_keys(as_torch(limited), chosen.map(torch.tensor), torch), atol=1e-9)
    metric = ClassMetric.of(sample, None, np, 64)
    np.testing.assert_allclose(metric.keys(support.means, np), keys, rtol=1e-7, atol=1e-8)
    to_keys, to_queries = metric.turn()
    queries = support.x[:50]
    np.testing.assert_allclose((keys @ to_keys) @ (queries @ to_queries).T, keys @ queries.T, rtol=1e-7, atol=1e-8)
    if not chosen.cosine:  # with one image a class
        np.testing.assert_allclose(np.linalg.norm(keys @ to_keys, axis=1), chosen.scale)
    with_all, center = similarity(limited, support.x[0], float(chosen.strength)), limited.center(np)
    assert not np.allclose(with_all, (keys @ support.x[0]) / chosen.scale)  # they are compared with their own middle
    np.testing.assert_allclose(center, support.means[limited.sample].mean(0))
