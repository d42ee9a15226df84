"""Discriminant analysis: what it promises of uneven, small, large and degenerate support."""

import time
from itertools import pairwise

import numpy as np
import pytest
import torch

from fewshot import (
    CosinePrototypicalLearner,
    DiscriminantClassifier,
    DiscriminantLearner,
    FewShotClassifier,
    FewShotImageClassifier,
    digits,
    evaluate,
    glyphs,
)
from fewshot.learners.registry import learner_class
from tests.photographs import quick_embedder


def pixels(data):
    return np.asarray(data.images).reshape(len(data), -1).astype(np.float32) / 255


def balanced(model, x, y):
    found = model.predict(x)
    return np.mean([(found[y == c] == c).mean() for c in np.unique(y)])


def test_it_is_registered_and_described():
    assert learner_class("discriminant") is DiscriminantLearner
    assert DiscriminantLearner().description == "discriminant, dot, temperature 0.05"
    assert repr(DiscriminantClassifier(power=1.0)) == "DiscriminantClassifier(power=1.0)"


@pytest.mark.parametrize("n_shot", [1, 5, 20])
def test_on_raw_pixels_it_is_about_as_good_as_cosine_prototypes_and_better_with_many_shots(n_shot):
    data = digits()
    x = pixels(data)
    results = [
        evaluate(learner, x, data.labels, n_way=10, n_shot=n_shot, n_query=15, n_episodes=100, seed=0)
        for learner in (DiscriminantLearner(), CosinePrototypicalLearner())
    ]
    assert results[0].mean > results[1].mean + (0.01 if n_shot == 20 else -0.015)


def test_twenty_images_to_one_cost_little():
    data = glyphs("val", seed=0)
    x, rng, change = pixels(data), np.random.default_rng(0), []
    classes = np.array([c for c in np.unique(data.labels) if (data.labels == c).sum() >= 16])
    for _ in range(8):
        chosen = rng.choice(classes, 12, replace=False)
        rows = {c: rng.permutation(np.flatnonzero(data.labels == c)) for c in chosen}
        queries = np.concatenate([r[12:] for r in rows.values()])
        even = np.concatenate([r[:1] for r in rows.values()])
        uneven = np.concatenate([even, rows[chosen[0]][1:12]])
        found = [
            balanced(DiscriminantClassifier().fit(x[s], data.labels[s]), x[queries], data.labels[queries])
            for s in (even, uneven)
        ]
        change.append(found[1] - found[0])
    assert np.mean(change) > -0.03


@pytest.mark.parametrize("x", [np.zeros((4, 3)), np.ones((4, 3)), np.eye(4)], ids=["zero", "equal", "distinct"])
def test_degenerate_support_is_answered(x):
    for y in (["a", "a", "b", "b"], ["a", "b", "c", "d"], ["a"] * 4):
        model = DiscriminantClassifier().fit(x, y)
        proba = model.predict_proba(np.vstack([x, 2 * x + 1]))
        assert np.isfinite(proba).all()
        assert set(model.predict(x)) <= set(y)


def test_a_single_class_is_answered_by_its_cosine():
    model = DiscriminantClassifier(power=1.0, regularization=1e6).fit([[1.0, 0.0], [1.0, 0.0]], ["a", "a"])
    _, near = model.nearest([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert near[0, 0] > 0
    assert near[1:, 0].tolist() == pytest.approx([0, -near[0, 0]], abs=1e-3)


def test_a_strong_regularization_is_the_cosine_with_centred_prototypes():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 20)), np.arange(3)  # more images would add the cosine with the prototypes themselves
    queries = torch.from_numpy(rng.normal(size=(5, 20)))
    found = DiscriminantLearner(1.0, 1e9)(torch.from_numpy(x), torch.from_numpy(y), queries, 3)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    means = np.stack([unit[y == c].mean(0) for c in range(3)])
    means -= means.mean(0)
    q = queries.numpy() / np.linalg.norm(queries.numpy(), axis=1, keepdims=True)
    expected = q @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    assert found.numpy().argmax(1).tolist() == expected.argmax(1).tolist()
    ratio = found.numpy() / expected
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)


def test_support_as_large_as_the_dimension_does_not_collapse():
    rng = np.random.default_rng(0)
    d, n_way = 64, 8
    centres = rng.gamma(1, size=(n_way, d))
    y = np.tile(np.arange(n_way), 30)
    x = np.maximum(centres[y] + rng.normal(size=(len(y), d)), 0)
    test = np.tile(np.arange(n_way), 50)
    queries = np.maximum(centres[test] + rng.normal(size=(len(test), d)), 0)
    accuracy = [DiscriminantClassifier().fit(x[:n], y[:n]).score(queries, test) for n in (16, 32, 64, 128, 240)]
    assert all(later > earlier - 0.02 for earlier, later in pairwise(accuracy)), accuracy


