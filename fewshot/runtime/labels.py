"""Labels on a device: whole numbers, truth values or text, never turned from one into another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.labels import as_labels


def is_writable(labels: NDArray[Any]) -> bool:
    """Whether a device can hold such labels."""
    if labels.dtype == np.uint64:  # joined with signed integers it would become float
        return False
    return labels.dtype.kind in "biuU" or all(isinstance(label, str) for label in labels.tolist())


def device_labels(y: Any, n: int, known: NDArray[Any]) -> NDArray[Any]:
    """Return the labels of `n` images as an array that can join those that are `known`.

    Raises
    ------
    ValueError
        If there is not one label for each image, or a number is too large.
    TypeError
        If they are not all of the kind of the known ones.

    Examples
    --------
    >>> device_labels(["bee", "ant"], 2, np.array(["ant"]))
    array(['bee', 'ant'], dtype='<U3')
    """
    labels = as_labels(y, name="the list of labels", known=known)
    if len(labels) != n:
        raise ValueError(f"there are {n} images and {len(labels)} labels; give one label for each image")
    if not is_writable(labels):
        raise TypeError(f"labels are {labels.dtype}; a device keeps text, integers and truth values: give such labels")
    return labels
