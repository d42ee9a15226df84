"""Labels on a device: integers, booleans or text, never converted into each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.labels import as_labels


def is_writable(labels: NDArray[Any]) -> bool:
    """Whether a device can store these labels."""
    if labels.dtype == np.uint64:  # numpy would join it with signed integers as float
        return False
    return labels.dtype.kind in "biuU" or all(isinstance(label, str) for label in labels.tolist())


def device_labels(y: Any, n: int, known: NDArray[Any]) -> NDArray[Any]:
    """Return the labels of `n` images as an array of the type of the `known` labels.

    Raises
    ------
    ValueError
        If the number of labels is not `n`, or an integer is too large.
    TypeError
        If their type differs from that of the known labels.

    Examples
    --------
    >>> device_labels(["bee", "ant"], 2, np.array(["ant"]))
    array(['bee', 'ant'], dtype='<U3')
    """
    labels = as_labels(y, name="the list of labels", known=known)
    if len(labels) != n:
        raise ValueError(f"there are {n} images and {len(labels)} labels; give one label for each image")
    if not is_writable(labels):
        raise TypeError(f"labels are {labels.dtype}; a device stores text, integers and booleans: use one of these")
    return labels
