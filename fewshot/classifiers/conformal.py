"""Sets of classes that hold the right one as often as promised: conformal prediction.

A class is in the set of a query if its probability is at least that of the right class in most answers to rows that
were not learned: rows of the support that are left out (leave-one-out), or held-out rows (split conformal). Copies of a
row in its class count once, since a copy would answer for the row that is left out. Of the scores that were compared,
the probability gives the smallest sets; ``benchmarks/coverage.py`` compares it with others. Logarithms tell
probabilities apart that round to 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from fewshot.classifiers.fitted import FittedModel
from fewshot.learners.base import Learner
from fewshot.utils.isolation import isolated
from fewshot.utils.labels import as_labels
from fewshot.utils.text import counted, listed
from fewshot.utils.twins import distinct_rows
from fewshot.utils.values import check_embeddings, check_number
from fewshot.utils.warning import warn

#: With f times the images of each class, the right class is missed f ** -LEARNING times as often.
LEARNING = 0.7
#: Relative difference of two logarithms that may be rounding.
_ROUNDING = 1e-6


class Answers(Protocol):
    """What is needed of a fitted classifier."""

    classes_: NDArray[Any]
    n_support_: NDArray[np.int64]
    model_: FittedModel
    on_error: str

    def predict_log_proba(self, X: Any) -> NDArray[np.floating]:
        """Return the logarithm of the probability of each class, (n, n_classes)."""

    def proba_temperature(self) -> float:
        """Return the temperature of the probabilities."""


@dataclass(frozen=True, eq=False)
class Witnesses:
    """Answers to labelled rows that had not been learned.

    Attributes
    ----------
    codes : ndarray of shape (m,)
        Classes of the rows, in 0..n_way-1.
    logs : ndarray of shape (m,)
        Logarithm of the probability of the right class.
    weight : ndarray of shape (m,)
        How often the right class would be missed with all of the support, relative to these answers.
    """

    codes: NDArray[np.int64]
    logs: NDArray[np.float64]
    weight: NDArray[np.float64]


@isolated(gradients=False)
def left_out_witnesses(
    learner: Learner, x: Tensor, codes: Tensor, n_way: int, temperature: float, *, transformed: bool
) -> Witnesses:
    """Return the answers to rows of the support, each as if it had not been learned; see `Learner.leave_out`.

    Parameters
    ----------
    learner : Learner
        In evaluation mode.
    x : Tensor of shape (n, d)
        The support.
    codes : Tensor of shape (n,)
        Classes, integers in 0..n_way-1.
    n_way : int
        Number of classes.
    temperature : float
        Of the probabilities.
    transformed : bool
        Whether the rows have been through the learner's `transform`.
    """
    found = learner.leave_out(x, codes, n_way, transformed=transformed)
    own, count = codes[found.rows], torch.bincount(codes, minlength=n_way)
    logs = (found.logits / temperature).log_softmax(-1)[torch.arange(len(own), device=own.device), own]
    fewer = (found.n_taught / count[own]) ** LEARNING
    return Witnesses(own.numpy(), logs.double().numpy(), fewer.double().numpy())


def support_of(classifier: Answers) -> tuple[Tensor, Tensor]:
    """Return the transformed support that a classifier keeps, and its classes.

    Raises
    ------
    ValueError
        If its learner keeps only sums, or rows have weights other than 1.
    """
    kept = classifier.model_.statistics.support
    if not kept:
        name = type(classifier.model_.learner).__name__
        raise ValueError(
            f"{name} keeps no support that could be left out; give held_out, or use one that does, such as "
            "DiscriminantLearner"
        )
    if not (kept["weight"] == 1).all():
        raise ValueError("support with sample weights other than 1 cannot be left out; give held_out")
    return kept["x"], kept["labels"]


def witnesses_of(classifier: Answers, support: tuple[Tensor, Tensor] | None, held_out: Any) -> Witnesses:
    """Return the answers to `held_out` embeddings (X, y); else to the support, by default as the learner keeps it.

    Raises
    ------
    TypeError
        If the learner is transductive, so that answers depend on the other queries.
    ValueError
        If there is nothing to answer, or a label is not a class.
    """
    learner, classes = classifier.model_.learner, classifier.classes_
    if learner.transductive:
        raise TypeError(f"{type(learner).__name__} answers all queries together, which no set can be promised for")
    if held_out is None:
        x, codes = support_of(classifier) if support is None else support
        rows = torch.from_numpy(distinct_rows(x.cpu().numpy(), codes.cpu().numpy())).to(codes.device)
        x, codes, temperature = x[rows], codes[rows], classifier.proba_temperature()
        found = left_out_witnesses(learner, x, codes, len(classes), temperature, transformed=support is None)
        if not len(found.codes):
            raise ValueError(
                "every class has one image, so none can be left out; add a second to some, or give held_out"
            )
        if alone := classes[torch.bincount(codes, minlength=len(classes)).cpu().numpy() == 1].tolist():
            warn(f"classes with one image cannot be left out, so nothing is promised for them: {listed(alone)}")
        return found
    X, y = held_out if isinstance(held_out, (tuple, list)) and len(held_out) == 2 else (held_out, None)
    if y is None:
        kind = type(held_out).__name__
        raise TypeError(
            f"held_out is of type {kind} and has no labels; give (X, y): rows that were not learned, and their classes"
        )
    logs, labels = classifier.predict_log_proba(X), as_labels(y, known=classes)
    if len(logs) != len(labels) or not len(labels):
        raise ValueError(f"held_out has {len(logs)} rows and {len(labels)} labels; expected as many, at least one")
    if others := np.setdiff1d(labels, classes).tolist():
        raise ValueError(f"held_out has labels that are not classes: {listed(others)}; leave these rows out")
    places = np.searchsorted(classes, labels)
    return Witnesses(places, logs[np.arange(len(places)), places].astype(np.float64), np.ones(len(places)))


def least_logs(
    classifier: Answers,
    coverage: float,
    by_class: bool = False,
    held_out: Any = None,
    support: tuple[Tensor, Tensor] | None = None,
) -> NDArray[np.float64]:
    """Return the least logarithm of its probability with which each class is in a set, (n_classes,); see `predict_set`.

    Parameters
    ----------
    classifier : classifier
        Fitted.
    coverage, by_class, held_out
        As for `predict_set` of the classifiers.
    support : (x, codes), optional
        Embeddings (n, d) and classes (n,) that were learned; by default what the learner keeps.

    Raises
    ------
    ValueError
        If the coverage is not between 0 and 1, or there are too few answers to promise it.
    """
    if check_number("coverage", coverage, above=True) >= 1:
        raise ValueError(f"coverage is {coverage!r}; expected a number between 0 and 1")
    found = witnesses_of(classifier, support, held_out)
    classes, n_way = classifier.classes_.tolist(), len(classifier.classes_)
    if not by_class:
        return np.full(n_way, least_kept(found.logs, found.weight, coverage))
    own = [found.codes == code for code in range(n_way)]
    enough = [mine.sum() >= n_needed(coverage) for mine in own]
    if not any(enough):
        _refuse(coverage, int(np.bincount(found.codes).max()), "images of a class")
    if few := [name for name, is_enough in zip(classes, enough, strict=True) if not is_enough]:
        warn(
            f"by_class with coverage {coverage:g} needs {n_needed(coverage)} images of a class that were not learned; "
            f"{counted(len(few), 'class')} with fewer share the promise for all: {listed(few)}"
        )
    pooled = least_kept(found.logs, found.weight, coverage) if few else 0.0
    return np.array(
        [
            least_kept(found.logs[mine], found.weight[mine], coverage) if is_enough else pooled
            for mine, is_enough in zip(own, enough, strict=True)
        ]
    )


def n_needed(coverage: float) -> int:
    """Return the number of answers from which on a coverage can be promised.

    Examples
    --------
    >>> [n_needed(coverage) for coverage in (0.5, 0.8, 0.9, 0.95)]
    [1, 4, 9, 19]
    """
    return math.ceil(round(1 / (1 - coverage), 9)) - 1


def predict_sets(
    classifier: Answers, X: Any, coverage: float, by_class: bool = False, held_out: Any = None, support: Any = None
) -> list[list[Any]]:
    """Return the classes that are probable enough for each query, likeliest first.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Queries; invalid rows get no class.
    coverage, by_class, held_out, support
        As for `least_logs`.
    """
    check_is_fitted(classifier)
    return sets_above(classifier, X, least_logs(classifier, coverage, by_class, held_out, support))


def sets_above(classifier: Answers, X: Any, least: NDArray[np.float64]) -> list[list[Any]]:
    """Return the classes whose probability reaches `least`, which `least_logs` returns; see `predict_sets`."""
    names = classifier.classes_.tolist()
    x = check_embeddings(classifier, X, reset=False, finite=classifier.on_error == "raise", min_samples=0)
    logs = classifier.predict_log_proba(x)
    inside = (logs >= least - _ROUNDING * (1 + np.abs(least))) & np.isfinite(x).all(1)[:, None]
    order = np.argsort(-logs, 1, kind="stable")
    chosen = np.take_along_axis(inside, order, 1)
    return [[names[i] for i in row[held].tolist()] for row, held in zip(order, chosen, strict=True)]


def least_kept(values: NDArray[np.float64], weight: NDArray[np.float64], coverage: float) -> float:
    """Return the largest value below which at most the fraction 1 - `coverage` lies, counting a query among them.

    Parameters
    ----------
    values : ndarray of shape (m,)
        Scores of the right class, higher for better answers.
    weight : ndarray of shape (m,)
        How much each counts as a miss.
    coverage : float
        Above 0 and below 1.

    Raises
    ------
    ValueError
        If there are too few.

    Examples
    --------
    >>> least_kept(np.arange(19.0), np.ones(19), 0.9)
    1.0
    """
    if len(values) < n_needed(coverage):
        _refuse(coverage, len(values), "images")
    order = np.argsort(values)
    below = weight[order].cumsum() - weight[order]
    allowed = (1 - coverage) * (len(values) + 1) - 1
    return float(values[order][below <= allowed + 1e-9][-1])


def _refuse(coverage: float, n: int, what: str) -> None:
    raise ValueError(
        f"coverage {coverage:g} needs {n_needed(coverage)} {what} that were not learned, or can be left out, and there "
        f"are {n}; ask for at most {math.floor(1000 * n / (n + 1)) / 1000:g}, or give more images"
    )
