"""The labelled items that a model is given, before and after they are embedded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from fewshot.data.images import LabeledImages
from fewshot.data.opening import describe
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.network import Embedded
from fewshot.embedding.own import OwnEmbedder
from fewshot.errors import brief
from fewshot.utils.containers import to_array
from fewshot.utils.labels import as_labels, plain_label


@dataclass(frozen=True, eq=False)
class Prepared:
    """Labelled items that are already embedded; see `FewShotModel.prepare`.

    Attributes
    ----------
    names : sequence of str
        Names under which kept support stores the items.
    named : bool
        Whether the user chose the names, which must then be new.
    labels : ndarray of shape (n,)
        Labels.
    embedded : Embedded
        Embeddings of the items.
    embedder : Embedder or OwnEmbedder
        What computed them.
    """

    names: Sequence[str]
    named: bool
    labels: Any
    embedded: Embedded
    embedder: Embedder | OwnEmbedder

    def without_unreadable(self, on_error: str) -> Prepared:
        """Drop the items that could not be read.

        Raises
        ------
        ImageDecodeError
            If an item could not be read, unless `on_error` is "skip" and others could; then a warning names it.
        """
        if not self.embedded.errors:
            return self
        unreadable = {error.index for error in self.embedded.errors}
        rows = [i for i in range(len(self.names)) if i not in unreadable]
        if on_error == "skip":
            self.embedded.warn()
        if on_error != "skip" or not rows:
            raise self.embedded.errors[0]
        thumbnails = [self.embedded.thumbnails[i] for i in rows] if self.embedded.thumbnails else []
        embedded = Embedded(self.embedded.embeddings[rows], [], thumbnails)
        return replace(self, names=[self.names[i] for i in rows], labels=self.labels[rows], embedded=embedded)


def labelled(
    X: Any,
    y: Any,
    as_items: Callable[[Any], Sequence[Any]] = Embedder.as_items,
    known: NDArray[Any] | None = None,
) -> tuple[Sequence[Any], NDArray[Any]]:
    """Return items and labels, from `LabeledImages` or from two collections.

    Parameters
    ----------
    X : collection of n items, or LabeledImages
        Items.
    y : array-like of shape (n,), or None
        Labels, as `as_labels` takes them.
    as_items : callable
        How the embedder turns a collection into a sequence.
    known : ndarray, optional
        Labels whose type `y` must share.

    Raises
    ------
    ValueError, TypeError
        If there are no items, the number of labels differs, or a label has an unsupported type.
    """
    if isinstance(X, LabeledImages):
        if y is not None:
            raise ValueError("X has labels already; leave y out, or pass X.images")
        X, y = X.images, X.labels
    if y is None:
        raise ValueError("y is missing; give one label for each image, or LabeledImages")
    items, labels = as_items(X), as_labels(y, known=known)
    if not len(items):
        raise ValueError("there are no images to learn from; give at least one of each class")
    if len(items) != len(labels):
        raise ValueError(f"X has {len(items)} images and y {len(labels)} labels; give one label for each image")
    return items, labels


def names_of(items: Sequence[Any], ids: Sequence[str] | None, known: Collection[str]) -> Sequence[str]:
    """Return the names of items: `ids`, which must be new, or by default a description such as the path.

    Raises
    ------
    ValueError
        If the number of names differs from the number of items, or a name is in use.
    """
    if ids is None:
        return list(map(describe, items))
    ids = [plain_label(name) for name in to_array(ids, as_list=True)]
    if len(ids) != len(items):
        raise ValueError(f"there are {len(ids)} ids for {len(items)} images; give one for each, or none")
    check_new_names(ids, known)
    return ids


def check_new_names(names: Sequence[str], known: Collection[str]) -> None:
    """Raise if a name is not text, occurs twice, or is known already."""
    seen = set(known)
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"id {i} is {brief(repr(name))}; expected text")
        if name in seen:
            raise ValueError(
                f"the id {brief(repr(name))} is in use; remove that image first (remove_support), or choose another"
            )
        seen.add(name)
