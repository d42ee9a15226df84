"""What a classifier of images has learned, as one object that never changes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.classifier import FewShotClassifier
from fewshot.conversion.labels import as_labels
from fewshot.data.opening import is_name
from fewshot.embedding.batches import Embedded
from fewshot.embedding.embedder import Embedder
from fewshot.model.inputs import check_new_names
from fewshot.support import Support
from fewshot.twins import earlier_twins, warn_of_twins


@dataclass(frozen=True, eq=False)
class Prepared:
    """Labelled images that are embedded, so that learning them takes a moment.

    Attributes
    ----------
    names : sequence of str
        By which kept support knows them.
    are_given : bool
        Whether the user chose the names; then each must be new.
    labels : ndarray of shape (n,)
        Their classes.
    embedded : Embedded
        Without what could not be read.
    embedder : Embedder
        The one that made them.
    """

    names: Sequence[str]
    are_given: bool
    labels: Any
    embedded: Embedded
    embedder: Embedder


@dataclass(frozen=True, eq=False)
class Learned:
    """What a classifier of images knows at one moment; to learn is to put another in its place.

    Attributes
    ----------
    embedder : Embedder
        From images to embeddings.
    classifier : FewShotClassifier
        From embeddings to answers, with its calibration; nobody changes it.
    support : Support or None
        The support images, if kept.
    """

    embedder: Embedder
    classifier: FewShotClassifier
    support: Support | None

    def takes(self, prepared: Prepared) -> bool:
        """Whether these embeddings can be compared with what was learned."""
        made_by = prepared.embedder
        return made_by is self.embedder or made_by.fingerprint == self.embedder.fingerprint

    def grown(self, prepared: Prepared) -> Learned:
        """Return it with more images learned.

        Raises
        ------
        ValueError
            If they come from another network, a name is in use, or labels do not fit.
        """
        embedded, support = prepared.embedded, self.support
        if prepared.are_given:
            check_new_names(prepared.names, () if support is None else support.ids)
        classifier = copy.copy(self.classifier).partial_fit(embedded.embeddings, prepared.labels)
        warn_of_same_images(support, prepared.names, embedded.embeddings)
        if support is not None:
            known = classifier.classes_[np.searchsorted(classifier.classes_, as_labels(prepared.labels))]
            support += Support(tuple(prepared.names), known, embedded.embeddings, tuple(embedded.thumbnails))
            support = trimmed(classifier, support)
        return Learned(self.embedder, classifier, support)


def warn_of_same_images(support: Support | None, names: Sequence[str], embeddings: NDArray[np.float32]) -> None:
    """Warn of images that are in the kept support already, or come twice now."""
    start = 0 if support is None else len(support)
    names = [name if is_name(name) else f"image {i}" for i, name in enumerate(names)]
    if support is not None and start:
        names = [*(id if is_name(id) else f"support image {i}" for i, id in enumerate(support.ids)), *names]
        embeddings = np.concatenate([support.embeddings, embeddings])
    warn_of_twins(earlier_twins(embeddings, start), start, names, stacklevel=7)


def trimmed(classifier: FewShotClassifier, support: Support) -> Support:
    """Return the support that a bounded memory still has."""
    return support.rows(classifier.model_.kept_rows(support.embeddings, support.labels).tolist())
