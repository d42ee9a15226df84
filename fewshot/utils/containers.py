"""Convert arrays, tables and series of other libraries to numpy."""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Sequence, Set
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_numpy(x: Any) -> Any:
    """Return an array of another library as a numpy array with the same values; return anything else unmodified.

    Tensors are detached and moved to the CPU. bfloat16 and 8-bit floats, which numpy lacks, become float32.
    """
    if isinstance(x, np.ndarray):
        return x.astype(np.float32) if x.dtype.kind == "V" and "float" in x.dtype.name else x
    if hasattr(x, "detach") and hasattr(x, "cpu"):
        return _of_tensor(x.detach().cpu())
    if hasattr(x, "__cuda_array_interface__") and hasattr(x, "get"):
        return x.get()
    return x.as_py() if hasattr(x, "as_py") else x


def to_array(x: Any, as_list: bool = False) -> NDArray[Any] | list[Any]:
    """Return a container as a numpy array, or as a list if it is a list, tuple or other iterable.

    Parameters
    ----------
    x : container of n elements
        The container.
    as_list : bool, default=False
        Whether to return series and columns of other libraries as lists: numpy would turn integers with nulls into
        floats, and drop a NUL at the end of text.

    Raises
    ------
    TypeError
        If it is text, has no order, or is not a container.
    """
    x = to_numpy(x)
    if isinstance(x, np.ndarray):
        return _without_mask(x)
    if isinstance(x, (list, tuple)):
        return list(x)
    has_no_order = isinstance(x, (Mapping, Set)) and not isinstance(x, KeysView)
    if has_no_order or isinstance(x, (str, bytes, bytearray)) or not _is_container(x):
        raise TypeError(f"found {x!r:.50}, of type {type(x).__name__}; give a list or an array")
    if is_table(x):
        return np.asarray(x)
    if as_list and (not isinstance(getattr(x, "dtype", None), np.dtype) or x.dtype.kind == "O"):
        for listed in ("to_pylist", "to_list"):
            if hasattr(x, listed):
                return list(getattr(x, listed)())
    if _is_array(x):
        return _without_mask(to_numpy(np.asarray(x)))
    return list(x)


def is_table(x: Any) -> bool:
    """Whether this is a data frame or table of any library, that is, has named columns."""
    return hasattr(x, "__array__") and (hasattr(x, "columns") or hasattr(x, "column_names"))


def is_missing(value: Any) -> bool:
    """Whether a value is missing: None, NaN, or the missing value of pandas, numpy or Arrow."""
    if value is None or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return True
    if hasattr(value, "as_py") and getattr(value, "is_valid", True) is False:
        return True
    return isinstance(value, (float, np.floating, np.datetime64, np.timedelta64)) and bool(value != value)


def own_index(x: Any, row: int) -> str:
    """Return what a series or frame of pandas calls a row, for a message; nothing if it is the number of the row.

    Examples
    --------
    >>> import pandas as pd
    >>> own_index(pd.Series(["ant", None], index=[7, 3]), 1), own_index(["ant", None], 1)
    (' (index 3)', '')
    """
    index = getattr(x, "index", None)
    if index is None or callable(index):  # lists have a method of that name
        return ""
    own = index[row]
    return "" if isinstance(own, Integral) and own == row else f" (index {own})"


def _is_array(x: Any) -> bool:
    return any(hasattr(x, name) for name in ("__array__", "__array_interface__", "__dlpack__")) or (
        isinstance(x, memoryview) or type(x).__module__ == "array"
    )


def _is_container(x: Any) -> bool:
    return _is_array(x) or isinstance(x, (Iterable, Sequence)) or hasattr(x, "to_pylist")


def _of_tensor(tensor: Any) -> NDArray[Any]:
    if getattr(tensor, "is_sparse", False):
        raise TypeError("found a sparse tensor; pass .to_dense()")
    try:
        return tensor.numpy()
    except TypeError:  # numpy lacks the type
        return tensor.float().numpy()


def _without_mask(x: NDArray[Any]) -> NDArray[Any]:
    """Replace masked elements by NaN among floats, else by None."""
    if not isinstance(x, np.ma.MaskedArray):
        return np.asarray(x)  # subclasses, such as matrices, have other shapes
    if not np.ma.is_masked(x):
        return np.asarray(x.data)
    shown = np.array(x.data) if x.dtype.kind == "f" else x.data.astype(object)
    shown[np.ma.getmaskarray(x)] = np.nan if x.dtype.kind == "f" else None
    return shown
