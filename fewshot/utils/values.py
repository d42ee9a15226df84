"""Values as users pass them, converted and checked: embeddings, their weights, numbers, what to do with bad items."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import UnknownNameError, brief
from fewshot.utils.containers import is_missing, is_table, own_index, to_array, to_numpy
from fewshot.utils.text import counted
from fewshot.utils.warning import lock_of_filters, warn

N = TypeVar("N", bound=str)
#: "raise" raises an error. "skip" leaves the item out of the support, with a warning; "unknown" raises for support.
#: Under both, a query is answered "unknown", and its embedding is a row of NaN.
OnError = Literal["raise", "skip", "unknown"]
ON_ERROR: tuple[OnError, ...] = get_args(OnError)
#: Squares of magnitudes above NEEDS_FLOAT64 or below TINY leave the range of float32.
NEEDS_FLOAT64, TINY = 1e9, 1e-9
#: Larger or smaller magnitudes raise an error.
TOO_LARGE, TOO_SMALL = 1e18, 1e-161


def as_values(x: Any, *, name: str = "X", keep_table: bool = False) -> Any:
    """Return embeddings from any container as a numpy array, with their shape and precision.

    A column of vectors, such as ``frame["vector"]`` of lists or arrays, becomes a matrix, in which a missing vector is
    a row of NaN.

    Parameters
    ----------
    x : array-like of shape (n, d), or of n vectors
        Arrays, data frames, series, columns, tensors or lists of them.
    name : str, default="X"
        Name of the embeddings in messages.
    keep_table : bool, default=False
        Whether to return a table of numbers unmodified, for a caller that needs its column names.

    Raises
    ------
    ValueError
        If vectors have different lengths, or all are missing.
    TypeError
        If they are sparse, a vector is text, or `x` is not a container.

    Examples
    --------
    >>> as_values([[1.0, 2.0], None]).tolist()
    [[1.0, 2.0], [nan, nan]]
    """
    if type(x) is not np.ndarray or x.dtype.kind == "V":
        x = to_numpy(x)
    if type(x) is np.ndarray and x.dtype.kind in "fiub":
        return x
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        raise TypeError(
            f"{name} is sparse; pass a dense array ({name}.toarray()), or shorten it first, e.g. with TruncatedSVD"
        )
    table = is_table(x)
    if table and keep_table and x.shape[1] != 1:
        return x
    try:
        found = to_array(x)
    except TypeError as error:
        raise TypeError(f"{name} is not an array of numbers: {error}") from None
    if isinstance(found, list):
        return _of_list(found, name)
    column = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if _holds_vectors(column):
        return _stacked(list(column), name)
    if not table:
        return found
    return x if keep_table else _numbers(found)


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
        raise ValueError(f"every vector of {name} is missing; give at least one")
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


# ---- embeddings and their weights ------------------------------------------------------------------------------------


def check_same_length(X: Any, y: Any) -> None:
    """Raise unless X and y have the same length."""
    if len(X) != len(y):
        raise ValueError(
            f"X has {counted(len(X), 'row')} and y {counted(len(y), 'label')}; give one label for each row"
        )


def check_values(
    X: NDArray[Any],
    name: str,
    whole: str,
    cure: str = "drop or repair that row",
    finite: bool = True,
    given: Any = None,
) -> NDArray[Any]:
    """Return X (n, d), in float64 if the squares of a row do not fit float32.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Numbers.
    name, whole : str
        Name of X in messages about values that are too large or small, and about values that are not finite.
    cure : str
        How to repair values that are not finite.
    finite : bool, default=True
        Whether NaN and infinity raise an error.
    given : container of n rows, optional
        What X was made of, whose index messages name.

    Raises
    ------
    ValueError
        If a value is not finite, or its square over- or underflows.
    """
    if not X.size or _are_usual(X):
        return X
    if max(-float(X.min()), float(X.max())) <= NEEDS_FLOAT64:  # False for NaN
        return X.astype(np.float64, copy=False) if _has_tiny_rows(X, name) else X
    if finite:
        check_finite(X, whole, cure, given)
    return _with_room_for_squares(X, name)


def _with_room_for_squares(X: NDArray[Any], what: str) -> NDArray[Any]:
    values = X.astype(np.float64, copy=False)  # abs of the least integer overflows
    magnitude = np.where(np.isfinite(values), np.abs(values), 0)
    largest = float(magnitude.max())
    if largest > TOO_LARGE:
        row, column = np.unravel_index(magnitude.argmax(), X.shape)
        raise ValueError(
            f"found {X[row, column]:.3g} in {what} at row {row}, column {column}; values above {TOO_LARGE:.0e} "
            "overflow when squared, so rescale the embeddings"
        )
    return values if largest > NEEDS_FLOAT64 or _has_tiny_rows(magnitude, what) else X


def _are_usual(X: NDArray[Any]) -> bool:
    """Whether the lengths of all rows of X (n, d) prove that their squares fit float32; one pass, no copy."""
    if X.dtype.char not in "fd":
        return False
    with np.errstate(all="ignore"):
        squares = np.vecdot(X, X)
    return bool(squares.min() >= TINY**2 * X.shape[1] and squares.max() <= NEEDS_FLOAT64**2)


def _has_tiny_rows(X: NDArray[Any], what: str) -> bool:
    """Whether a nonzero row of X (n, d) is tiny; raise if its square vanishes."""
    if X.dtype.char not in "fd":  # other types hold no such numbers
        return False
    magnitude = np.abs(X).max(1)
    small = np.flatnonzero((magnitude > 0) & (magnitude < TOO_SMALL))
    if small.size:
        raise ValueError(
            f"row {small[0]} of {what} has no value above {magnitude[small[0]]:.3g}; values below {TOO_SMALL:.0e} "
            "vanish when squared, so rescale the embeddings"
        )
    return bool(((magnitude > 0) & (magnitude < TINY)).any())


def check_finite(X: NDArray[Any], what: str, cure: str = "drop or repair that row", given: Any = None) -> None:
    """Raise if X (n, d) contains NaN or infinity, naming the first row and column."""
    finite = np.isfinite(X)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        name = "NaN" if np.isnan(X[row, column]) else "infinity"
        raise ValueError(f"{what} contains {name} at row {row}{own_index(given, row)}, column {column}; {cure}")


def check_embeddings(
    estimator: Any, X: Any, *, reset: bool, finite: bool = True, min_samples: int = 1
) -> NDArray[np.floating]:
    """Return X as a 2-D float array in its own precision (integers become float64, float16 float32).

    Parameters
    ----------
    estimator : estimator
        Estimator whose ``n_features_in_`` and ``feature_names_in_`` are set or compared with X.
    X : array-like of shape (n, d)
        Embeddings: an array, data frame or tensor, or a table column with one vector per row.
    reset : bool
        Whether to set the estimator's attributes rather than compare with them.
    finite : bool, default=True
        Whether to refuse NaN and infinity.
    min_samples : int, default=1
        Smallest number of rows allowed.

    Raises
    ------
    ValueError
        If X has the wrong shape or length, or holds NaN, infinity, a magnitude above 1e18, or a row that is not zero
        but below 1e-161.
    TypeError
        If X is sparse.
    """
    from sklearn.utils.validation import validate_data

    given = X
    X = as_values(X, keep_table=True)  # scikit-learn reads feature names from a table
    if isinstance(X, np.ndarray):
        if X.dtype.kind in "iu" and X.size and max(int(X.max()), -int(X.min())) > 2**53:
            warn("integers above 2**53 lose digits in float64")
        X = X.astype(np.float32) if X.dtype == np.float16 else X
    if _is_plain(X, min_samples):
        same = not hasattr(estimator, "feature_names_in_") and getattr(estimator, "n_features_in_", 0) == X.shape[1]
        if reset or not same:  # it keeps names and number of features, or raises; which takes as long as an answer
            X = validate_data(estimator, X, reset=reset, skip_check_array=True)
        X = X if X.dtype.kind == "f" else X.astype(np.float64)
    else:
        how: dict[str, Any] = {"dtype": [np.float64, np.float32], "ensure_all_finite": False}
        try:
            with lock_of_filters():
                X = validate_data(estimator, X, reset=reset, ensure_min_samples=min_samples, **how)
        except (TypeError, ValueError) as error:
            _refuse_other_than_numbers(X, error, given)
            raise
    cure = "drop or repair that row; on_error='skip' learns without it, and answers such queries 'unknown'"
    return check_values(X, "X", "Input X", cure, finite, given)


def _is_plain(X: Any, min_samples: int) -> bool:
    """Whether scikit-learn's check can be skipped; it sets warning filters, which all threads share."""
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and (X.dtype.kind in "iub" or X.dtype in (np.float32, np.float64))
        and len(X) >= min_samples
        and X.shape[1] > 0
    )


