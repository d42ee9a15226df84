"""How labels are written down: as JSON, with their type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.labels import LONGEST, as_labels

#: Python's types of the labels of a kind of array.
_TYPES: dict[str, type | tuple[type, ...]] = {"b": bool, "i": int, "u": int, "f": (int, float), "U": str, "O": str}
#: The kind of an array, and the width of text.
_DTYPE = re.compile(r"[<>|=]?(?:(?=b1|[iu][1248]|f[248])([biuf])\d|([UO])(\d{0,9}))")


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
    values, dtype = labels.tolist(), labels.dtype.str
    if labels.dtype.kind == "U":  # no wider than they are: a long one may have gone
        dtype = f"{dtype[:2]}{max(map(len, values), default=1) or 1}"
    return {"dtype": dtype, "values": values}


def labels_from_json(saved: Any) -> NDArray[Any]:
    """Return the labels that `labels_to_json` wrote; anyone may have written them.

    Raises
    ------
    ValueError
        If they are not of the type that they say they are.

    Examples
    --------
    >>> labels_from_json({"dtype": "<U10", "values": ["ant"]})
    array(['ant'], dtype='<U3')
    >>> labels_from_json({"dtype": "<i8", "values": [0.5]})
    Traceback (most recent call last):
    ValueError: labels are not int64, as they say; expected text, integers or truth values
    """
    if not isinstance(saved, Mapping) or not isinstance(saved.get("values"), list):
        raise ValueError(f"labels are {saved!r:.60}; expected their dtype and values")
    dtype, values = saved.get("dtype"), saved["values"]
    found = _DTYPE.fullmatch(dtype) if isinstance(dtype, str) else None
    if found is None:
        raise ValueError(f"labels are {dtype!r:.60}; expected text, integers or truth values")
    kind, width = found[1] or found[2], int(found[3] or 0)
    fits = all(isinstance(v, _TYPES[kind]) and (kind == "b") == isinstance(v, bool) for v in values)
    if fits and (kind == "O" or (kind == "U" and max(map(len, values), default=0) <= width <= LONGEST)):
        # As wide as it needs to be: older files say a little more.
        labels = as_labels(values, name="the list of labels") if values else np.array([], dtype=str)
        return labels.astype(object) if kind == "O" else labels
    try:
        if fits and kind != "U":
            return np.array(values, dtype=np.dtype(dtype))
    except OverflowError:
        pass
    shown = dtype if kind in "UO" else np.dtype(dtype)
    raise ValueError(f"labels are not {shown}, as they say; expected text, integers or truth values")
