"""Labels as JSON, with their type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.labels import LONGEST, as_labels

#: Kind of array -> Python types of its labels.
_TYPES: dict[str, type | tuple[type, ...]] = {"b": bool, "i": int, "u": int, "f": (int, float), "U": str, "O": str}
#: Matches the dtypes of labels: the kind of array, and the width of text.
_DTYPE = re.compile(r"[<>|=]?(?:(?=b1|[iu][1248]|f[248])([biuf])\d|([UO])(\d{0,9}))")


def labels_to_json(labels: NDArray[Any]) -> dict[str, Any]:
    """Return labels and their type as values that JSON can hold.

    Raises
    ------
    ValueError
        If JSON cannot hold labels of this type.

    Examples
    --------
    >>> labels_from_json(labels_to_json(np.array(["ant", "bee"])))
    array(['ant', 'bee'], dtype='<U3')
    """
    if labels.dtype.kind not in "biufUO":
        raise ValueError(f"labels are {labels.dtype}, which JSON cannot hold; use text or integers to save")
    values, dtype = labels.tolist(), labels.dtype.str
    if labels.dtype.kind == "U":  # a longer label may have been removed
        dtype = f"{dtype[:2]}{max(map(len, values), default=1) or 1}"
    return {"dtype": dtype, "values": values}


def labels_from_json(saved: Any) -> NDArray[Any]:
    """Return the labels that `labels_to_json` wrote, without trusting them.

    Raises
    ------
    ValueError
        If they do not have their declared type.

    Examples
    --------
    >>> labels_from_json({"dtype": "<U10", "values": ["ant"]})
    array(['ant'], dtype='<U3')
    >>> labels_from_json({"dtype": "<i8", "values": [0.5]})
    Traceback (most recent call last):
    ValueError: labels do not have their declared type, int64; expected text, integers or booleans
    """
    if not isinstance(saved, Mapping) or not isinstance(saved.get("values"), list):
        raise ValueError(f"labels are {saved!r:.60}; expected their dtype and values")
    dtype, values = saved.get("dtype"), saved["values"]
    found = _DTYPE.fullmatch(dtype) if isinstance(dtype, str) else None
    if found is None:
        raise ValueError(f"labels are {dtype!r:.60}; expected text, integers or booleans")
    kind, width = found[1] or found[2], int(found[3] or 0)
    fits = all(isinstance(v, _TYPES[kind]) and (kind == "b") == isinstance(v, bool) for v in values)
    if fits and (kind == "O" or (kind == "U" and max(map(len, values), default=0) <= width <= LONGEST)):
        # The width may be smaller than declared: older files declare a little more.
        labels = as_labels(values, name="the list of labels") if values else np.array([], dtype=str)
        return labels.astype(object) if kind == "O" else labels
    try:
        if fits and kind != "U":
            return np.array(values, dtype=np.dtype(dtype))
    except OverflowError:
        pass
    shown = dtype if kind in "UO" else np.dtype(dtype)
    raise ValueError(f"labels do not have their declared type, {shown}; expected text, integers or booleans")