def _refuse_other_than_numbers(X: Any, found: Exception, given: Any) -> None:
    """Raise an error about the first text, complex number or object in X, if there is one, instead of `found`."""
    cells = np.asarray(X)
    for place in np.ndindex(cells.shape) if cells.dtype.kind not in "fiub" else ():
        cell = cells.item(*place)
        try:
            if not is_missing(cell):
                float(cell)
        except (TypeError, ValueError) as error:
            reason = "Complex data not supported" if isinstance(cell, complex) else str(error)
            column = f", column {place[1]}" if len(place) > 1 else ""
            raise (TypeError if isinstance(found, TypeError) else ValueError)(
                f"X holds {brief(repr(cell), 40)} at row {place[0]}{own_index(given, place[0])}{column} "
                f"({brief(reason, 80)}); expected embeddings, which are real numbers: {_cure(cell)}"
            ) from None


def _cure(cell: Any) -> str:
    """Tell how to turn a cell that is not a number into embeddings."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        return (
            "this is a vector as text, as to_csv writes it; parse it (json.loads), or store embeddings with to_parquet"
        )
    if _is_vector(cell):
        return "pass the column of vectors alone, such as frame['embedding']"
    return "embed images or text with an embedder first"


def check_sample_weight(sample_weight: Any, X: NDArray[Any]) -> NDArray[np.float64]:
    """Return sample weights (n,) as float64, at least 0 and not all 0; ones for None."""
    from sklearn import config_context
    from sklearn.utils.validation import _check_sample_weight

    if sample_weight is None:
        return np.ones(len(X))
    if not isinstance(sample_weight, Real):
        sample_weight = as_values(sample_weight, name="sample_weight")
    # Checked whatever the global configuration says, because NaN would spread to every class.
    with config_context(assume_finite=False), lock_of_filters():
        weight: NDArray[np.float64] = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if weight.size and not weight.any():  # scikit-learn raises this itself since 1.9
        raise ValueError("all sample weights are zero, so nothing can be learned; give some row a positive weight")
    extreme = np.flatnonzero((weight > 0) & ((weight < 1e-100) | (weight > 1e100)))
    if extreme.size:
        raise ValueError(
            f"the sample weight {weight[extreme[0]]:.3g} at index {extreme[0]} is outside 1e-100 to 1e100, "
            "so sums would lose it or overflow; rescale the weights"
        )
    return weight


def skip_bad_rows(
    X: NDArray[np.floating], y: NDArray[Any], weight: NDArray[np.float64]
) -> tuple[NDArray[np.floating], NDArray[Any], NDArray[np.float64]]:
    """Drop support rows of X (n, d) that hold NaN or infinity, with a warning.

    Raises
    ------
    ValueError
        If no row would remain.
    """
    good = np.isfinite(X).all(1)
    if good.all():
        return X, y, weight
    if not good.any():
        raise ValueError("every row of X holds NaN or infinity, so nothing can be learned; repair them")
    bad = np.flatnonzero(~good)
    warn(f"row {bad[0]} of X holds NaN or infinity ({counted(bad.size, 'such row')}); they were not learned")
    return X[good], y[good], weight[good]


# ---- parameters ------------------------------------------------------------------------------------------------------


def check_name(kind: str, name: N, known: Collection[N]) -> N:
    """Return `name` if it is one of `known`.

    Raises
    ------
    UnknownNameError
        If it is not; the message proposes similar names.

    Examples
    --------
    >>> check_name("on_error", "skip", ON_ERROR)
    'skip'
    """
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return name


def check_number(name: str, value: Any, least: float = 0, *, above: bool = False) -> float:
    """Return `value` if it is a finite number of at least `least`, or above it.

    Raises
    ------
    ValueError
        If it is not.

    Examples
    --------
    >>> check_number("rate", 0.5)
    0.5
    """
    number = float(value) if isinstance(value, Real) else math.nan
    if not (least < number if above else least <= number) or number == math.inf:
        raise ValueError(f"{name} is {value!r}; expected a number {'above' if above else 'of at least'} {least!r}")
    return number


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return `value` if it is a whole number of at least `least`; raise ValueError otherwise."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}")
    return int(value)
