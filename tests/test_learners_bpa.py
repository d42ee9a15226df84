import numpy as np
import pytest
import torch

from fewshot import BPALearner, DiscriminantLearner


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def affinities(rows, regularization, rounds=3000):
    """Rows and columns scaled in turn, as in the paper, until nothing moves; then the largest is 1 and the diagonal."""
    n = len(rows)
    plan = np.array([[0.0 if i == j else np.exp(cosine(rows[i], rows[j]) / regularization) for j in range(n)]
                     for i in range(n)])  # fmt: skip
    for _ in range(rounds):
        plan = plan / plan.sum(1, keepdims=True)
        plan = plan / plan.sum(0, keepdims=True)
    plan = (plan + plan.T) / 2 / plan.max()
    for i in range(n):
        plan[i, i] = 1.0
    return plan


def oracle(support, labels, queries, n_way, regularization=0.1):
    found = affinities(np.concatenate([support, queries]), regularization)
    support, queries = found[: len(support)], found[len(support) :]
    logits = np.full((len(queries), n_way), -np.inf)
    for c in set(labels.tolist()):
        mean = support[labels == c].mean(0)
        logits[:, c] = [cosine(q, mean) / 0.05 for q in queries]
    return logits


def episode(seed, n_query, shots=(1, 4, 0, 2), d=5):
    """Uneven support in mixed order; one class is absent."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(shots)), shots))
    return rng.normal(size=(len(labels), d)), labels, rng.normal(size=(n_query, d))


def answer(learner, support, labels, queries, n_way=4, **more):
    return learner(*map(torch.from_numpy, (support, labels, queries)), n_way, **more).numpy()


@pytest.mark.parametrize("n_query", [1, 2, 12])
@pytest.mark.parametrize(("regularization", "within"), [(0.1, 0.01), (0.3, 1e-6), (1.0, 1e-6)])
def test_it_is_the_limit_of_the_papers_scaling(regularization, within, n_query):
    for seed in range(3):  # the sharper, the slower both come to their limit
        data = episode(seed, n_query)
        found = answer(BPALearner(regularization=regularization, n_iterations=1000), *data)
        np.testing.assert_allclose(found, oracle(*data, 4, regularization), rtol=within)


def test_thirty_rounds_are_near_the_limit():
    for seed in range(3):
        data = episode(seed, 20, shots=(5, 5, 5, 5), d=16)
        np.testing.assert_allclose(answer(BPALearner(), *data), oracle(*data, 4), atol=0.05)


def test_any_learner_may_follow():
    support, labels, queries = episode(1, 6, shots=(2, 2, 2))
    found = affinities(np.concatenate([support, queries]), 0.1)
    expected = answer(DiscriminantLearner(), found[:6], labels, found[6:], 3)
    got = answer(BPALearner("discriminant", n_iterations=200), support, labels, queries, 3)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_the_order_of_queries_does_not_matter():
    support, labels, queries = episode(3, 9)
    order, whole = np.random.default_rng(0).permutation(9), answer(BPALearner(), support, labels, queries)
    np.testing.assert_allclose(answer(BPALearner(), support, labels, queries[order]), whole[order], rtol=1e-9)


def test_it_is_rebuilt_from_its_parameters():
    learner = BPALearner("pt-map", 0.2, 7)
    assert learner.arguments() == {"learner": "pt-map", "regularization": 0.2, "n_iterations": 7}
    assert not learner.is_like(BPALearner("bd-cspn", 0.2, 7))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="no learner is called 'simpelshot'; did you mean 'simpleshot'"):
        BPALearner("simpelshot")
    with pytest.raises(ValueError, match="'relation' has weights that have to be trained; choose a learner without"):
        BPALearner("relation")
    with pytest.raises(ValueError, match="'dn4' compares the places of images, of which affinities know nothing"):
        BPALearner("dn4")
    with pytest.raises(ValueError, match="regularization is 0; expected a number above 0"):
        BPALearner(regularization=0)
