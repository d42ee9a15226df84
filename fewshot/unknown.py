"""The answer to a query that no class can answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unknown_mark(unknown_label: Any, classes: NDArray[Any]) -> Any:
    """Return the label for what is unknown: `unknown_label`, or by default ``"unknown"`` or -1, as `classes` are.

    Raises
    ------
    ValueError
        If there is no default for such classes, or the label is one of them.

    Examples
    --------
    >>> unknown_mark(None, np.array(["ant", "bee"]))
    'unknown'
    """
    mark = unknown_label
    if mark is None:
        if classes.dtype.kind in "iu":
            mark = -1
        elif isinstance(classes[0], str):
            mark = "unknown"
        else:
            raise ValueError(f"no default unknown_label for labels of type {classes.dtype}; set one")
    if np.any(classes == mark):
        raise ValueError(f"unknown_label={mark!r} is a class; choose another")
    return mark


def mark_unknown(
    labels: NDArray[Any], unknown: NDArray[np.bool_], unknown_label: Any, classes: NDArray[Any]
) -> NDArray[Any]:
    """Return `labels` (n, ...) with the mark in the rows where `unknown` (n,); of type object if types differ."""
    if not unknown.any():
        return labels
    mark = unknown_mark(unknown_label, classes)
    marked = labels.astype(object)
    marked[unknown] = mark
    same_kind = np.asarray(mark).dtype.kind == classes.dtype.kind
    return np.asarray(marked.tolist()) if same_kind and labels.dtype != object else marked
