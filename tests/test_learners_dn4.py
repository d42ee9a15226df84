"""DN4 against plain loops over the paper's equation."""

import math

import pytest
import torch

from fewshot import DN4Learner


def oracle(support, labels, query, n_way, k):
    """Sum, over the places of a query, of the k largest cosines to all places of each class (equation 2)."""

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    sums = []
    for c in range(n_way):
        places = [place for image, label in zip(support, labels, strict=True) if label == c for place in image]
        sums.append(sum(sum(sorted((cosine(q, p) for p in places), reverse=True)[:k]) for q in query))
    return sums


@pytest.mark.parametrize("k", [1, 3])
def test_equals_plain_loops(k):
    generator = torch.Generator().manual_seed(0)
    n_way, places, width = 3, 4, 6
    support = torch.randn(7, places, width, dtype=torch.float64, generator=generator)
    queries = torch.randn(5, places, width, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 2, 1, 0, 1, 1])
    learner = DN4Learner(k, width=width, temperature=0.5)
    found = learner(support.flatten(1), labels, queries.flatten(1), n_way)
    expected = [oracle(support.tolist(), labels.tolist(), q, n_way, k) for q in queries.tolist()]
    torch.testing.assert_close(found * 0.5 * places * k, torch.tensor(expected, dtype=torch.float64))


def test_a_class_of_fewer_places_than_k_has_the_mean_of_those():
    learner = DN4Learner(5, width=2, temperature=1.0)
    x = torch.eye(2).flatten()[None]  # two places, at right angles
    assert learner(x, torch.tensor([0]), x, 1).item() == pytest.approx(0.5)
