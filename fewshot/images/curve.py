"""How the error of a model falls with the images of a class, measured on parts of its support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.learners.base import Learner
from fewshot.utils.intervals import DEPENDENCE

#: With f times the images of a class, the error is usually f ** -USUAL_SLOPE times as large; the weight of that beside
#: what is measured.
USUAL_SLOPE, CERTAIN = 0.5, 30.0
#: The most slope that is believed.
STEEPEST = 1.5
#: About the most rows that are learned, and that are answered, at each point of the curve.
MOST_ROWS = 1000


@dataclass(frozen=True)
class Point:
    """A point of a learning curve.

    Attributes
    ----------
    images : float
        Images of a class that taught the answers.
    accuracy : float
        Share of right answers.
    of : int
        Number of answers.
    """

    images: float
    accuracy: float
    of: int


def measure_curve(learner: Learner, x: Tensor, labels: Tensor, n_way: int) -> list[Point]:
    """Return the accuracy with 1, 2, 4, ... images of each class, up to half of what classes usually have.

    Each time the other images of the support are answered, about 1000 at the most. Which ones are learned is spread
    evenly over the order of the support, so that pictures taken one after another are not all on one side.

    Parameters
    ----------
    learner : Learner
        The learner, in evaluation mode.
    x : Tensor of shape (n, d)
        Embeddings.
    labels : Tensor of shape (n,)
        Classes, integers in 0..n_way-1.
    n_way : int
        Number of classes.
    """
    quick, y = learner.without_choosing(), labels.numpy()
    count = np.bincount(y, minlength=n_way)
    order = np.argsort(y, kind="stable")
    rank = np.empty(len(y), np.int64)
    rank[order] = np.arange(len(y)) - (count.cumsum() - count)[y[order]]
    points, shots = [], 1
    most = float(np.median(count[count > 1])) / 2 if (count > 1).any() else 0
    while shots <= most and (shots == 1 or shots * np.count_nonzero(count) <= MOST_ROWS):
        taught = (count[y] <= shots) | ((rank + 1) * shots // count[y] > rank * shots // count[y])
        asked = np.flatnonzero(~taught)
        asked = asked[:: max(1, len(asked) // MOST_ROWS)]
        rows, queries = torch.from_numpy(np.flatnonzero(taught)), torch.from_numpy(asked)
        answers = quick(x[rows], labels[rows], x[queries], n_way).argmax(-1)
        points.append(Point(shots, float((answers == labels[queries]).double().mean()), len(asked)))
        shots *= 2
    return points


def slope_of(points: Sequence[Point]) -> float:
    """Return b, if the error falls as ``images ** -b``: least squares of logarithms, with a prior.

    Supports are small, so a curve tells little more than the prior: on the draws of ``benchmarks/check.py`` the
    accuracy with twice the images was off by as much as with a fixed slope of 0.4, and the mean gain by a little less.

    Examples
    --------
    >>> slope_of([])
    0.5
    >>> round(slope_of([Point(k, 1 - 0.8 * k**-0.3, 1000) for k in (1, 2, 4, 8, 16)]), 1)
    0.3
    """
    if len(points) < 2:
        return USUAL_SLOPE
    images, accuracy, of = (np.array([getattr(p, name) for p in points]) for name in ("images", "accuracy", "of"))
    error: NDArray[np.float64] = ((1 - accuracy) * of + 0.5) / (of + 1)
    weight = of / DEPENDENCE * error / (1 - error)  # the inverse variance of the logarithm
    x, y = (value - (weight * value).sum() / weight.sum() for value in (np.log(images), np.log(error)))
    slope = (CERTAIN * USUAL_SLOPE - (weight * x * y).sum()) / (CERTAIN + (weight * x * x).sum())
    return float(np.clip(slope, 0, STEEPEST))
