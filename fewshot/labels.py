"""How labels are written down: as JSON, with their type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    """Return the labels that `labels_to_json` wrote."""
    return np.array(saved["values"], dtype=np.dtype(saved["dtype"]))
