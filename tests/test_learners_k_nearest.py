"""The k nearest neighbours, one query and one neighbour at a time."""

import numpy as np
import pytest
import torch

from fewshot import KNearestClassifier, KNearestLearner
from tests.test_contract import episode


def similarity_of(query, x, metric):
    if metric == "sqeuclidean":
        return -((query - x) ** 2).sum()
    return (query * x).sum() / (np.sqrt((query**2).sum() * (x**2).sum()) if metric == "cosine" else 1.0)


def oracle(support, labels, weight, queries, n_way, k, metric, temperature):
    logits = np.full((len(queries), n_way), -np.inf)
    for q, query in enumerate(queries):
        similarity = np.array([similarity_of(query, x, metric) for x in support])
        votes, left, waiting = np.zeros(n_way), float(k), [i for i in range(len(support)) if weight[i] > 0]
        while left > 0 and waiting:
            best = max(similarity[i] for i in waiting)
            equal = [i for i in waiting if abs(similarity[i] - best) < 1e-9]
            total = sum(weight[i] for i in equal)
            for i in equal:
                votes[labels[i]] += weight[i] * min(1.0, left / total) * np.exp(best / temperature)
                waiting.remove(i)
            left -= min(total, left)
        with np.errstate(divide="ignore"):
            logits[q] = np.log(votes)
    return logits


def check(learner, support, labels, weight, queries, n_way):
    got = learner(*map(torch.from_numpy, (support, labels, queries)), n_way, torch.from_numpy(weight)).numpy()
    k, metric, temperature = learner.n_neighbors, learner.metric, learner.temperature.item()
    expected = oracle(support, labels, weight, queries, n_way, k, metric, temperature)
    np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))
    np.testing.assert_allclose(got, expected, rtol=1e-8)


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean", "dot"])
@pytest.mark.parametrize("k", [1, 3, 5, 11, 40])
@pytest.mark.parametrize("weights", ["one", "fractions", "some are zero"])
@pytest.mark.parametrize("shots", [(1, 3, 2, 5), (9, 30, 2, 5)])
def test_it_is_its_formula(metric, k, weights, shots):
    support, labels, queries = (t.numpy() for t in episode(shots=shots))
    rng = np.random.default_rng(1)
    weight = np.ones(len(labels)) if weights == "one" else rng.uniform(0.1, 2.5, len(labels))
    if weights == "some are zero":
        weight[rng.permutation(len(labels))[: len(labels) // 2]] = 0
    check(KNearestLearner(k, metric, 0.7), support, labels, weight, queries, 4)


def test_all_of_a_small_support_votes_however_large_k():
    support, labels, queries = episode()
    many, all_of_them = (KNearestLearner(k)(support, labels, queries, 4) for k in (1000, len(labels)))
    assert torch.equal(many, all_of_them)
    assert torch.isfinite(many).all()


def test_a_weight_of_two_is_two_neighbours():
    x, y = torch.tensor([[0.0], [1.0], [2.0]]).double(), torch.tensor([0, 1, 1])
    learner = KNearestLearner(2, "sqeuclidean", 1e9)
    one, two = (learner(x, y, x[:1], 2, torch.tensor([w, 1.0, 1.0]).double()).softmax(-1) for w in (1.0, 2.0))
    assert one.tolist() == [pytest.approx([0.5, 0.5])]
    assert two.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("k", [3, 5, 7, 14, 20])
def test_a_weight_of_k_leaves_nothing_to_others(k):
    x, weight = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([float(k), 1.0]).double()
    logits = KNearestLearner(k, "sqeuclidean")(x, torch.tensor([0, 1]), x[:1], 2, weight)
    assert logits[0, 1] == -torch.inf


def test_equal_rows_share_what_is_left():
    x = np.array([[0.0], [3.0], [3.0], [3.0], [8.0]])
    labels, weight = np.array([0, 1, 2, 2, 1]), np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    check(KNearestLearner(2, "sqeuclidean", 10.0), x, labels, weight, np.array([[0.5], [3.0], [9.0]]), 3)


@pytest.mark.parametrize("offset", [0.0, 0.3, 50.0])
def test_rows_on_either_side_that_are_equally_far_share_what_is_left(offset):
    x = torch.tensor([[-1.0], [1.0], [5.0]]).double() + offset
    proba = KNearestLearner(1, "sqeuclidean", 1.0)(x, torch.arange(3), x[:1] + 1, 3).softmax(-1)
    torch.testing.assert_close(proba[0], torch.tensor([0.5, 0.5, 0.0]).double())


def test_one_image_under_two_labels_is_answered_half_and_half():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(37, 19))
    x, labels = torch.from_numpy(np.concatenate([x, x[:1]])), torch.arange(38)
    queries = x[:1] + 0.1 * torch.from_numpy(rng.normal(size=(53, 19)))
    proba = KNearestLearner(1, "sqeuclidean", 1.0)(x, labels, queries, 38).softmax(-1)
    torch.testing.assert_close(proba[:, [0, 37]], torch.full((53, 2), 0.5).double())


def test_a_class_that_is_not_near_has_no_probability_and_a_finite_loss():
    x, y = torch.tensor([[0.0], [1.0], [9.0]]).double(), torch.tensor([0, 0, 1])
    learner = KNearestLearner(2, "sqeuclidean")
    logits = learner(x, y, x[:2], 3)
    assert logits.softmax(-1).tolist() == [[1.0, 0.0, 0.0]] * 2
    expected = -(np.log(0.99 + 0.01 / 3) + np.log(0.01 / 3)) / 2
    assert learner.loss(logits, torch.tensor([0, 1])).item() == pytest.approx(expected)


def test_an_index_gives_the_same_votes():
    support, labels, queries = (t.numpy() for t in episode(shots=(90, 80, 5, 100), n_query=30))
    exact, faiss = (KNearestClassifier(7, index=index).fit(support, labels) for index in ("exact", "faiss"))
    np.testing.assert_allclose(faiss.predict_proba(queries), exact.predict_proba(queries), rtol=1e-5)


@pytest.mark.parametrize("k", [0, -1, 2.5, "3"])
def test_a_bad_number_of_neighbours_is_named(k):
    with pytest.raises(ValueError, match=f"n_neighbors is {k!r}; expected a whole number of at least 1"):
        KNearestLearner(k)
