"""Which items of a pool to label next."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import FewShotModel, OwnEmbedder
from fewshot.errors import ImageDecodeError, UnknownNameError
from fewshot.images.suggesting import cover
from fewshot.images.suggesting.cover import most_covering
from fewshot.images.suggesting.herding import smooth
from fewshot.images.suggesting.page import write_suggestions
from fewshot.images.suggesting.pool import Pool
from fewshot.images.suggesting.suggest import STRATEGIES


def model_of(**params):
    return FewShotModel(OwnEmbedder(lambda rows: np.stack(rows), "as they are"), **params)


def clusters(n_classes, n, seed=0, d=20, spread=0.5):
    """Items of `n_classes` classes, (n_classes * n, d), and their labels."""
    rng = np.random.default_rng(seed)
    middles = 5 * rng.standard_normal((n_classes, d))
    x = middles.repeat(n, 0) + spread * rng.standard_normal((n_classes * n, d))
    return x.astype(np.float32), np.arange(n_classes).repeat(n)


def pool_of(x, labelled=(), codes=(), seed=0):
    """A pool of unit vectors as they are, of which nothing is known."""
    x, n = torch.as_tensor(x, dtype=torch.float32), len(x)
    labelled = torch.as_tensor(np.reshape(labelled, (-1, x.shape[1])), dtype=torch.float32)
    return Pool(x, labelled, torch.as_tensor(codes), torch.zeros(n), torch.zeros(n), seed)


def rows_of(found):
    return [one.row for one in found]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_chooses_new_items_the_same_each_time(strategy):
    x, y = clusters(5, 30)
    learned = [*range(0, 150, 30), *range(1, 150, 30)]
    for model in (model_of(), model_of().fit(list(x[learned]), y[learned])):
        found = model.suggest(x, 12, strategy=strategy)
        assert len(set(rows_of(found))) == 12
        assert rows_of(found) == rows_of(model.suggest(x, 12, strategy=strategy))
        assert all(np.isfinite(one.score) and one.reason for one in found)
        if model.__sklearn_is_fitted__():
            assert not set(rows_of(found)) & set(learned)
            assert [one.label for one in found] == model.predict(x[rows_of(found)]).tolist()
        else:
            assert {one.label for one in found} == {None}
        assert sorted(rows_of(model.suggest(x, 1000, strategy=strategy))) == sorted(
            set(range(150)) - (set(learned) if model.__sklearn_is_fitted__() else set())
        )


@pytest.mark.parametrize("strategy", ["uncertainty-herding", "herding", "typiclust", "probcover"])
def test_each_cluster_comes_first(strategy):
    x, y = clusters(8, 25, seed=3)
    found = model_of().suggest(x, 8, strategy=strategy)
    assert sorted(y[rows_of(found)]) == list(range(8))
    assert [one.reason for one in found] == ["stands for 25 images"] * 8
    # Of five classes nothing is known yet, and the model is sure of what it does not know.
    learned = [row for row in range(200) if y[row] < 3 and row % 25 < 4]
    found = model_of().fit(list(x[learned]), y[learned]).suggest(x, 5, strategy=strategy)
    assert sorted(y[rows_of(found)]) == [3, 4, 5, 6, 7]


def test_then_come_the_doubtful():
    rng = np.random.default_rng(0)
    x, y = clusters(2, 40, seed=1)
    between = (x[:8] + x[40:48]) / 2 + 0.3 * rng.standard_normal((8, 20)).astype(np.float32)
    learned = [*range(6), *range(40, 46)]
    model = model_of().fit([*x[learned], *between[:2]], [*y[learned], 0, 1])
    pool = np.concatenate([x, between[2:]])
    assert model.suggest(pool, 3)[0].row >= 80
    assert set(rows_of(model.suggest(pool, 6, strategy="margin"))) == set(range(80, 86))
    noise = rng.standard_normal((30, 20)).astype(np.float32)
    reason = model_of().fit(list(noise[:10]), ["cat", "dog"] * 5).suggest(noise, 1, strategy="margin")[0].reason
    assert reason.startswith(("or cat, ", "or dog, "))
    assert " %; stands for " in reason


def test_copies_and_learned_items_are_left_out():
    x, y = clusters(3, 10)
    model = model_of().fit(list(x[:20]), y[:20])
    found = model.suggest(np.concatenate([x, x]), 100)
    assert sorted(rows_of(found)) == list(range(20, 30))
    assert model.suggest(x[:20], 5) == []
    assert model.suggest([], 5) == []
    assert sorted(rows_of(model.suggest(np.concatenate([0 * x[:3], x]), 100))) == list(range(23, 33))
    assert model_of().suggest(x[:1], 5)[0].reason == "stands for itself"


@pytest.mark.parametrize("learner", ["discriminant", "prototypical", "ridge", "k-nearest", "mahalanobis"])
def test_without_kept_support_the_class_means_are_covered(learner):
    x, y = clusters(6, 20, seed=2)
    learned = np.flatnonzero(y < 4)
    model = model_of(learner=learner, keep_support=False).fit(list(x[learned]), y[learned])
    assert sorted(y[rows_of(model.suggest(x, 2))]) == [4, 5]


def test_one_class_is_enough():
    x, y = clusters(3, 20)
    model = model_of().fit(list(x[:5]), y[:5])
    assert sorted(y[rows_of(model.suggest(x, 2))]) == [1, 2]


def test_what_cannot_be_read_is_left_out_with_a_warning():
    x, _ = clusters(2, 5)
    pool = [*x[:5], None, *x[5:]]
    with pytest.warns(UserWarning, match="could not be read"):
        found = model_of(on_error="skip").suggest(pool, 20)
    assert sorted(rows_of(found)) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    with pytest.raises(ImageDecodeError):
        model_of().suggest(pool, 20)


def test_mistakes():
    with pytest.raises(UnknownNameError, match="strategy"):
        model_of().suggest(np.eye(3), 2, strategy="best")
    for wrong in ({"k": 0}, {"k": 1.5}, {"seed": -1}):
        with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
            model_of().suggest(np.eye(3), **wrong)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(0, 3), st.integers(1, 5))
def test_the_greedy_choice_is_that_of_brute_force(seed, n, m, k):
    rng = np.random.default_rng(seed)
    x, labelled = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in rng.standard_normal((2, 12, 4)))
    pool, weight = pool_of(x[:n], labelled[:m], range(m)), torch.from_numpy(rng.random(n)).float()
    chosen, scores = most_covering(pool, min(k, n), smooth, weight)
    kernel = smooth(pool.x @ torch.cat([pool.labelled, pool.x]).T).double()
    value = lambda columns: float(weight.double() @ kernel[:, columns].amax(-1)) if columns else 0.0  # noqa: E731
    there = list(range(m))
    for row, score in zip(chosen, scores, strict=True):
        gains = [value([*there, m + i]) - value(there) for i in range(n)]
        assert gains[row] == pytest.approx(max(g for i, g in enumerate(gains) if m + i not in there), abs=1e-5)
        assert score == pytest.approx(gains[row] / float(weight.sum()), abs=1e-5)
        there.append(m + row)


def test_a_large_pool_is_covered_part_by_part(monkeypatch):
    monkeypatch.setattr(cover, "MOST", 40)
    x, y = clusters(4, 100, spread=0.2)
    found = model_of().suggest(x, 70)
    assert len(set(rows_of(found))) == 70
    assert set(y[rows_of(found)[:4]]) == {0, 1, 2, 3}


def test_the_page_shows_what_to_label(tmp_path):
    x, _ = clusters(2, 5)
    write_suggestions(tmp_path / "a" / "page.html", model_of().suggest(x, 2))
    assert "Label 2 images next" in (tmp_path / "a" / "page.html").read_text(encoding="utf-8")
    write_suggestions(tmp_path / "page.html", [])
    assert "Nothing to label" in (tmp_path / "page.html").read_text(encoding="utf-8")
