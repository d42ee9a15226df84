"""How what a classifier of images has learned is changed afterwards: images and classes removed, renamed, merged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from fewshot.conversion.containers import to_array
from fewshot.conversion.labels import as_labels, plain_label
from fewshot.data.decode import is_name
from fewshot.errors import brief
from fewshot.locks import lock_of, one_at_a_time
from fewshot.model.inputs import labelled, names_of
from fewshot.model.learned import Learned, Prepared, trimmed, warn_of_same_images
from fewshot.support import Support
from fewshot.twins import SAME_IMAGE


class ImageEditingMixin:
    """Changes of a fitted classifier of images; each is made at once and whole, a failure leaves what was there."""

    if TYPE_CHECKING:

        def _moment(self, prepared: Prepared | None = None) -> Learned:
            """Return what is known now, to be changed."""

        def _known(self, name: str) -> Learned:
            """Return what is known now."""

        def _publish(self, learned: Learned) -> Self:
            """Answer with this from now on."""

    @one_at_a_time
    def remove_class(self, label: Any) -> Self:
        """Forget a class and all of its support; the others answer as if it had never been learned.

        Raises
        ------
        ValueError
            If there is no such class, or it is the only one. The classifier is then unchanged.
        """
        now = self._moment()
        now.classifier.remove_class(label)
        support = now.support and now.support.without(now.support.places(label))
        return self._publish(replace(now, support=support))

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
        while True:
            prepared = self.prepare_removal(X, y)
            with lock_of(self):
                if self._moment().takes(prepared):  # else another thread has called fit while these were embedded
                    return self.unlearn(prepared, drop_empty=drop_empty)

    def prepare_removal(self, X: Any, y: ArrayLike | None = None) -> Prepared:
        """Embed images that are to be removed: all of `remove` that takes long. `unlearn` does the rest."""
        now = self._moment()
        items, labels = labelled(X, y, now.embedder.as_items, now.classifier.classes_)
        embedded = now.embedder.embed(items, on_error="raise")
        return Prepared(names_of(items, None, ()), False, labels, embedded, now.embedder)

    @one_at_a_time
    def unlearn(self, prepared: Prepared, *, drop_empty: bool = True) -> Self:
        """Remove what `prepare_removal` has embedded, here or by another classifier of the same network."""
        now = self._moment(prepared)
        embeddings = prepared.embedded.embeddings
        labels = as_labels(prepared.labels, known=now.classifier.classes_)  # which may have grown since
        if now.support is None:
            now.classifier.remove(embeddings, labels, drop_empty=drop_empty)
            return self._publish(now)
        return self._remove_rows(now, _find(now.support, embeddings, labels, prepared.names), drop_empty)

    @one_at_a_time
    def remove_support(self, ids: Sequence[str], *, label: Any = None, drop_empty: bool = True) -> Self:
        """Forget support images by their names; nothing is embedded again.

        Parameters
        ----------
        ids : sequence of str or path
            Paths as they were learned, or the names given then; an image that was learned twice under one name goes
            twice.
        label : object, optional
            Their class: images of the same name that were learned as another class stay. By default they go too.
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
        if isinstance(ids, (str, os.PathLike)):
            raise TypeError(f"ids is one name; pass a list of them, e.g. [{brief(repr(ids))}]")
        now = self._moment()
        if (support := now.support) is None:
            raise ValueError(
                "support was not kept, so images have no names; fit with keep_support=True, or remove(X, y)"
            )
        rows: list[int] = []
        places = range(len(support)) if label is None else support.places(label)
        given = (
            os.fspath(id) if isinstance(id, os.PathLike) else plain_label(id) for id in to_array(ids, as_list=True)
        )
        for name in dict.fromkeys(given):
            found = [i for i in places if support.ids[i] == name]
            if not found:
                raise ValueError(f"there is no support image {brief(repr(name))}; support_.ids lists them")
            if len(found) > 1 and not is_name(name):
                raise ValueError(f"{len(found)} support images are {name}; learn them with ids=, or use remove(X, y)")
            rows += found
        return self._remove_rows(now, rows, drop_empty)

    @one_at_a_time
    def rename_class(self, old: Any, new: Any) -> Self:
        """Give a class another label; what it has learned stays.

        Raises
        ------
        ValueError
            If there is no class `old`, or `new` is one already. The classifier is then unchanged.
        TypeError
            If `new` is of another type than the other labels.
        """
        now = self._moment()
        now.classifier.rename_class(old, new)
        support = now.support and now.support.renamed(old, new, now.classifier.classes_.dtype)
        return self._publish(replace(now, support=support))

    @one_at_a_time
    def merge(self, other: Self) -> Self:
        """Learn all that another classifier has learned, by addition: as if its images had been shown to this one.

        Parameters
        ----------
        other : classifier
            Of the same network, preprocessing and learner; it is not changed. Images that both have learned count
            twice; where both keep their support, a warning names them.

        Raises
        ------
        ValueError
            If network, preprocessing or learner differ, or this one keeps its support and the other did not. The
            classifier is then unchanged.
        """
        check_is_fitted(other)
        now, given = self._moment(), other._known("classifier_")
        mine, theirs = now.embedder.fingerprint, given.embedder.fingerprint
        if mine != theirs:
            raise ValueError(
                f"the other classifier has another network or preprocessing ({theirs[:12]}, here {mine[:12]}); "
                "their embeddings cannot be compared, so fit one of them again with the other's backbone"
            )
        support, more = now.support, given.support
        if support is not None and more is None:
            raise ValueError(
                "the other classifier kept no support; merge this one into it, or set_params(keep_support=False) here"
            )
        now.classifier.merge(given.classifier)
        if support is not None and more is not None:
            warn_of_same_images(support, more.ids, more.embeddings)
            support = trimmed(now.classifier, support + more)
        return self._publish(replace(now, support=support))

    def _remove_rows(self, now: Learned, rows: Sequence[int], drop_empty: bool) -> Self:
        if now.support is None or not rows:
            return self  # type: ignore[return-value, unused-ignore]
        gone = now.support.rows(rows)
        now.classifier.remove(gone.embeddings, gone.labels, drop_empty=drop_empty)
        return self._publish(replace(now, support=now.support.without(rows)))


def _find(support: Support, embeddings: NDArray[np.float32], labels: NDArray[Any], names: Sequence[str]) -> list[int]:
    """Return the row of kept support that is the image of each embedding (n, d), no row twice."""
    rows: list[int] = []
    bounds = SAME_IMAGE * np.linalg.norm(embeddings, axis=1)
    for i, (embedding, label) in enumerate(zip(embeddings, labels.tolist(), strict=True)):
        places = [place for place in support.places(label) if place not in rows]
        apart = np.linalg.norm(support.embeddings[places] - embedding, axis=1)
        if not places or apart.min() > bounds[i]:
            raise ValueError(
                f"image {i}, {names[i]}, is not among the support images of {label!r}; give images that were learned"
            )
        rows.append(places[int(apart.argmin())])
    return rows
