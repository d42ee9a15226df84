import numpy as np
import pytest
import torch

from fewshot import PrototypicalLearner, SoftKMeansLearner


def similarity(a, b, metric):
    if metric == "sqeuclidean":
        return -sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot if metric == "dot" else dot / np.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def oracle(support, labels, weight, queries, n_way, metric, temperature, n_iterations):
    """Logits by loops: the means of the classes that are there, moved by the queries that look like them."""
    present = [c for c in range(n_way) if c in labels]
    count = {c: sum(weight[labels == c]) for c in present}
    total = {c: sum(w * x for w, x in zip(weight[labels == c], support[labels == c], strict=True)) for c in present}
    prototype = {c: total[c] / count[c] for c in present}
    for _ in range(n_iterations):
        belongs = []
        for q in queries:
            e = {c: np.exp(similarity(q, prototype[c], metric) / temperature) for c in present}
            belongs.append({c: e[c] / sum(e.values()) for c in present})
        for c in present:
            numerator, denominator = total[c].copy(), count[c]
            for q, z in zip(queries, belongs, strict=True):
                numerator, denominator = numerator + z[c] * q, denominator + z[c]
            prototype[c] = numerator / denominator
    logits = np.full((len(queries), n_way), -np.inf)
    for i, q in enumerate(queries):
        for c in present:
            logits[i, c] = similarity(q, prototype[c], metric) / temperature
    return logits


def episode(seed, n_query, shots=(1, 4, 0, 2), d=3):
    """Uneven support in mixed order with sample weights; one class is absent."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(shots)), shots))
    support, queries = rng.normal(size=(len(labels), d)), rng.normal(size=(n_query, d))
    return support, labels, rng.uniform(0.2, 3, len(labels)), queries


def answer(learner, support, labels, weight, queries, n_way):
    support, labels, weight, queries = map(torch.from_numpy, (support, labels, weight, queries))
    return learner(support, labels, queries, n_way, weight).numpy()


@pytest.mark.parametrize("n_query", [1, 2, 9])
@pytest.mark.parametrize("n_iterations", [0, 1, 4])
@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine", "dot"])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_its_formula(seed, metric, n_iterations, n_query):
    data = episode(seed, n_query)
    got = answer(SoftKMeansLearner(metric, 0.7, n_iterations=n_iterations), *data, 4)
    np.testing.assert_allclose(got, oracle(*data, 4, metric, 0.7, n_iterations), rtol=1e-9)


def test_without_an_iteration_it_is_the_nearest_prototype():
    data = episode(0, 6)
    found, expected = answer(SoftKMeansLearner(n_iterations=0), *data, 4), answer(PrototypicalLearner(), *data, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_queries_show_where_a_class_is_that_one_image_misplaces():
    """The support of the left class lies near the right cluster; only together do the queries tell."""
    rng = np.random.default_rng(0)
    centres, y = np.array([[-3.0, 0.0], [3.0, 0.0]]), np.repeat([0, 1], 30)
    support, queries = np.array([[0.5, 0.0], [3.5, 0.0]]), centres[y] + rng.normal(size=(60, 2))
    data = support, np.arange(2), np.ones(2), queries
    accuracy = [np.mean(answer(SoftKMeansLearner(n_iterations=n), *data, 2).argmax(1) == y) for n in (0, 1)]
    assert accuracy[0] < accuracy[1]
    assert accuracy[1] == 1.0


def test_a_temperature_can_be_learned():
    learner = SoftKMeansLearner(learn_temperature=True)
    support, labels, weight, queries = map(torch.from_numpy, episode(1, 5))
    learner.loss(learner(support, labels, queries, 4, weight), torch.tensor([0, 1, 3, 1, 0])).backward()
    assert learner.log_temperature.grad.abs() > 0


@pytest.mark.parametrize("n_iterations", [-1, 1.5, "2", None])
def test_bad_numbers_of_iterations_are_named(n_iterations):
    with pytest.raises(ValueError, match=rf"n_iterations is {n_iterations!r}; expected a whole number of at least 0"):
        SoftKMeansLearner(n_iterations=n_iterations)
