"""Matching Networks against loops written from the paper."""

import pytest
import torch

from fewshot import MatchingLearner
from tests.test_learners_prototypical import LABELS, QUERIES, SUPPORT, similarity


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean", "dot"])
def test_a_class_gathers_the_attention_to_its_support(metric):
    probabilities = MatchingLearner(metric, temperature=0.5)(SUPPORT, LABELS, QUERIES, 3).softmax(-1)
    for q, query in enumerate(QUERIES):
        attention = torch.stack([similarity(query, x, metric) / 0.5 for x in SUPPORT]).softmax(0)
        for c in range(3):
            torch.testing.assert_close(probabilities[q, c], attention[c == LABELS].sum())


def test_the_papers_temperature_can_be_had_and_the_default_is_sharper():
    assert MatchingLearner().temperature.item() == pytest.approx(0.1)
    flat, sharp = (MatchingLearner(temperature=t)(SUPPORT, LABELS, QUERIES, 3).softmax(-1) for t in (1.0, 0.1))
    assert sharp.max(-1).values.mean() > flat.max(-1).values.mean() + 0.3


def test_the_support_itself_is_the_memory():
    learner = MatchingLearner()
    memory = learner.memorize(learner.learn(SUPPORT, LABELS, 3))
    assert torch.equal(memory.keys, SUPPORT)
    assert torch.equal(memory.labels, LABELS)
