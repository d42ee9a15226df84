"""How labels are written down: as JSON, with their type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.conversion.labels import LONGEST, as_labels


def labels_to_json(labels: NDArray[Any]) -> dict[str, Any]:
    """Return labels as JSON can hold them, with their type.

    Raises
    ------
    ValueError
        If it cannot.

    Examples
    --------
    >>> labels_from_json(labels_to_json(np.array(["ant", "bee"])))
    array(['ant', 'bee'], dtype='<U3')
    """
    if labels.dtype.kind not in "biufUO":
        raise ValueError(f"labels are {labels.dtype}, which JSON cannot hold; use text or integers to save")
    return {"dtype": labels.dtype.str, "values": labels.tolist()}


def labels_from_json(saved: Mapping[str, Any]) -> NDArray[Any]:
    """Return the labels that `labels_to_json` wrote.

    Raises
    ------
    ValueError
        If they are no labels, or not of the type that they are said to be.
    """
    dtype, values = saved["dtype"], saved["values"]
    if not isinstance(dtype, str) or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|U\d+|O8?)", dtype):
        raise ValueError(f"labels are of the type {dtype!r:.40}; expected text, integers or truth values, or floats")
    if not isinstance(values, list) or not all(isinstance(value, (str, bool, int, float)) for value in values):
        raise ValueError("labels are no list; expected text, integers or truth values, or floats")
    # Text gets the width that it needs, and never memory for what the file says.
    labels = as_labels(values, name="the list of labels", any_type=True)
    if "U" not in dtype and "O" not in dtype:
        found = labels.astype(np.dtype(dtype)) if labels.dtype.kind in "bif" else None
        if found is None or found.tolist() != values:
            raise ValueError(f"labels are not {np.dtype(dtype)}, as it says")
        return found
    width = int(dtype.partition("U")[2] or LONGEST)
    if any(not isinstance(value, str) or len(value) > width for value in values):
        raise ValueError(f"labels are not {dtype}, as it says")
    return labels.astype(object) if "O" in dtype or not values else labels
