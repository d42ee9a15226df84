"""The two common ways to keep support: as class sums, or row by row."""

from __future__ import annotations

from torch import Tensor

from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory
from fewshot.learners.statistics import Statistics


class SumLearner(Learner):
    """A learner that keeps class sums and counts; its keys are the class means."""

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep class sums and counts."""
        return Statistics.of_sums(support, labels, n_way, weight)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per class, its mean."""
        return Memory.of_prototypes(statistics.means, statistics.count)


class SupportLearner(Learner):
    """A learner that keeps the support; its keys are the support embeddings, with their sample weights."""

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep the support."""
        return Statistics.of_support(support, labels, n_way, weight)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per support embedding."""
        return Memory.of_support(statistics.support, statistics.n_way)
