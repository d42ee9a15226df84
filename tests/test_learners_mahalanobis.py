"""The Mahalanobis distance with every covariance written out and inverted."""

import numpy as np
import pytest
import torch

from fewshot import MahalanobisClassifier, MahalanobisLearner, PrototypicalLearner
from tests.test_contract import episode


def covariance(rows, weight):
    mean = sum(w * x for x, w in zip(rows, weight, strict=True)) / sum(weight)
    spread = np.zeros((rows.shape[1], rows.shape[1]))
    for x, w in zip(rows, weight, strict=True):
        spread += w * np.outer(x - mean, x - mean)
    return mean, spread / sum(weight)


def oracle(support, labels, weight, queries, n_way, regularization, temperature):
    _, of_all = covariance(support, weight)
    logits = np.full((len(queries), n_way), -np.inf)
    for c in range(n_way):
        n = weight[labels == c].sum()
        if n == 0:
            continue
        mean, own = covariance(support[labels == c], weight[labels == c])
        s = n / (n + 1)
        inverse = np.linalg.inv(s * own + (1 - s) * of_all + regularization * np.eye(support.shape[1]))
        for q, query in enumerate(queries):
            logits[q, c] = -(query - mean) @ inverse @ (query - mean) / (2 * temperature)
    return logits


@pytest.mark.parametrize("d", [1, 3, 11, 12, 40])
@pytest.mark.parametrize("shots", [(1, 3, 2, 5), (2, 0, 8, 2), (1, 1, 1, 1), (20, 2, 2, 9)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("regularization", [1.0, 0.02])
def test_it_is_its_formula(d, shots, weighted, regularization):
    support, labels, queries = episode(shots=shots, d=d)
    weight = np.random.default_rng(1).uniform(0.1, 3, len(labels)) if weighted else np.ones(len(labels))
    weight[:2] = weight[2]  # some classes weigh the same, others do not
    learner = MahalanobisLearner(regularization, 0.7)
    got = learner(support, labels, queries, 4, torch.from_numpy(weight))
    expected = oracle(support.numpy(), labels.numpy(), weight, queries.numpy(), 4, regularization, 0.7)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-8)


def test_episodes_of_uneven_and_different_shots_are_answered_together():
    rng = np.random.default_rng(0)
    support, queries = rng.normal(size=(3, 9, 5)), rng.normal(size=(3, 4, 5))
    labels, weight = rng.integers(0, 3, (3, 9)), rng.integers(0, 3, (3, 9)).astype(float)
    got = MahalanobisLearner()(*map(torch.from_numpy, (support, labels, queries)), 3, torch.from_numpy(weight))
    for b in range(3):
        real = weight[b] > 0
        expected = oracle(support[b][real], labels[b][real], weight[b][real], queries[b], 3, 1.0, 1.0)
        np.testing.assert_allclose(got[b].numpy(), expected, rtol=1e-9)


def test_much_regularization_is_the_euclidean_distance():
    support, labels, queries = episode()
    got = MahalanobisLearner(1e6, 0.5e-6)(support, labels, queries, 4)
    torch.testing.assert_close(got, PrototypicalLearner()(support, labels, queries, 4), rtol=1e-4, atol=1e-4)


def test_no_matrix_a_class_is_kept():
    support, labels, _ = episode(n_way=20, shots=(1,) * 20, d=100)
    learner = MahalanobisLearner()
    memory = learner.memorize(learner.learn(support, labels, 20))
    assert sum(tensor.numel() for tensor in (memory.keys, *memory.extras.values())) < 20 * 100 * 100 / 20


@pytest.mark.parametrize("n", [3, 30])
def test_single_precision_answers_alike_also_for_the_range_of_pixels(n):
    rng = np.random.default_rng(0)
    centres, y = rng.uniform(50, 200, (5, 64)), np.repeat(np.arange(5), n)
    x = (centres[y] + rng.normal(0, 100, (5 * n, 64))).astype(np.float32)
    queries = (centres.repeat(40, 0) + rng.normal(0, 100, (200, 64))).astype(np.float32)
    model = MahalanobisClassifier(0.1).fit(x, y)
    assert np.mean(model.predict(queries) == model.predict(queries.astype(np.float64))) > 0.99


def test_queries_of_another_length_are_refused():
    support, labels, queries = episode()
    learner = MahalanobisLearner()
    memory = learner.memorize(learner.learn(support, labels, 4))
    with pytest.raises(ValueError, match="queries have 1 dimensions and keys 8"):
        learner.answer(memory, queries[:, :1])


def test_bad_parameters_are_named_and_there_are_no_nearest_keys():
    for bad in (0, 1e-10, float("inf"), float("nan"), "1"):
        with pytest.raises(ValueError, match=f"regularization is {bad!r}; expected a number of at least 1e-09"):
            MahalanobisLearner(bad)
    with pytest.raises(ValueError, match="temperature is 0; it divides"):
        MahalanobisLearner(temperature=0)
    model = MahalanobisClassifier().fit([[0.0], [1.0]], [0, 1])
    assert not hasattr(model, "nearest")
