"""How good a model will be on new items, from its support alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.classifiers.any_learner import FewShotClassifier
from fewshot.images.answer import Answer, nearest_support
from fewshot.images.support import Support
from fewshot.images.tested import TestResult
from fewshot.search.similarity import to_tensor
from fewshot.utils.isolation import isolated
from fewshot.utils.values import check_number

if TYPE_CHECKING:
    import pandas as pd

#: With f times the images of each class, the share of wrong answers is f ** -LEARNING times as large.
LEARNING = 0.4
#: Left-out answers depend on each other: n of them tell as much as n / DEPENDENCE independent ones.
DEPENDENCE = 1.5


@dataclass(frozen=True, eq=False)
class CheckResult:
    """Answers to the items of the support, each as if it had not been learned; see `FewShotModel.check`.

    Attributes
    ----------
    left_out : TestResult
        These answers; its figures are those of a model that has one image less of a class.
    n_taught : ndarray of shape (n,)
        How many other images of its class taught the answer to each.
    alone : list
        Classes with one image, which cannot be left out.
    """

    left_out: TestResult
    n_taught: NDArray[np.int64]
    alone: list[Any]

    @property
    def accuracy(self) -> float:
        """Expected accuracy on new items, with all of the support."""
        return self.expected(1)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `accuracy`."""
        from scipy.stats import norm

        n, p, z = len(self.n_taught) / DEPENDENCE, self.accuracy, norm.ppf(0.975)
        middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5  # Wilson 1927
        low, high = ((middle + side) / (1 + z**2 / n) for side in (-half, half))
        return round(float(low), 9), round(float(high), 9)  # so that rounding does not leave out 0 and 1

    def expected(self, times: float) -> float:
        """Return the accuracy to expect with `times` as many images of each class."""
        check_number("times", times, above=True)
        fewer = (self.n_taught / (times * (self.n_taught + 1))) ** LEARNING
        return float(1 - (~self.left_out.right * fewer).mean())

    def __str__(self) -> str:
        low, high = self.interval
        return f"expect {100 * self.accuracy:.0f} % of new images right ({100 * low:.0f} to {100 * high:.0f} %)"

    @property
    def confused(self) -> pd.DataFrame:
        """Pairs of classes that are taken for each other, the worst first: ``class``, ``other``, ``images``, ``of``."""
        import pandas as pd

        table = self.left_out.confusion
        counts, labels = table.to_numpy(), table.index.tolist()
        both, images = counts + counts.T, counts.sum(1)
        first, second = np.nonzero(np.triu(both, 1))
        rows = pd.DataFrame(
            {
                "class": pd.Series([labels[i] for i in first], dtype=object),
                "other": pd.Series([labels[i] for i in second], dtype=object),
                "images": both[first, second],
                "of": images[first] + images[second],
            }
        )
        return rows.sort_values("images", ascending=False, kind="stable", ignore_index=True)


@isolated(gradients=False)
def check_model(classifier: FewShotClassifier, support: Support, n_shown: int) -> CheckResult | None:
    """Answer each item of the support as if it had not been learned; None if every class has one item."""
    classes, learner, names = classifier.classes_, classifier.learner_, support.labels.tolist()
    codes = np.searchsorted(classes, support.labels)
    x = to_tensor(support.embeddings).double()
    found = learner.leave_out(x, torch.from_numpy(codes), len(classes))
    alone = classes[np.bincount(codes, minlength=len(classes)) == 1].tolist()
    if not len(found.rows):
        return None
    rows, shares = found.rows.numpy(), (found.logits / classifier.proba_temperature()).softmax(-1).numpy()
    truth, predicted, probability = support.labels[rows], classes[shares.argmax(1)], shares.max(1)
    surest = np.argsort(-probability, kind="stable")
    wrong = surest[(predicted != truth)[surest]][:n_shown].tolist()
    near = nearest_support(classifier, support, support.embeddings[rows[wrong]], 3, rows[wrong])
    mistakes = []
    for i, neighbours in zip(wrong, near, strict=True):
        order = np.argsort(-shares[i], kind="stable")[:3]
        ranking = [(classes[place : place + 1].tolist()[0], float(shares[i, place])) for place in order.tolist()]
        answer = Answer(
            support.ids[rows[i]], ranking[0][0], ranking[0][1], ranking, [], 0.0, False, neighbours,
            support.thumbnails[rows[i]],
        )  # fmt: skip
        mistakes.append((names[rows[i]], answer))
    return CheckResult(TestResult(classes, truth, predicted, probability, 0, mistakes), found.n_taught.numpy(), alone)
