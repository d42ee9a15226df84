"""The answer to a query that no class can answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.labels import WIDEST, plain_label
from fewshot.utils.warning import warn


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
            f"unknown_label={mark!r} is a class; choose another, or another name for the class: an answer must say "
            "which of the two it is"
        )
    return mark


def check_unknown(unknown_label: Any, classes: NDArray[Any], before: NDArray[Any] | None = None) -> None:
    """Refuse a change after which an answer could mean a class and the unknown alike.

    Parameters
    ----------
    unknown_label : object
        As for `unknown_mark`.
    classes : ndarray
        The classes after the change.
    before : ndarray, optional
        The classes before it. Where no label was chosen and they were ambiguous already, nothing is refused: this
        change is not to blame.

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
    """Return `labels` (n, ...) with the mark in the rows where `unknown` (n,); of type object if types differ.

    Where no label was chosen, and the default is a class or there is none, the mark is None, with a warning: what can
    be answered is answered.

    Raises
    ------
    ValueError
        If the `unknown_label` that was chosen is a class.
    """
    if not unknown.any():
        return labels
    try:
        mark = unknown_mark(unknown_label, classes)
    except ValueError as error:
        if unknown_label is not None:
            raise
        warn(f"unknown queries are answered None: {error}")
        mark = None
    marked = labels.astype(object)
    marked[unknown] = mark
    same_kind = mark is not None and np.asarray(mark).dtype.kind == classes.dtype.kind
    fits = not isinstance(mark, str) or (len(mark) <= WIDEST and not mark.endswith("\0"))
    return np.asarray(marked.tolist()) if same_kind and fits and labels.dtype != object else marked


def _is_class(mark: Any, classes: NDArray[Any]) -> bool:
    if isinstance(mark, str) and mark.endswith("\0"):  # numpy takes it for the text without
        return mark in classes.tolist()
    same = np.asarray(classes == mark)
    return bool(same.any()) and any(label == mark for label in classes[same].tolist())
