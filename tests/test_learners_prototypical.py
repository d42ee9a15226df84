"""Prototypical Networks against loops written from the paper."""

import pytest
import torch

from fewshot import PrototypicalLearner

GENERATOR = torch.Generator().manual_seed(0)
SUPPORT, QUERIES = (torch.randn(n, 5, generator=GENERATOR, dtype=torch.float64) for n in (9, 4))
LABELS = torch.tensor([0, 1, 1, 2, 2, 2, 1, 0, 2])


def similarity(a, b, metric):
    return {"sqeuclidean": -((a - b) ** 2).sum(), "dot": a @ b, "cosine": a @ b / (a.norm() * b.norm())}[metric]


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine", "dot"])
def test_a_logit_is_the_similarity_to_the_mean_of_the_support(metric):
    logits = PrototypicalLearner(metric, temperature=0.5)(SUPPORT, LABELS, QUERIES, 3)
    for q, query in enumerate(QUERIES):
        for c in range(3):
            expected = similarity(query, SUPPORT[c == LABELS].mean(0), metric) / 0.5
            torch.testing.assert_close(logits[q, c], expected)


def test_the_default_is_the_papers():
    learner = PrototypicalLearner()
    assert (learner.metric, learner.temperature.item()) == ("sqeuclidean", 1.0)
    logits = learner(SUPPORT, LABELS, QUERIES, 3)
    means = torch.stack([SUPPORT[c == LABELS].mean(0) for c in range(3)])
    torch.testing.assert_close(logits.softmax(-1), (-(torch.cdist(QUERIES, means) ** 2)).softmax(-1))


def test_memory_does_not_grow_with_the_shots():
    learner = PrototypicalLearner()
    memory = learner.memorize(learner.learn(SUPPORT.repeat(50, 1), LABELS.repeat(50), 3))
    assert memory.keys.shape == (3, 5)
