import numpy as np
import pytest
import torch

from fewshot import LaplacianShotLearner
from fewshot.learners import laplacian_shot


def unit(x):
    return x / np.sqrt(sum(x * x))


def softmax(values):
    e = np.exp(values - np.max(values))
    return e / sum(e)


def oracle(
    support, labels, weight, queries, n_way, smoothness, n_neighbors, n_iterations, sharpness, temperature, shift
):
    """Logits by loops, with the steps of the paper: prototypes, neighbours, and bound updates one after another."""
    present = [c for c in range(n_way) if c in labels]
    support, queries = [unit(x) for x in support], [unit(q) for q in queries]
    members = {c: [(w, x) for w, x, own in zip(weight, support, labels, strict=True) if own == c] for c in present}
    prototype = {c: sum(w * x for w, x in members[c]) / sum(w for w, _ in members[c]) for c in present}
    given = queries
    if sharpness is not None:
        middle = sum(w * x for w, x in zip(weight, support, strict=True)) / sum(weight)
        queries = [q - sum(queries) / len(queries) + middle for q in queries] if shift else queries
        for q in queries:
            nearest = max(present, key=lambda c: unit(q) @ unit(prototype[c]))
            members[nearest].append((1.0, q))
        counts = {c: [w * np.exp(sharpness * unit(x) @ unit(prototype[c])) for w, x in members[c]] for c in present}
        prototype = {
            c: sum(k * x for k, (_, x) in zip(counts[c], members[c], strict=True)) / sum(counts[c]) for c in present
        }
    queries = given if shift == "prototypes" else queries
    others = [[j for j in range(len(queries)) if j != i] for i in range(len(queries))]
    k = min(n_neighbors, len(queries) // (4 * n_way))
    near = [sorted(others[i], key=lambda j: sum((queries[i] - queries[j]) ** 2))[:k] for i in range(len(queries))]
    unary = [np.array([-sum((q - prototype[c]) ** 2) for c in present]) for q in queries]
    scores = unary
    for _ in range(n_iterations):
        y = [softmax(s) for s in scores]
        scores = [unary[i] + smoothness * sum(y[j] for j in near[i]) for i in range(len(queries))]
    logits = np.full((len(queries), n_way), -np.inf)
    logits[:, present] = np.array(scores) / temperature
    return logits


def episode(seed, n_query, shots=(1, 4, 0, 2), d=4):
    """Uneven support in mixed order with sample weights; one class is absent."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(shots)), shots))
    support, queries = rng.normal(size=(len(labels), d)), rng.normal(size=(n_query, d)) + 1
    return support, labels, rng.uniform(0.2, 3, len(labels)), queries


def answer(learner, support, labels, weight, queries, n_way=4):
    support, labels, weight, queries = map(torch.from_numpy, (support, labels, weight, queries))
    return learner(support, labels, queries, n_way, weight).numpy()


@pytest.mark.parametrize("shift", [False, True, "prototypes"])
@pytest.mark.parametrize("n_query", [1, 16, 50])
@pytest.mark.parametrize("sharpness", [None, 1.0, 10.0])
@pytest.mark.parametrize(("smoothness", "n_neighbors", "n_iterations"), [(0.7, 3, 20), (2.0, 1, 3), (0.7, 3, 0)])
def test_it_is_its_formula(smoothness, n_neighbors, n_iterations, sharpness, n_query, shift):
    data, parameters = episode(n_query, n_query), (smoothness, n_neighbors, n_iterations, sharpness, 0.6, shift)
    np.testing.assert_allclose(
        answer(LaplacianShotLearner(*parameters), *data), oracle(*data, 4, *parameters), rtol=1e-9
    )


def test_few_queries_have_no_neighbours_and_more_have_one_for_four_of_each_class():
    for n_query, k in ((15, 0), (16, 1), (63, 3)):
        data = episode(0, n_query)
        found, expected = (answer(LaplacianShotLearner(n_neighbors=wanted), *data) for wanted in (100, k))
        np.testing.assert_array_equal(found, expected)
        assert np.allclose(found, answer(LaplacianShotLearner(n_neighbors=0), *data)) == (k == 0)


@pytest.mark.parametrize("parameters", [{"n_neighbors": 0}, {"smoothness": 0}, {"n_iterations": 0}])
def test_without_neighbours_it_is_the_squared_distance(parameters):
    support, labels, weight, queries = episode(1, 6, shots=(1, 1, 1))
    found = answer(LaplacianShotLearner(sharpness=None, **parameters), support, labels, weight, queries, 3)
    expected = [[-sum((unit(q) - unit(support[labels == c][0])) ** 2) for c in range(3)] for q in queries]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_neighbours_found_in_chunks_are_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    support, queries = torch.from_numpy(rng.normal(size=(2, 6, 4))), torch.from_numpy(rng.normal(size=(2, 40, 4)))
    labels, sizes, largest = torch.arange(6).expand(2, 6) % 3, [], laplacian_shot.largest
    whole = LaplacianShotLearner()(support, labels, queries, 3)
    monkeypatch.setattr(laplacian_shot, "largest", lambda x, k: sizes.append(x.shape[-2]) or largest(x, k))
    monkeypatch.setattr(laplacian_shot, "CHUNK", 2 * 40 * 12)
    np.testing.assert_allclose(LaplacianShotLearner()(support, labels, queries, 3), whole, rtol=1e-12)
    assert sizes == [12, 12, 12, 4]


@pytest.mark.parametrize("name", ["n_neighbors", "n_iterations"])
@pytest.mark.parametrize("value", [-1, 2.0, "3"])
def test_bad_counts_are_named(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value!r}; expected a whole number of at least 0"):
        LaplacianShotLearner(**{name: value})


@pytest.mark.parametrize("name", ["smoothness", "sharpness"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1"])
def test_bad_numbers_are_named(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value!r}; expected a number of at least 0"):
        LaplacianShotLearner(**{name: value})
