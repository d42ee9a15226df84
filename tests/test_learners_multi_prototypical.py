import numpy as np
import pytest
import torch

from fewshot import FewShotClassifier, MultiPrototypicalClassifier, MultiPrototypicalLearner, PrototypicalLearner


def oracle(support, labels, queries, n_way, k, temperature, metric="sqeuclidean"):
    """Logits by loops in numpy: k-means of each class from the same first centres, then the definition."""

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    logits = np.zeros((len(queries), n_way))
    for c in range(n_way):
        raw = support[labels == c]
        points = unit(raw) if metric == "cosine" else raw
        centres = [points[((points - points.mean(0)) ** 2).sum(1).argmin()]]
        while len(centres) < k:
            centres.append(points[min_distance(points, centres).argmax()])
        for _ in range(10):
            cluster = np.array([[((p - centre) ** 2).sum() for centre in centres] for p in points]).argmin(1)
            centres = [points[cluster == j].mean(0) if (cluster == j).any() else centres[j] for j in range(k)]
        total = np.zeros(len(queries))
        for j in range(k):
            if not (cluster == j).any():
                continue
            mean = raw[cluster == j].mean(0)
            similarity = unit(queries) @ unit(mean) if metric == "cosine" else -((queries - mean) ** 2).sum(1)
            total += (cluster == j).mean() * np.exp(similarity / temperature)
        logits[:, c] = np.log(total)
    return logits


def min_distance(points, centres):
    return np.min([((points - centre) ** 2).sum(1) for centre in centres], axis=0)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_its_formula(k, metric, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(3), (4, 9, 6)))
    support, queries = rng.normal(size=(19, 4)), rng.normal(size=(5, 4))
    learner = MultiPrototypicalLearner(metric, 2.0, n_prototypes=k)
    got = learner(*map(torch.from_numpy, (support, labels, queries)), 3)
    np.testing.assert_allclose(got.numpy(), oracle(support, labels, queries, 3, k, 2.0, metric), rtol=1e-9)


def test_one_prototype_is_the_mean():
    rng = np.random.default_rng(0)
    support, labels = torch.from_numpy(rng.normal(size=(2, 12, 4))), torch.arange(12).expand(2, 12) % 3
    queries = torch.from_numpy(rng.normal(size=(2, 5, 4)))
    torch.testing.assert_close(
        MultiPrototypicalLearner(n_prototypes=1)(support, labels, queries, 3),
        PrototypicalLearner()(support, labels, queries, 3),
    )


def test_as_many_prototypes_as_images_are_the_images():
    x, y = np.array([[0.0], [4.0], [4.0], [9.0]]), np.zeros(4)
    model = MultiPrototypicalClassifier(n_prototypes=4).fit(x, y.astype(int))
    assert sorted(model.model_.memory.keys.flatten().tolist()) == [0, 4, 9]
    assert sorted(model.model_.memory.log_weight.exp().tolist()) == pytest.approx([0.25, 0.25, 0.5])


def test_classes_of_two_looks_are_told_apart_where_means_are_not():
    """Two classes whose looks lie crosswise have one mean."""
    rng = np.random.default_rng(0)
    corners = np.array([[5.0, 5.0], [-5.0, -5.0], [5.0, -5.0], [-5.0, 5.0]])
    y = np.repeat([0, 0, 1, 1], 10)
    x = corners.repeat(10, 0) + rng.normal(size=(40, 2))
    queries = corners.repeat(25, 0) + rng.normal(size=(100, 2))
    truth = np.repeat([0, 0, 1, 1], 25)
    assert FewShotClassifier("prototypical").fit(x, y).score(queries, truth) < 0.8
    assert MultiPrototypicalClassifier(n_prototypes=2).fit(x, y).score(queries, truth) == 1.0


def test_uneven_classes_carry_no_prior():
    x, y = np.array([[0.0]] * 9 + [[2.0]]), np.array([0] * 9 + [1])
    proba = MultiPrototypicalClassifier(n_prototypes=2).fit(x, y).predict_proba([[1.0]])
    np.testing.assert_allclose(proba, [[0.5, 0.5]])


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="n_prototypes is 0; expected a whole number of at least 1"):
        MultiPrototypicalLearner(n_prototypes=0)
