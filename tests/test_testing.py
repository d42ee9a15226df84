"""The checks for plug-ins find what breaks the contract."""

import pytest
import torch

from fewshot import Memory, PrototypicalLearner, Statistics
from fewshot.learners.base import Learner
from fewshot.testing import check_learner, learner_checks


class Means(Learner):
    """A small learner that fulfils the contract; each one below breaks one rule of it."""

    def __init__(self):
        super().__init__("sqeuclidean", 1.0)

    def collect(self, support, labels, n_way, weight):
        return Statistics.of_sums(support, labels, n_way, weight)

    def memorize(self, statistics):
        return Memory.of_prototypes(statistics.means, statistics.count)


class OfTheBatch(Means):
    def transform(self, x):
        return x - x.mean(tuple(range(x.ndim - 1)))


class Forgetful(Means):
    def collect(self, support, labels, n_way, weight):
        return Statistics.of_sums(support, labels, n_way, torch.ones_like(weight))


class Looking(Means):
    indexable = False

    def score(self, memory, queries):
        return super().score(memory, queries - queries.mean(-2, keepdim=True))


class Declared(Means):
    ordered = True


class Everything(Means):
    def memorize(self, statistics):
        return Memory.of_prototypes(statistics.means, torch.ones_like(statistics.count))


class Blind(Means):
    indexable = False

    def score(self, memory, queries):
        return super().score(memory, queries.detach())


class Unkept(Means):
    def __init__(self, shrinkage=0.5):
        super().__init__()
        self.s = shrinkage


def test_what_fulfils_the_contract_passes():
    check_learner(Means)
    check_learner(PrototypicalLearner)


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (OfTheBatch, {"batched_equals_single", "statistics_add"}),
        (Forgetful, {"padded_equals_unpadded", "integer_weights_are_copies"}),
        (Looking, {"queries_are_independent_unless_declared"}),
        (Declared, {"order_is_irrelevant_unless_declared"}),
        (Everything, {"absent_classes_are_never_answered", "relabelling_permutes"}),
        (Blind, {"gradients_reach_support_and_queries"}),
        (Unkept, {"arguments_can_be_saved"}),
    ],
)
def test_what_breaks_a_rule_fails_its_check(broken, names):
    failed = set()
    for check in learner_checks():
        try:
            check(broken)
        except (AssertionError, ValueError):
            failed.add(check.__name__)
    assert names <= failed
    with pytest.raises((AssertionError, ValueError)):
        check_learner(broken)


def test_a_learner_in_place_of_what_makes_one_is_refused():
    with pytest.raises(TypeError, match="make is a learner; pass what makes one: Means, or lambda: learner"):
        check_learner(Means())
    with pytest.raises(TypeError, match="expected a registered name or a Learner"):
        check_learner(object)
