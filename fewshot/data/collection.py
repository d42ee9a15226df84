"""Convert collections of images or other items to sequences, and refuse single items."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence, Set
from typing import Any

from PIL import Image

from fewshot.data.opening import is_file


def as_sequence(X: Any, name: str = "X") -> Sequence[Any]:
    """Return a collection of images as a sequence of sources for `decode`.

    Parameters
    ----------
    X : collection of images
        A list, tuple, array or Series of paths, bytes, open files, PIL images, arrays or tensors; an array (n, h, w) or
        (n, h, w, c); a tensor (n, c, h, w); a data frame with one column.
    name : str, default="X"
        Name of the collection in messages.

    Raises
    ------
    TypeError
        If X is a single image, or not a collection of images.
    """
    verb = "are" if name.endswith("s") else "is"
    if isinstance(X, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, io.IOBase)) or is_file(X):
        raise TypeError(f"{name} {verb} one image ({type(X).__name__}); pass a list of images, e.g. [image]")
    X = _column(X, name)
    shape = getattr(X, "shape", None)
    if shape is None or len(shape) == 1:
        return _listed(X, name)
    colour_last = len(shape) == 3 and shape[-1] in (3, 4)
    colour_first = len(shape) == 3 and hasattr(X, "detach") and shape[0] in (1, 3, 4)
    if len(shape) not in (3, 4) or colour_last or colour_first:
        have = "have" if verb == "are" else "has"
        raise TypeError(
            f"{name} {have} shape {tuple(shape)}; expected images (n, h, w) or (n, h, w, c); for a single image pass "
            "[image]"
        )
    return X


def as_rows(X: Any) -> Sequence[Any]:
    """Return a collection of items of any kind as a sequence, with one item per row of an array.

    Parameters
    ----------
    X : collection
        A list, tuple, array, tensor, Series or data frame. The items of a data frame with a single column that is not
        numeric are its values.

    Raises
    ------
    TypeError
        If X is a single item, or has no length.
    """
    if isinstance(X, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)) or is_file(X):
        raise TypeError(f"X is one item ({type(X).__name__}); pass a list of items, e.g. [item]")
    if hasattr(X, "tocsr"):
        raise TypeError("X is a sparse matrix, which is not supported; pass X.toarray()")
    if hasattr(X, "columns") and hasattr(X, "to_numpy"):
        values = X.to_numpy()
        return list(values[:, 0]) if values.shape[1] == 1 and values.dtype.kind not in "biuf" else values
    shape = getattr(X, "shape", None)
    if shape is None or len(shape) == 1:
        return _listed(X, "X")
    if len(shape) == 0:
        raise TypeError("X is a single value; pass a list of items, e.g. [item]")
    return X


def _column(X: Any, name: str) -> Any:
    """Return the only column of a table; return anything else unchanged."""
    columns = getattr(X, "columns", None)
    if columns is not None:
        if len(columns) != 1:
            raise TypeError(f"{name} is a data frame; pass its column of images, e.g. frame['path']")
        return X[columns[0]] if isinstance(columns[0], str) else X.iloc[:, 0]
    is_column = len(getattr(X, "shape", ())) == 2 and X.shape[1] == 1
    return X[:, 0] if is_column and getattr(X.dtype, "kind", "") in ("O", "U", "S", "T") else X


def _listed(X: Any, name: str) -> Sequence[Any]:
    verb = "are a" if name.endswith("s") else "is a"
    if not hasattr(X, "__len__") or isinstance(X, (Mapping, Set)):
        hint = f"; pass list({name})" if hasattr(X, "__iter__") and not isinstance(X, (Mapping, Set)) else ""
        raise TypeError(f"{name} {verb} {type(X).__name__}; expected a list or an array of items{hint}")
    if hasattr(X, "to_pylist"):  # pyarrow
        return X.to_pylist()
    return list(X) if hasattr(X, "iloc") else X
