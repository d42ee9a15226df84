"""Sets of classes for items, with a promise; see `fewshot.classifiers.conformal`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.classifiers.conformal import predict_sets
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
    """

    coverage: float = 0.9
    by_class: bool = False
    held_out: Any = None

    def sets(self, now: Learned, embeddings: NDArray[np.floating]) -> list[list[Any]]:
        """Return the classes that may be right for each embedding (n, d), likeliest first."""
        classifier, support, held_out = now.classifier, None, None
        if self.held_out is not None:
            held_out = _embedded(now, *(self.held_out if isinstance(self.held_out, tuple) else (self.held_out, None)))
        elif now.support is not None:
            codes = torch.from_numpy(np.searchsorted(classifier.classes_, now.support.labels))
            support = to_tensor(now.support.embeddings).double(), codes
        return predict_sets(classifier, embeddings, self.coverage, self.by_class, held_out, support)


def _embedded(now: Learned, X: Any, y: Any) -> tuple[NDArray[np.floating], NDArray[Any]]:
    """Return embeddings and labels of the items that can be read."""
    items, labels = labelled(X, y, now.embedder.as_items, now.classifier.classes_)
    embedded = now.embed(items)
    embedded.warn()
    rows = np.setdiff1d(np.arange(len(items)), [error.index for error in embedded.errors])
    if not len(rows):
        raise embedded.errors[0]
    return embedded.embeddings[rows], labels[rows]
