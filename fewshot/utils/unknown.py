"""The label of queries that belong to no known class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.labels import WIDEST, plain_label
from fewshot.utils.warning import warn


def unknown_mark(unknown_label: Any, classes: NDArray[Any]) -> Any:
    """Return the label of unknown queries: `unknown_label`, or by default ``"unknown"`` or -1, of the classes' type.

    Raises
    ------
    ValueError
        If classes of this type have no default, or the label is a class.

    Examples
    --------
    >>> unknown_mark(None, np.array(["ant", "bee"]))
    'unknown'
    """
    mark = plain_label(unknown_label)
    if mark is None:
        if classes.dtype.kind in "iu":
            mark = -1
        elif isinstance(classes[0], str):
            mark = "unknown"
        else:
            raise ValueError(f"no default unknown_label for labels of type {classes.dtype}; set one")
    if _is_class(mark, classes):
        raise ValueError(
            f"unknown_label={mark!r} is a class; choose another, or rename the class: an answer must tell the two apart"
        )
    return mark


def check_unknown(unknown_label: Any, classes: NDArray[Any], before: NDArray[Any] | None = None) -> None:
    """Raise for a change of classes that would make answers ambiguous between a class and "unknown".

    Parameters
    ----------
    unknown_label : object
        As for `unknown_mark`.
    classes : ndarray
        The classes after the change.
    before : ndarray, optional
        The classes before it. If no `unknown_label` is set and they were ambiguous already, nothing is raised.

    Raises
    ------
    ValueError
        As `unknown_mark`.
    """
    if before is not None and unknown_label is None:
        try:
            unknown_mark(unknown_label, before)
        except ValueError:
            return
    unknown_mark(unknown_label, classes)


def mark_unknown(
    labels: NDArray[Any], unknown: NDArray[np.bool_], unknown_label: Any, classes: NDArray[Any]
) -> NDArray[Any]:
    """Return `labels` (n, ...) with the unknown label in the `unknown` rows (n,); as objects if the types differ.

    If no label is set, and there is no default or the default is a class, these rows are None, with a warning.

    Raises
    ------
    ValueError
        If the given `unknown_label` is a class.
    """
    if not unknown.any():
        return labels
    try:
        mark = unknown_mark(unknown_label, classes)
    except ValueError as error:
        if unknown_label is not None:
            raise
        warn(f"unknown queries are answered with None: {error}")
        mark = None
    marked = labels.astype(object)
    marked[unknown] = mark
    same_kind = mark is not None and np.asarray(mark).dtype.kind == classes.dtype.kind
    fits = not isinstance(mark, str) or (len(mark) <= WIDEST and not mark.endswith("\0"))
    return np.asarray(marked.tolist()) if same_kind and fits and labels.dtype != object else marked


def _is_class(mark: Any, classes: NDArray[Any]) -> bool:
    if isinstance(mark, str) and mark.endswith("\0"):  # numpy ignores the NUL
        return mark in classes.tolist()
    same = np.asarray(classes == mark)
    return bool(same.any()) and any(label == mark for label in classes[same].tolist())
