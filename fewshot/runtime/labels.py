"""Labels on a device: whole numbers, truth values or text, never turned from one into another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = {"b": "truth values", "i": "integers", "u": "integers", "U": "text", "O": "text"}


def is_writable(labels: NDArray[Any]) -> bool:
    """Whether a device can hold such labels."""
    return labels.dtype.kind in "biuU" or all(isinstance(label, str) for label in labels.tolist())


def check_labels(y: Any, n: int, known: NDArray[Any]) -> NDArray[Any]:
    """Return the labels of `n` images as an array that can join those that are `known`.

    Raises
    ------
    ValueError
        If there is not one label for each image.
    TypeError
        If they are not all of the kind of the known ones.

    Examples
    --------
    >>> check_labels(["bee", "ant"], 2, np.array(["ant"]))
    array(['bee', 'ant'], dtype='<U3')
    """
    labels = list(y.tolist() if hasattr(y, "tolist") else y)
    if len(labels) != n:
        raise ValueError(f"there are {n} images and {len(labels)} labels; give one label for each image")
    expected = _KINDS[known.dtype.kind]
    for i, label in enumerate(labels):
        if (found := _kind(label)) != expected:
            raise TypeError(f"label {i} is {label!r}, which is {found}; the classes are {expected}: give such labels")
    # Numpy's own text would lose a NUL at its end, where the known is kept as objects.
    return np.array(labels, dtype=object if known.dtype == object else {"integers": np.int64}.get(expected))


def _kind(label: Any) -> str:
    if isinstance(label, (bool, np.bool_)):
        return "truth values"
    if isinstance(label, (int, np.integer)):
        return "integers"
    return "text" if isinstance(label, str) else f"of type {type(label).__name__}"
