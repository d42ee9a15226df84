"""Images with labels, checked once, in the form the samplers and the trainer take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """Images of one size with one label each.

    The arrays are taken as they are, without a copy, and never written to.

    Parameters
    ----------
    images : ndarray of shape (n, H, W) or (n, H, W, C), dtype uint8
        Grey or colour images, values 0..255, channels (1 to 4) last.
    labels : array-like of shape (n,)
        The class of each image: integers, strings or anything else that sorts and compares equal to itself.

    Raises
    ------
    TypeError
        If `images` is not uint8, or the labels cannot be sorted.
    ValueError
        If a shape does not fit, or a label is missing (NaN).

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot import LabeledImages
    >>> data = LabeledImages(np.zeros((3, 8, 8), np.uint8), ["cat", "dog", "cat"])
    >>> len(data), data.classes.tolist(), data.counts.tolist()
    (3, ['cat', 'dog'], [2, 1])
    """

    images: NDArray[np.uint8]
    labels: NDArray[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", _check_images(np.asarray(self.images)))
        object.__setattr__(self, "labels", _check_labels(np.asarray(self.labels), len(self.images)))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.images.shape[1:]))
        return f"LabeledImages({len(self)} images of {size}, {len(self.classes)} classes)"

    @cached_property
    def _codes(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The sorted classes, and each row's position among them."""
        classes, codes = np.unique(self.labels, return_inverse=True)
        return classes, codes

    @property
    def classes(self) -> NDArray[Any]:
        """The distinct labels, sorted, of shape (n_classes,)."""
        return self._codes[0].copy()

    @property
    def counts(self) -> NDArray[np.int64]:
        """Images of each class, in the order of `classes`, of shape (n_classes,)."""
        return np.bincount(self._codes[1], minlength=len(self._codes[0]))

    def select(self, rows: ArrayLike) -> LabeledImages:
        """Return the images at `rows`, in that order.

        Parameters
        ----------
        rows : array-like of shape (m,)
            Row numbers, or a mask of n booleans.

        Returns
        -------
        LabeledImages
            Copies of these rows.

        Raises
        ------
        TypeError
            If `rows` holds neither integers nor booleans.
        ValueError
            If it is not one-dimensional, a row number is outside -n..n-1, or a mask is not of length n.

        Examples
        --------
        >>> import numpy as np
        >>> data = LabeledImages(np.zeros((3, 8, 8), np.uint8), [5, 6, 7])
        >>> data.select([2, 0]).labels.tolist(), data.select(data.labels > 5).labels.tolist()
        ([7, 5], [6, 7])
        """
        index = _check_rows(rows, len(self))
        return LabeledImages(self.images[index], self.labels[index])

    def with_classes(self, classes: ArrayLike) -> LabeledImages:
        """Return the images of these classes, in their present order.

        Parameters
        ----------
        classes : array-like of shape (m,)
            Labels that occur here.

        Raises
        ------
        ValueError
            If `classes` is not one-dimensional, or a class does not occur.

        Examples
        --------
        >>> import numpy as np
        >>> data = LabeledImages(np.zeros((3, 8, 8), np.uint8), ["a", "b", "c"])
        >>> data.with_classes(["c", "a"]).labels.tolist()
        ['a', 'c']
        """
        wanted = np.asarray(classes)
        if wanted.ndim != 1:
            raise ValueError(f"classes have shape {wanted.shape}; expected a list of labels, e.g. ['a', 'b']")
        # Not np.isin: it would turn the integer 1 into the string '1' when the types differ.
        position = {label: i for i, label in enumerate(self._codes[0].tolist())}
        unknown = [label for label in wanted.tolist() if label not in position]
        if unknown:
            raise ValueError(
                f"{len(unknown)} of the {len(wanted)} classes do not occur, e.g. {unknown[0]!r}; "
                f"expected labels that are in .classes, of the same type"
            )
        keep = np.zeros(len(position), dtype=bool)
        keep[[position[label] for label in wanted.tolist()]] = True
        return self.select(keep[self._codes[1]])


def _check_images(images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise TypeError(
            f"images are {images.dtype}; expected uint8, values 0..255 (for floats in 0..1: "
            "(255 * images).round().astype('uint8'))"
        )
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise ValueError(
            f"images have shape {images.shape}; expected (n, H, W) or (n, H, W, C); stack them in one array"
        )
    if images.ndim == 4 and images.shape[-1] > 4:
        raise ValueError(
            f"images have shape {images.shape}, so {images.shape[-1]} channels; expected 1 to 4 in the last axis; "
            "for channels-first arrays pass images.transpose(0, 2, 3, 1)"
        )
    return images


def _check_labels(labels: NDArray[Any], n: int) -> NDArray[Any]:
    if labels.shape != (n,):
        raise ValueError(f"labels have shape {labels.shape}; expected ({n},), one for each of the {n} images")
    if labels.dtype.kind not in "OfcmM":  # the others hold no value that differs from itself
        return labels
    missing = np.flatnonzero([label is None or label != label for label in labels.tolist()])
    if len(missing):
        raise ValueError(f"{len(missing)} labels are missing, first in row {missing[0]}; drop these rows or name them")
    if labels.dtype.kind == "O":
        try:
            sorted(set(labels.tolist()))
        except TypeError as error:
            raise TypeError(f"labels cannot be sorted ({error}); make them one type, e.g. all strings") from None
    return labels


def _check_rows(rows: ArrayLike, n: int) -> NDArray[Any]:
    index = np.asarray(rows)
    if index.ndim != 1:
        raise ValueError(f"rows have shape {index.shape}; expected a list of row numbers or a mask of {n} booleans")
    if index.size == 0 and index.dtype.kind == "f":  # np.asarray([]) is float
        index = index.astype(np.int64)
    if index.dtype.kind not in "biu":
        raise TypeError(f"rows are {index.dtype}; expected integers (row numbers) or {n} booleans (a mask)")
    if index.dtype.kind == "b" and len(index) != n:
        raise ValueError(f"the mask has {len(index)} entries; expected {n}, one for each image")
    if index.dtype.kind != "b" and index.size and not -n <= index.min() <= index.max() < n:
        raise ValueError(f"rows reach from {index.min()} to {index.max()}; expected row numbers in 0..{n - 1}")
    return index
