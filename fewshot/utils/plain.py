"""Values as plain Python ones, which JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fewshot.utils.labels import plain_label


def plain_dict(**facts: Any) -> dict[str, Any]:
    """Return facts as text, numbers, booleans and None, in lists and dictionaries, as ``to_dict`` methods do.

    What is not known or not finite, such as NaN, is None. An object of another type becomes its text.

    Examples
    --------
    >>> plain_dict(interval=(np.float32(0.5), math.nan), counts=np.array([1, 2]))
    {'interval': [0.5, None], 'counts': [1, 2]}
    """
    return {name: plain(value) for name, value in facts.items()}


def plain(value: Any) -> Any:
    """Return a value as plain ones; see `plain_dict`."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    value = plain_label(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def confusion_rows(labels: list[Any], counts: np.ndarray[Any, Any], unit: str = "images") -> list[dict[str, Any]]:
    """Return how often each class (rows of `counts`) got each answer (columns), without what did not occur.

    Examples
    --------
    >>> confusion_rows(["ant", "bee"], np.array([[3, 1], [0, 0]]))
    [{'class': 'ant', 'answer': 'ant', 'images': 3}, {'class': 'ant', 'answer': 'bee', 'images': 1}]
    """
    pairs = zip(*(places.tolist() for places in np.nonzero(counts)), strict=True)
    return [{"class": labels[i], "answer": labels[j], unit: int(counts[i, j])} for i, j in pairs]