def test_probabilities_are_honest_right_after_fit():
    data = digits()
    x, y = pixels(data), data.labels
    errors = {}
    for name in ("discriminant", "cosine-prototypical"):
        gaps = []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            support = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:10] for c in range(10)])
            queries = np.setdiff1d(np.arange(len(y)), support)[::3]
            model = FewShotClassifier(name).fit(x[support], y[support])
            proba = model.predict_proba(x[queries])
            gaps.append(proba.max(1).mean() - (proba.argmax(1) == y[queries]).mean())
        errors[name] = abs(np.mean(gaps))
    assert errors["discriminant"] < min(0.05, errors["cosine-prototypical"] / 2), errors


def test_an_index_finds_the_same_answers():
    rng = np.random.default_rng(0)
    x, y = rng.random((400, 24)), np.repeat(np.arange(100), 4)
    exact, fast = (DiscriminantClassifier(index=kind).fit(x, y) for kind in ("exact", "faiss"))
    queries = rng.random((50, 24))
    np.testing.assert_array_equal(exact.predict(queries), fast.predict(queries))
    for one, other in zip(exact.nearest(queries, 5), fast.nearest(queries, 5), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_two_thousand_rows_of_a_thousand_classes_take_seconds():
    rng = np.random.default_rng(0)
    x, y = rng.random((2000, 256)).astype(np.float32), np.repeat(np.arange(1000), 2)
    start = time.perf_counter()
    model = DiscriminantClassifier().fit(x, y)
    assert time.perf_counter() - start < 30  # 1 s alone
    assert model.score(x, y) > 0.9


def test_chunks_in_any_order_equal_one_fit_also_where_only_some_rows_teach_the_metric():
    rng = np.random.default_rng(0)
    x, y = rng.random((5000, 8)), rng.integers(0, 5, 5000)
    whole, chunks = DiscriminantClassifier().fit(x, y), np.array_split(rng.permutation(5000), 3)
    grown = DiscriminantClassifier().fit(x[chunks[0]], y[chunks[0]])
    grown.partial_fit(x[chunks[1]], y[chunks[1]]).merge(DiscriminantClassifier().fit(x[chunks[2]], y[chunks[2]]))
    extra = rng.random((300, 8))
    grown.partial_fit(extra, np.zeros(300, int)).remove(extra, np.zeros(300, int))
    np.testing.assert_allclose(grown.decision_function(x[:50]), whole.decision_function(x[:50]), rtol=1e-9, atol=1e-9)


def test_a_sample_of_the_classes_costs_no_accuracy(monkeypatch):
    data = glyphs()
    x, y = pixels(data), np.unique(data.labels, return_inverse=True)[1]
    rng = np.random.default_rng(0)
    order = [rng.permutation(np.flatnonzero(y == c)) for c in range(200)]
    support, queries = (np.concatenate([rows[part] for rows in order]) for part in (slice(3), slice(3, 9)))
    whole = DiscriminantClassifier().fit(x[support], y[support])
    monkeypatch.setattr("fewshot.utils.discriminant.MOST_CLASSES", 50)
    sampled = DiscriminantClassifier().fit(x[support], y[support])
    assert not np.array_equal(*(model.model_.memory.keys.numpy() for model in (sampled, whole)))
    found, expected = (model.score(x[queries], y[queries]) for model in (sampled, whole))
    assert found > expected - 0.02 > 0.05


@pytest.mark.parametrize("bad", [{"power": 0}, {"power": 1.5}, {"power": "x"}, {"regularization": 0}])
def test_bad_parameters_are_named(bad):
    name = next(iter(bad))
    with pytest.raises(ValueError, match=f"{name} is"):
        DiscriminantLearner(**bad)
    with pytest.raises(ValueError, match=f"{name} is"):
        DiscriminantClassifier(**bad).fit([[1.0], [2.0]], [0, 1])


def test_a_saved_model_answers_alike_and_keeps_learning(tmp_path):
    data = digits()
    model = FewShotImageClassifier(quick_embedder()).fit(data.images[:30], data.labels[:30])
    assert isinstance(model.learner_, DiscriminantLearner)
    model.save(tmp_path / "m")
    again = FewShotImageClassifier.load(tmp_path / "m")
    for one in (model, again):
        one.partial_fit(data.images[30:40], data.labels[30:40])
    np.testing.assert_allclose(
        again.predict_proba(data.images[50:80]), model.predict_proba(data.images[50:80]), atol=1e-9
    )
