import numpy as np
import pytest
import torch

from fewshot import AlphaTIMLearner
from fewshot.benchmark.grid_file import LearnerSpec
from fewshot.benchmark.references import iterates


def unit(rows):
    return np.array([x / np.sqrt(sum(x * x)) for x in rows])


def entropy(p, alpha):
    return -sum(p * np.log(p)) if alpha == 1 else (1 - sum(p**alpha)) / (alpha - 1)


def loss(prototypes, support, labels, weight, queries, alpha, sharpness):
    """The loss as the paper writes it, by loops; prototypes are a row a class."""

    def probabilities(x):
        scores = np.array([-sharpness / 2 * sum((x - p) ** 2) for p in prototypes])
        e = np.exp(scores - scores.max())
        return e / e.sum()

    fitted = sum(-w * np.log(probabilities(x)[y]) for x, y, w in zip(support, labels, weight, strict=True))
    p = [probabilities(x) for x in queries]
    return fitted / sum(weight) - entropy(sum(p) / len(p), alpha) + np.mean([entropy(one, alpha) for one in p])


def oracle(support, labels, weight, queries, n_way, alpha, sharpness, n_iterations, rate):
    """Logits after heavy-ball steps along numerical derivatives of the loss, divided by the sharpness."""
    present = [c for c in range(n_way) if c in labels]
    support, queries = unit(support), unit(queries)
    places = np.array([present.index(y) for y in labels])
    own = [places == c for c in range(len(present))]
    prototypes = np.array([np.average(support[rows], axis=0, weights=weight[rows]) for rows in own])
    step = np.zeros_like(prototypes)
    for _ in range(n_iterations):
        slope = np.zeros_like(prototypes)
        for i in np.ndindex(prototypes.shape):
            both = []
            for sign in (1, -1):
                moved = prototypes.copy()
                moved[i] += sign * 1e-5
                both.append(loss(moved, support, places, weight, queries, alpha, sharpness))
            slope[i] = (both[0] - both[1]) / 2e-5
        step = 0.9 * step - rate * slope / sharpness
        prototypes = prototypes + step
    logits = np.full((len(queries), n_way), -np.inf)
    logits[:, present] = [[-sharpness / 2 * sum((q - p) ** 2) for p in prototypes] for q in queries]
    return logits


def episode(seed, n_query, shots=(1, 4, 0, 2), d=5):
    """Uneven support in mixed order with sample weights; one class is absent."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(shots)), shots))
    return rng.normal(size=(len(labels), d)), labels, rng.uniform(0.2, 3, len(labels)), rng.normal(size=(n_query, d))


def answer(learner, support, labels, weight, queries, n_way=4):
    support, labels, weight, queries = map(torch.from_numpy, (support, labels, weight, queries))
    return learner(support, labels, queries, n_way, weight).numpy()


@pytest.mark.parametrize("n_query", [1, 7])
@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 7.0])
def test_it_descends_its_loss(alpha, n_query):
    data, parameters = episode(n_query, n_query), (alpha, 4.0, 6, 0.5)
    np.testing.assert_allclose(answer(AlphaTIMLearner(*parameters), *data), oracle(*data, 4, *parameters), rtol=1e-5)


def test_without_steps_it_is_half_the_squared_distance():
    data = episode(0, 4)
    np.testing.assert_allclose(
        answer(AlphaTIMLearner(n_iterations=0), *data), oracle(*data, 4, 2.0, 15.0, 0, 0.5), rtol=1e-9
    )


def test_the_loss_has_gone_down_at_the_end():
    support, labels, weight, queries = episode(4, 12, shots=(2, 2, 2))
    measured = []
    for n in (0, 30, 200):
        found = answer(AlphaTIMLearner(n_iterations=n), support, labels, weight, queries, 3)
        p = np.exp(found - found.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        measured.append(np.mean([entropy(one, 2.0) for one in p]) - entropy(p.mean(0), 2.0))
    assert measured[0] > measured[1] > measured[2] - 0.01


def test_the_order_of_queries_does_not_matter():
    data = episode(3, 9)
    order = np.random.default_rng(0).permutation(9)
    whole = answer(AlphaTIMLearner(), *data)
    np.testing.assert_allclose(answer(AlphaTIMLearner(), *data[:3], data[3][order]), whole[order], rtol=1e-6)


def test_tables_mark_it_as_iterating():
    assert iterates(LearnerSpec("alpha-tim"))
    assert not iterates(LearnerSpec("paddle"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("alpha", 0.5, "expected a number of at least 1"),
        ("sharpness", 0, "expected a number above 0"),
        ("rate", -1, "expected a number above 0"),
        ("n_iterations", -1, "expected a whole number of at least 0"),
    ],
)
def test_bad_numbers_are_named(name, value, said):
    with pytest.raises(ValueError, match=f"{name} is {value}; {said}"):
        AlphaTIMLearner(**{name: value})
