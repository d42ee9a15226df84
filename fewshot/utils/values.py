"""Convert embeddings to an array: from a matrix, the columns of a table, or one column of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.containers import is_missing, is_table, to_array, to_numpy


def as_values(x: Any, *, name: str = "X", keep_table: bool = False) -> Any:
    """Return embeddings from any container as a numpy array, with their shape and precision.

    A column of vectors, such as ``frame["vector"]`` of lists or arrays, becomes a matrix, in which a missing vector is
    a row of NaN.

    Parameters
    ----------
    x : array-like of shape (n, d), or of n vectors
        Arrays, data frames, series, columns, tensors or lists of them.
    name : str, default="X"
        How messages call them.
    keep_table : bool, default=False
        Whether to return a table of numbers unmodified, for a caller that needs its column names.

    Raises
    ------
    ValueError
        If vectors have different lengths, or all are missing.
    TypeError
        If they are sparse, a vector is text, or `x` is no container.

    Examples
    --------
    >>> as_values([[1.0, 2.0], None]).tolist()
    [[1.0, 2.0], [nan, nan]]
    """
    x = to_numpy(x)
    if type(x) is np.ndarray and x.dtype.kind in "fiub":
        return x
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        raise TypeError(f"{name} is sparse; pass a dense array ({name}.toarray())")
    if is_table(x):
        if keep_table and x.shape[1] != 1:
            return x
        cells = np.asarray(x)
        if cells.shape[1] == 1 and _holds_vectors(cells[:, 0]):
            return _stacked(list(cells[:, 0]), name)
        return x if keep_table else _numbers(cells)
    try:
        found = to_array(x)
    except TypeError as error:
        raise TypeError(f"{name} is no array of embeddings: {error}") from None
    if isinstance(found, list):
        return _of_list(found, name)
    if found.dtype.kind == "O" and found.ndim == 2 and found.shape[1] == 1 and _holds_vectors(found[:, 0]):
        return _stacked(list(found[:, 0]), name)
    return _stacked(list(found), name) if found.dtype.kind == "O" and _holds_vectors(found) else found


def _of_list(rows: list[Any], name: str) -> NDArray[Any]:
    if rows and not isinstance(rows[0], (list, tuple, np.ndarray, int, float)):
        rows = [to_numpy(row) for row in rows]  # numpy would read each number of a tensor
    try:
        found = np.asarray(rows)
        if found.dtype.kind != "O":
            return found
    except (ValueError, TypeError, RuntimeError):  # uneven rows; tensors on a GPU or with a gradient
        pass
    return _stacked(rows, name) if any(map(_is_vector, rows)) else np.asarray(rows, dtype=object)


def _stacked(vectors: list[Any], name: str) -> NDArray[Any]:
    """Return vectors as rows, missing ones as NaN."""
    rows: list[NDArray[Any] | None] = []
    for i, vector in enumerate(vectors):
        if isinstance(vector, (str, bytes)):
            raise TypeError(f"row {i} of {name} is {type(vector).__name__}, {vector!r:.40}; expected numbers")
        rows.append(None if is_missing(vector) else _numbers(np.asarray(as_values(vector, name=f"row {i} of {name}"))))
    shapes = {row.shape: i for i, row in reversed(list(enumerate(rows))) if row is not None}
    if not shapes:
        raise ValueError(f"all {len(rows)} vectors of {name} are missing; give at least one")
    (shape, first), *others = sorted(shapes.items(), key=lambda item: item[1])
    if others:
        raise ValueError(
            f"row {others[0][1]} of {name} has shape {others[0][0]}, and row {first} has {shape}; embed all with the "
            "same backbone"
        )
    missing = np.full(shape, np.nan, np.float32)
    return np.stack([missing if row is None else row for row in rows])


def _numbers(cells: NDArray[Any]) -> NDArray[Any]:
    """Return an array of objects as numbers, missing ones as NaN; return anything else unmodified."""
    if cells.dtype.kind != "O":
        return cells
    values = [np.nan if is_missing(value) else value for value in cells.ravel().tolist()]
    try:
        return np.array(values, dtype=np.float64).reshape(cells.shape)
    except (TypeError, ValueError):
        return cells


def _holds_vectors(column: NDArray[Any]) -> bool:
    """Whether the first cell that is not missing is a vector."""
    if column.ndim != 1 or column.dtype.kind != "O":
        return False
    return _is_vector(next((cell for cell in column if not is_missing(cell)), None))


def _is_vector(row: Any) -> bool:
    if isinstance(row, (list, tuple)):
        return True
    return (getattr(row, "ndim", 0) or 0) > 0 or hasattr(row, "to_pylist") or hasattr(row, "to_list")
