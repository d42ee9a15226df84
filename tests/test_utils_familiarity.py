"""The familiarity of queries, and of queries that were left out in closed form."""

import numpy as np
import pytest
import torch

from fewshot.utils.discriminant import LabelledRows
from fewshot.utils.familiarity import AGAINST, BEYOND, SOFTNESS, STRENGTH, Familiarity, HeldOut, teaching

N_WAY = 4


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def drawn(n_shot, d, seed=0):
    """Return support, labels, other rows, and queries, of unit length."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(N_WAY, d)) + 2
    x = unit(centres.repeat(n_shot, 0) + rng.normal(size=(N_WAY * n_shot, d)))
    return x, np.arange(N_WAY).repeat(n_shot), unit(rng.normal(size=(7, d)) + 2), unit(rng.normal(size=(5, d)) + 2)


def made(x, y, others, negatives, weight=None):
    weight = np.ones(len(y)) if weight is None else weight
    count = np.bincount(y, weight, minlength=N_WAY)
    sums = np.stack([weight[y == c] @ x[y == c] for c in range(N_WAY)])
    support = LabelledRows(x, y, weight, sums / np.maximum(count, 1)[:, None], count)
    return Familiarity.of(np.concatenate([teaching(support, np), others]), support.means, count, negatives, np)


def slow(x, y, others, negatives, queries):
    """The definition, with the inverse of T written out."""
    rows = np.concatenate([x, others])
    inverse = np.linalg.inv(rows.T @ rows + STRENGTH * np.eye(rows.shape[1]))

    def fit(a, b):
        square = STRENGTH * a @ inverse @ a
        return a @ inverse @ b / np.sqrt((a @ inverse @ a) * (b @ inverse @ b)) / square ** (BEYOND / 2)

    found = []
    for q in queries:
        best = SOFTNESS * np.log(np.mean([np.exp(fit(q, x[y == c].mean(0)) / SOFTNESS) for c in np.unique(y)]))
        found.append(best - AGAINST * max((fit(q, one) for one in negatives), default=0))
    return np.array(found)


SIZES = pytest.mark.parametrize(("n_shot", "d"), [(1, 30), (3, 30), (20, 12)])


@SIZES
@pytest.mark.parametrize("n_negatives", [0, 2])
def test_it_is_what_its_formula_says(n_shot, d, n_negatives):
    x, y, others, queries = drawn(n_shot, d)
    negatives = others[:n_negatives]
    found = made(x, y, others, negatives).scores(queries, np)
    np.testing.assert_allclose(found, slow(x, y, others, negatives, queries), rtol=0, atol=1e-10)


@SIZES
def test_a_class_left_out_is_as_if_it_had_never_been_seen(n_shot, d):
    x, y, others, _ = drawn(n_shot, d)
    negatives = others[:2]
    everything = made(x, y, others, negatives)
    rest = y != 1
    expected = made(x[rest], y[rest], others, negatives).scores(x[~rest], np)
    found = everything.without(x[~rest], np.ones(n_shot), 1, x[~rest], np)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    added = unit(x[:1] - others[:1])  # one row instead of three
    expected = made(x, y, np.concatenate([others[:4], added]), negatives).scores(others[4:], np)
    changed, signs = np.concatenate([others[4:], added]), np.array([1.0, 1.0, 1.0, -1.0])
    found = everything.without(changed, signs, None, others[4:], np)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_held_out_classes_add_what_differs_within_them_and_their_mean():
    x, codes = np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]]), np.array([7, 7, 4])
    found = HeldOut.of(x, codes, np)
    assert found.within.tolist() == [[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]]
    np.testing.assert_allclose(found.mean(), [[3.5 * 3**0.5, 3.0 * 3**0.5]])
    np.testing.assert_allclose(found.mean(gone=0), [[2.0 * 2**0.5, 1.0 * 2**0.5]])
    assert len(HeldOut.of(x[:2], codes[:2], np).mean(gone=0)) == 0
    theirs = HeldOut.of(torch.from_numpy(x), torch.from_numpy(codes), torch)
    for mine, other in zip(found.rows, theirs.rows, strict=True):
        np.testing.assert_allclose(other, mine)
    assert [len(rows) for rows in HeldOut.of(x[:0], codes[:0], np).rows] == [0, 0]


@pytest.mark.parametrize(("n_shot", "d"), [(3, 30), (20, 12)])
def test_a_row_left_out_is_as_if_it_had_never_been_seen(n_shot, d):
    x, y, others, _ = drawn(n_shot, d)
    weight = np.ones(len(y))
    weight[2], weight[-1], weight[0] = 2.0, 0.5, 300.0
    count = np.bincount(y, weight)
    found = made(x, y, others, others[:2], weight).of_left_out(x, y, weight, count, np)
    for i in range(len(x)):
        left = np.arange(len(x)) != i
        model = made(x[left], y[left], others, others[:2], weight[left])
        np.testing.assert_allclose(found[i], model.scores(x[i : i + 1], np)[0], rtol=0, atol=1e-10)


def test_torch_and_numpy_agree_and_an_absent_class_is_never_near():
    x, y, others, queries = drawn(3, 30)
    y = np.where(y == 2, 1, y)  # the class 2 has no support
    mine = made(x, y, others, others[:1])
    t = torch.from_numpy
    means = np.stack([x[y == c].mean(0) if (y == c).any() else np.zeros(30) for c in range(N_WAY)])
    theirs = Familiarity.of(
        t(np.concatenate([x, others])), t(means), t(np.bincount(y, minlength=N_WAY)), t(others[:1]), torch
    )
    np.testing.assert_allclose(theirs.scores(t(queries), torch), mine.scores(queries, np), rtol=0, atol=1e-12)
    np.testing.assert_allclose(mine.scores(queries, np), slow(x, y, others, others[:1], queries), rtol=0, atol=1e-10)
    assert np.isfinite(mine.scores(np.zeros((1, 30)), np)).all()
