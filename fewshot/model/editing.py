"""How what a classifier of images has learned is changed afterwards: images and classes removed, renamed, merged."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from fewshot.checks import check_labels
from fewshot.data.decode import is_name
from fewshot.model.audit import SAME_IMAGE
from fewshot.model.inputs import labelled
from fewshot.support import Support

if TYPE_CHECKING:
    from fewshot.classifier import FewShotClassifier
    from fewshot.embedding.embedder import Embedder


class ImageEditingMixin:
    """Changes of a fitted classifier of images; each is made at once and whole, a failure leaves what was there."""

    if TYPE_CHECKING:
        embedder_: Embedder
        classifier_: FewShotClassifier
        support_: Support | None
        keep_support: bool

        def publish(self, embedder: Embedder, classifier: FewShotClassifier, support: Support | None) -> Self:
            """Answer with these from now on."""

    def remove_class(self, label: Any) -> Self:
        """Forget a class and all of its support; the others answer as if it had never been learned.

        Raises
        ------
        ValueError
            If there is no such class, or it is the only one. The classifier is then unchanged.
        """
        classifier, support = self._copies()
        classifier.remove_class(label)
        return self.publish(self.embedder_, classifier, support and support.without(support.places(label)))

    def remove(self, X: Any, y: ArrayLike | None = None, *, drop_empty: bool = True) -> Self:
        """Forget some of the support images, as if they had never been learned.

        Where support is kept, an image is found there by its embedding, and what was added then is taken away.
        Elsewhere the image is embedded again and its embedding taken away: exact up to the rounding of the network.

        Parameters
        ----------
        X : collection of n images, or LabeledImages
            Images that were learned.
        y : array-like of shape (n,), optional
            Their labels. Left out where X is `LabeledImages`.
        drop_empty : bool, default=True
            Whether a class without support left is forgotten; else it stays in ``classes_`` and is never the answer.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read.
        ValueError
            If an image is not in the kept support of its class, a class is unknown or has fewer images, or nothing
            would be left. The classifier is then unchanged.
        """
        classifier, support = self._copies()
        items, labels = labelled(X, y)
        labels = check_labels(labels, type(self).__name__, classifier.classes_)
        embedded = self.embedder_.embed(items)
        if embedded.errors:
            raise embedded.errors[0]
        if support is None:
            classifier.remove(embedded.embeddings, labels, drop_empty=drop_empty)
            return self.publish(self.embedder_, classifier, None)
        return self._remove_rows(_find(support, embedded.embeddings, labels), drop_empty)

    def remove_support(self, ids: Sequence[str], *, drop_empty: bool = True) -> Self:
        """Forget support images by their names; nothing is embedded again.

        Parameters
        ----------
        ids : sequence of str
            Paths as they were learned, or the names given then; an image that was learned twice under one name goes
            twice.
        drop_empty : bool, default=True
            Whether a class without support left is forgotten; else it stays in ``classes_`` and is never the answer.

        Raises
        ------
        ValueError
            If support is not kept, there is no image of a name, the name tells no image from another (arrays learned
            without ``ids=``), or nothing would be left. The classifier is then unchanged.
        TypeError
            If `ids` is one name.
        """
        if isinstance(ids, str):
            raise TypeError(f"ids is one name; pass a list of them, e.g. [{ids!r}]")
        _, support = self._copies()
        if support is None:
            raise ValueError(
                "support was not kept, so images have no names; fit with keep_support=True, or remove(X, y)"
            )
        rows: list[int] = []
        for name in dict.fromkeys(ids):
            found = [i for i, known in enumerate(support.ids) if known == name]
            if not found:
                raise ValueError(f"there is no support image {name!r}; support_.ids lists them")
            if len(found) > 1 and not is_name(name):
                raise ValueError(f"{len(found)} support images are {name}; learn them with ids=, or use remove(X, y)")
            rows += found
        return self._remove_rows(rows, drop_empty)

    def rename_class(self, old: Any, new: Any) -> Self:
        """Give a class another label; what it has learned stays.

        Raises
        ------
        ValueError
            If there is no class `old`, or `new` is one already. The classifier is then unchanged.
        TypeError
            If `new` is of another type than the other labels.
        """
        classifier, support = self._copies()
        classifier.rename_class(old, new)
        support = support and support.renamed(old, new, classifier.classes_.dtype)
        return self.publish(self.embedder_, classifier, support)

    def merge(self, other: Self) -> Self:
        """Learn all that another classifier has learned, by addition: as if its images had been shown to this one.

        Parameters
        ----------
        other : classifier
            Of the same network, preprocessing and learner; it is not changed.

        Raises
        ------
        ValueError
            If network, preprocessing or learner differ, or this one keeps its support and the other did not. The
            classifier is then unchanged.
        """
        check_is_fitted(other)
        classifier, support = self._copies()
        mine, theirs = self.embedder_.fingerprint, other.embedder_.fingerprint
        if mine != theirs:
            raise ValueError(
                f"the other classifier has another network or preprocessing ({theirs[:12]}, here {mine[:12]}); "
                "their embeddings cannot be compared, so fit one of them anew with the other's backbone"
            )
        if support is not None and other.support_ is None:
            raise ValueError(
                "the other classifier kept no support; merge this one into it, or set_params(keep_support=False) here"
            )
        classifier.merge(other.classifier_)
        if support is not None and other.support_ is not None:
            support = trimmed(classifier, support + other.support_)
        return self.publish(self.embedder_, classifier, support)

    def _copies(self) -> tuple[FewShotClassifier, Support | None]:
        check_is_fitted(self)
        return copy.copy(self.classifier_), self.support_ if self.keep_support else None

    def _remove_rows(self, rows: Sequence[int], drop_empty: bool) -> Self:
        classifier, support = self._copies()
        if support is None or not rows:
            return self  # type: ignore[return-value, unused-ignore]
        gone = support.rows(rows)
        classifier.remove(gone.embeddings, gone.labels, drop_empty=drop_empty)
        return self.publish(self.embedder_, classifier, support.without(rows))


def trimmed(classifier: FewShotClassifier, support: Support) -> Support:
    """Return the support that a bounded memory still has."""
    return support.rows(classifier.model_.kept_rows(support.embeddings, support.labels).tolist())


def _find(support: Support, embeddings: NDArray[np.float32], labels: NDArray[Any]) -> list[int]:
    """Return the row of kept support that is the image of each embedding (n, d), no row twice."""
    rows: list[int] = []
    bounds = SAME_IMAGE * np.linalg.norm(embeddings, axis=1)
    for i, (embedding, label) in enumerate(zip(embeddings, labels.tolist(), strict=True)):
        places = [place for place in support.places(label) if place not in rows]
        apart = np.linalg.norm(support.embeddings[places] - embedding, axis=1)
        if not places or apart.min() > bounds[i]:
            raise ValueError(f"image {i} is not among the support images of {label!r}; give images that were learned")
        rows.append(places[int(apart.argmin())])
    return rows
