"""What a classifier of images is given: labelled images, and what to do where one cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from numpy.typing import NDArray

from fewshot.data.images import LabeledImages, as_items
from fewshot.data.opening import describe
from fewshot.errors import brief
from fewshot.utils.containers import to_array
from fewshot.utils.labels import as_labels, plain_label


def labelled(
    X: Any, y: Any, as_items: Callable[[Any], Sequence[Any]] = as_items, known: NDArray[Any] | None = None
) -> tuple[Sequence[Any], NDArray[Any]]:
    """Return images and their labels, from `LabeledImages` or from the two of them.

    Parameters
    ----------
    X : collection of n images, or LabeledImages
        Images.
    y : array-like of shape (n,), or None
        Labels, as `as_labels` takes them.
    as_items : callable
        How the embedder makes a sequence of a collection.
    known : ndarray, optional
        Labels that these must be able to join.

    Raises
    ------
    ValueError, TypeError
        If there are no images, not one label for each, or the labels are none that can be learned.
    """
    if isinstance(X, LabeledImages):
        if y is not None:
            raise ValueError("X has labels of its own; leave y out, or pass X.images")
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
    """Return the names of images: those given, which must be new, or what they are called by themselves.

    Raises
    ------
    ValueError
        If there is not one name for each, or one is in use.
    """
    if ids is None:
        return list(map(describe, items))
    ids = [plain_label(name) for name in to_array(ids, as_list=True)]
    if len(ids) != len(items):
        raise ValueError(f"there are {len(ids)} ids for {len(items)} images; give one for each, or none")
    check_new_names(ids, known)
    return ids


def check_new_names(names: Sequence[str], known: Collection[str]) -> None:
    """Refuse names that are no text, stand there twice, or are known already."""
    seen = set(known)
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"id {i} is {brief(repr(name))}; expected text")
        if name in seen:
            raise ValueError(
                f"the id {brief(repr(name))} is in use; remove that image first (remove_support), or choose another"
            )
        seen.add(name)
