"""A reference row for benchmarks: a linear probe, which shows what the few-shot methods gain."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory, Statistics
from fewshot.utils.warning import ignored_warnings


class LinearProbe(Learner):
    """scikit-learn's logistic regression, fitted to each support set by gradient descent.

    A benchmark measures it like any learner, but it is not registered and cannot be meta-trained.

    Parameters
    ----------
    C : float, default=1.0
        Inverse regularisation strength, for embeddings scaled to unit length.
    """

    indexable = False

    def __init__(self, C: float = 1.0) -> None:
        super().__init__()
        self.C = C

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep the support."""
        return Statistics.of_support(support, labels, n_way, weight)

    def memorize(self, statistics: Statistics) -> Memory:
        """Keep the support."""
        return Memory.of_support(statistics.support, statistics.n_way)

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return log-probabilities, with one fit per episode."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import normalize

        parts = [
            part.reshape(-1, *part.shape[queries.ndim - 2 :]).double().numpy()
            for part in (memory.keys, memory.labels, memory.log_weight.exp(), queries)
        ]
        logits = np.full((len(parts[0]), queries.shape[-2], memory.n_way), -np.inf)
        for i, (x, labels, weight, asked) in enumerate(zip(*parts, strict=True)):
            real = weight > 0
            classes = labels[real].astype(int)
            if len(set(classes)) == 1:
                logits[i, :, classes[0]] = 0.0
                continue
            model = LogisticRegression(C=self.C, max_iter=1000)
            with ignored_warnings(UserWarning):  # of convergence, and of many classes with one image
                model.fit(normalize(x[real]), classes, sample_weight=weight[real])
            logits[i][:, model.classes_] = model.predict_log_proba(normalize(asked))
        return torch.from_numpy(logits).reshape(*queries.shape[:-1], memory.n_way)
