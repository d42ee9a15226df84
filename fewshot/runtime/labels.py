"""Labels on a device: whole numbers, truth values or text, never turned from one into another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = {"b": "truth values", "i": "integers", "u": "integers", "U": "text", "O": "text"}
_DTYPES: dict[str, type] = {"truth values": bool, "integers": np.int64, "text": str}


def is_writable(labels: NDArray[Any]) -> bool:
    """Whether a device can hold such labels."""
    if labels.dtype == np.uint64:  # joined with signed integers it would become float
        return False
    return labels.dtype.kind in "biuU" or all(isinstance(label, str) for label in labels.tolist())


def check_labels(y: Any, n: int, known: NDArray[Any]) -> NDArray[Any]:
    """Return the labels of `n` images as an array that can join those that are `known`.

    Raises
    ------
    ValueError
        If there is not one label for each image, or a number is too large.
    TypeError
        If they are not all of the kind of the known ones.

    Examples
    --------
    >>> check_labels(["bee", "ant"], 2, np.array(["ant"]))
    array(['bee', 'ant'], dtype='<U3')
    """
    given = y.tolist() if hasattr(y, "tolist") else y
    if isinstance(given, (str, bytes, bytearray)) or not isinstance(given, Iterable):
        raise ValueError(f"labels are {given!r:.50}; give a list of them, one for each image")
    labels = list(given)
    if len(labels) != n:
        raise ValueError(f"there are {n} images and {len(labels)} labels; give one label for each image")
    expected = _KINDS[known.dtype.kind]
    for i, label in enumerate(labels):
        if (found := _kind(label)) != expected:
            raise TypeError(f"label {i} is {label!r}, which is {found}; the classes are {expected}: give such labels")
    # Numpy's own text would lose a NUL at its end.
    nul = expected == "text" and any(label.endswith("\0") for label in labels)
    try:
        return np.array(labels, dtype=object if nul or known.dtype.kind == "O" else _DTYPES[expected])
    except OverflowError:
        raise ValueError(
            f"labels are integers from {min(labels)} to {max(labels)}, which do not fit 64 bits, signed; give smaller "
            "ones, or text"
        ) from None


def _kind(label: Any) -> str:
    if isinstance(label, (bool, np.bool_)):
        return "truth values"
    if isinstance(label, (int, np.integer)):
        return "integers"
    return "text" if isinstance(label, str) else f"of type {type(label).__name__}"
