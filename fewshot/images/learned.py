"""What a classifier of images has learned, as one object that never changes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.classifiers.few_shot import FewShotClassifier
from fewshot.data.opening import is_name
from fewshot.embedding.batches import Embedded
from fewshot.embedding.embedder import Embedder
from fewshot.images.inputs import check_new_names
from fewshot.images.support import Support
from fewshot.utils.labels import as_labels
from fewshot.utils.twins import earlier_twins, warn_of_twins


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
        Their embeddings; see `read` for items that could not be read.
    embedder : Embedder
        The one that made them.
    """

    names: Sequence[str]
    are_given: bool
    labels: Any
    embedded: Embedded
    embedder: Embedder

    def read(self, on_error: str) -> Prepared:
        """Return it without the items that could not be read.

        Raises
        ------
        ImageDecodeError
            If there are such items, unless `on_error` is "skip" and some could be read; then a warning names them.
        """
        if not self.embedded.errors:
            return self
        unread = {error.index for error in self.embedded.errors}
        rows = [i for i in range(len(self.names)) if i not in unread]
        if on_error == "skip":
            self.embedded.warn()
        if on_error != "skip" or not rows:
            raise self.embedded.errors[0]
        thumbnails = [self.embedded.thumbnails[i] for i in rows] if self.embedded.thumbnails else []
        embedded = Embedded(self.embedded.embeddings[rows], [], thumbnails)
        return replace(self, names=[self.names[i] for i in rows], labels=self.labels[rows], embedded=embedded)


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
    warn_of_twins(earlier_twins(embeddings, start), start, names)


def trimmed(classifier: FewShotClassifier, support: Support) -> Support:
    """Return the support that a bounded memory still has."""
    return support.rows(classifier.model_.kept_rows(support.embeddings, support.labels).tolist())
