import numpy as np
import pytest
import torch

from fewshot import OSLOLearner
from fewshot.classifiers.rejection import area_under_roc
from fewshot.learners.oslo import DEVIATIONS, MOST_OF_QUERIES, MOST_WEIGHT, STRENGTH


def root(x):
    """The signed root of a row, of unit length."""
    x = np.sign(x) * np.sqrt(np.abs(x))
    return x / np.linalg.norm(x)


def oracle(support, labels, weight, queries, n_way, threshold, n_iterations):
    """Logits by loops over queries and classes, with T written out."""
    x, q = np.array([root(row) for row in support]), np.array([root(row) for row in queries])
    centre = (weight @ x + q.sum(0)) / (weight.sum() + len(q))
    x, q, present = x - centre, q - centre, [c for c in range(n_way) if c in labels]
    moment = STRENGTH * np.eye(x.shape[1])
    for row, w in zip(x, weight, strict=True):
        moment += min(w, MOST_WEIGHT) * np.outer(row, row)
    for row in q:
        moment += min(1, MOST_OF_QUERIES / len(q)) * np.outer(row, row)
    inverse = np.linalg.inv(moment)

    def cosine(a, b):
        return a @ inverse @ b / np.sqrt((a @ inverse @ a) * (b @ inverse @ b))

    count = {c: weight[labels == c].sum() for c in present}
    total = {c: weight[labels == c] @ x[labels == c] for c in present}
    prototype = {c: total[c] / count[c] for c in present}
    for i in range(n_iterations + 1):
        found = np.array([[cosine(one, prototype[c]) for c in present] for one in q])
        found /= DEVIATIONS * np.sort(np.abs(found - lower_median(found)).ravel())[(found.size - 1) // 2]
        if i < n_iterations:
            e = np.exp(found)
            inlier = 1 / (1 + np.exp(threshold) / e.mean(1))
            own = inlier[:, None] * e / e.sum(1, keepdims=True)
            for j, c in enumerate(present):
                prototype[c] = (total[c] + own[:, j] @ q) / (count[c] + own[:, j].sum())
    logits = np.full((len(q), n_way), -np.inf)
    logits[:, present] = found
    return logits


def lower_median(x):
    """Return the median as torch defines it: the lower of two middle numbers."""
    return np.sort(x.ravel())[(x.size - 1) // 2]


def answer(learner, support, labels, weight, queries, n_way):
    support, labels, weight, queries = map(torch.from_numpy, (support, labels, weight, queries))
    return learner(support, labels, queries, n_way, weight).numpy()


@pytest.mark.parametrize(("n_query", "d"), [(2, 20), (9, 20), (40, 5)])
@pytest.mark.parametrize("n_iterations", [0, 1, 3])
@pytest.mark.parametrize("seed", range(2))
def test_it_is_its_formula(seed, n_iterations, n_query, d):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(4), (1, 4, 0, 2)))
    support, queries = rng.normal(size=(7, d)), rng.normal(size=(n_query, d))
    weight = rng.uniform(0.2, 3, 7)
    weight[0] = 300
    data = support, labels, weight, queries, 4
    found = answer(OSLOLearner(1.0, n_iterations), *data)
    np.testing.assert_allclose(found, oracle(*data, 1.0, n_iterations), rtol=1e-8)


def test_it_tells_unknown_queries_and_known_ones_better_for_coming_together():
    scores, right = {0: [], 2: []}, {0: [], 2: []}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y = np.arange(10).repeat(16)
        x = 1.1 * rng.normal(size=(10, 30))[y] + rng.normal(size=(160, 30))
        first, known = np.arange(160) % 16 == 0, y < 5
        queries = np.concatenate([x[known & ~first], x[~known & ~first]])
        for n in scores:
            learner = OSLOLearner(n_iterations=n)
            logits = torch.from_numpy(answer(learner, x[known & first], y[known & first], np.ones(5), queries, 5))
            inlier = learner.closeness(logits, None).numpy()
            scores[n].append(area_under_roc(inlier[:75], inlier[75:]))
            right[n].append((logits[:75].argmax(-1).numpy() == y[known & ~first]).mean())
    assert np.mean(scores[2]) > np.mean(scores[0]) + 0.02
    assert np.mean(right[2]) > np.mean(right[0]) + 0.02


@pytest.mark.parametrize("queries", [np.ones((1, 3)), np.ones((4, 3)), np.zeros((2, 3)), np.ones((0, 3))])
@pytest.mark.parametrize("n_way", [1, 2])
def test_queries_that_are_all_alike_get_finite_answers(queries, n_way):
    found = answer(OSLOLearner(), np.eye(3)[:n_way], np.arange(n_way), np.full(n_way, 1e9), queries, n_way)
    assert found.shape == (len(queries), n_way)
    assert np.isfinite(found).all()


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="n_iterations is -1"):
        OSLOLearner(n_iterations=-1)
    with pytest.raises(ValueError, match="threshold is -1"):
        OSLOLearner(threshold=-1)
