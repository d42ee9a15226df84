"""Sets of classes for items, with a promise; see `fewshot.classifiers.conformal`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.classifiers.conformal import least_logs, sets_above
from fewshot.data.images import LabeledImages
from fewshot.images.learned import Learned, labelled
from fewshot.search.similarity import to_tensor


@dataclass(frozen=True, eq=False)
class Promise:
    """What sets are to hold.

    Attributes
    ----------
    coverage : float
        How often the right class.
    by_class : bool
        Whether for each class.
    held_out : (X, y), LabeledImages or None
        Labelled items that were not learned; by default the support is left out.
    least : ndarray of shape (n_classes,) or None
        What `measured` has found.
    """

    coverage: float = 0.9
    by_class: bool = False
    held_out: Any = None
    least: NDArray[np.float64] | None = None

    def measured(self, now: Learned) -> Self:
        """Return the promise with what it takes to be in a set, which holds as long as nothing is learned.

        Raises
        ------
        ValueError
            If there are too few images for the promise.
        """
        return replace(self, least=self._measure(now))

    def sets(self, now: Learned, embeddings: NDArray[np.floating]) -> list[list[Any]]:
        """Return the classes that may be right for each embedding (n, d), likeliest first."""
        least = self._measure(now) if self.least is None else self.least
        return sets_above(now.classifier, embeddings, least)

    def _measure(self, now: Learned) -> NDArray[np.float64]:
        """Return the least logarithm of its probability with which each class is in a set."""
        classifier, support, held_out = now.classifier, None, None
        if self.held_out is not None:
            X, y = self.held_out if _is_pair(self.held_out) else (self.held_out, None)
            if y is None and not isinstance(X, LabeledImages):
                raise TypeError(
                    "held_out has no labels; give (X, y): items that were not learned, and the class of each, or "
                    "LabeledImages"
                )
            held_out = _embedded(now, X, y)
        elif now.support is not None:
            codes = torch.from_numpy(np.searchsorted(classifier.classes_, now.support.labels))
            support = to_tensor(now.support.embeddings).double(), codes
        return least_logs(classifier, self.coverage, self.by_class, held_out, support)


def _is_pair(held_out: Any) -> bool:
    return isinstance(held_out, tuple) and len(held_out) == 2


def _embedded(now: Learned, X: Any, y: Any) -> tuple[NDArray[np.floating], NDArray[Any]]:
    """Return embeddings and labels of the items that can be read."""
    items, labels = labelled(X, y, now.embedder.as_items, now.classifier.model_)
    embedded = now.embed(items)
    embedded.warn()
    rows = np.setdiff1d(np.arange(len(items)), [error.index for error in embedded.errors])
    if not len(rows):
        raise embedded.errors[0]
    return embedded.embeddings[rows], labels[rows]
