"""What users pass in, checked once at the public boundary: embeddings, labels, sample weights."""

from __future__ import annotations

import unicodedata
import warnings
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import validate_data

from fewshot.conversion.labels import as_labels
from fewshot.conversion.values import as_values
from fewshot.errors import brief
from fewshot.locks import lock_of_filters

#: Squares of rows above the one or below the other magnitude leave the range of float32; then those that are refused.
NEEDS_FLOAT64, TINY, TOO_LARGE, TOO_SMALL = 1e9, 1e-9, 1e18, 1e-161


def check_embeddings(
    estimator: Any, X: Any, *, reset: bool, finite: bool = True, min_samples: int = 1
) -> NDArray[np.floating]:
    """Return X as a 2-D float array in its own precision (integers become float64, float16 float32).

    Parameters
    ----------
    estimator : estimator
        Whose ``n_features_in_`` and ``feature_names_in_`` are set or held against X.
    X : array-like of shape (n, d)
        Embeddings: arrays, data frames or torch tensors; or a column of a table with a vector in each row.
    reset : bool
        True where a model starts anew.
    finite : bool, default=True
        Whether NaN and infinity are refused.
    min_samples : int, default=1
        The fewest rows allowed.

    Raises
    ------
    ValueError
        If X has the wrong shape or length, or holds NaN, infinity, a magnitude above 1e18, or a row that is not zero
        but below 1e-161.
    TypeError
        If X is sparse.
    """
    X = as_values(X, keep_table=True)  # scikit-learn reads the names of features off a table
    if isinstance(X, np.ndarray):
        if (
            X.dtype.kind in "iu"
            and X.dtype.itemsize == 8
            and X.size
            and max(abs(int(X.max())), abs(int(X.min()))) > 2**53
        ):
            warnings.warn("integers above 2**53 lose digits in float64", UserWarning, stacklevel=3)
        if X.dtype == np.float16:
            X = X.astype(np.float32)
    if _is_plain(X, min_samples):
        X = validate_data(estimator, X, reset=reset, skip_check_array=True)
        X = X.astype(np.float64) if X.dtype.kind != "f" else X
    else:
        with lock_of_filters():
            X = validate_data(
                estimator,
                X,
                reset=reset,
                dtype=[np.float64, np.float32],
                ensure_all_finite=False,
                ensure_min_samples=min_samples,
            )
    cure = "drop or repair that row; queries may be answered with on_invalid='unknown'"
    return check_values(X, "X", "Input X", cure, finite=finite)


def _is_plain(X: Any, min_samples: int) -> bool:
    """Whether scikit-learn would take an array as it is: its check sets warning filters, which all threads share."""
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and (X.dtype.kind in "iub" or X.dtype in (np.float32, np.float64))
        and len(X) >= min_samples
        and X.shape[1] > 0
    )


def check_values(
    X: NDArray[Any], name: str, whole: str, cure: str = "drop or repair that row", finite: bool = True
) -> NDArray[Any]:
    """Return X (n, d), in float64 where the squares of a row do not fit float32.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Numbers.
    name, whole : str
        What they are called in the two messages.
    cure : str
        What to do about NaN and infinity.
    finite : bool, default=True
        Whether those are refused.

    Raises
    ------
    ValueError
        If a value is not finite, or its square fits no precision.
    """
    if not X.size or _are_usual(X):
        return X
    if max(-float(X.min()), float(X.max())) <= NEEDS_FLOAT64:  # NaN shows in it
        return X.astype(np.float64, copy=False) if _has_tiny_rows(X, name) else X
    if finite:
        refuse_bad_rows(X, whole, cure)
    return _with_room_for_squares(X, name)


def _with_room_for_squares(X: NDArray[Any], what: str) -> NDArray[Any]:
    values = X.astype(np.float64, copy=False)  # the least integer has no positive twin
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
    """Whether the length of each row of X (n, d) shows at once that its squares fit; once through X, without a copy."""
    if X.dtype.char not in "fd":
        return False
    with np.errstate(all="ignore"):
        squares = np.vecdot(X, X)
    return bool(squares.min() >= TINY**2 * X.shape[1] and squares.max() <= NEEDS_FLOAT64**2)


def _has_tiny_rows(X: NDArray[Any], what: str) -> bool:
    """Whether a row of X (n, d) is tiny; zero is not, and one whose square vanishes is refused."""
    if X.dtype.char not in "fd":  # others hold no such numbers
        return False
    magnitude = np.abs(X).max(1)
    small = np.flatnonzero((magnitude > 0) & (magnitude < TOO_SMALL))
    if small.size:
        raise ValueError(
            f"row {small[0]} of {what} has no value above {magnitude[small[0]]:.3g}; values below {TOO_SMALL:.0e} "
            "vanish when squared, so rescale the embeddings"
        )
    return bool(((magnitude > 0) & (magnitude < TINY)).any())


def refuse_bad_rows(X: NDArray[Any], what: str, cure: str = "drop or repair that row") -> None:
    """Refuse NaN and infinity in X (n, d), naming the first row and column."""
    finite = np.isfinite(X)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        name = "NaN" if np.isnan(X[row, column]) else "infinity"
        raise ValueError(f"{what} contains {name} at row {row}, column {column}; {cure}")


def check_k(k: Any, n_keys: int) -> None:
    """Refuse a number of neighbours that there is not."""
    if not isinstance(k, (int, np.integer)) or not 1 <= k <= n_keys:
        raise ValueError(f"k is {k!r}; expected an integer from 1 to {n_keys}, the number of keys")


def check_labels(y: Any, estimator_name: str, known: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return labels as a 1-D array of booleans, integers or strings, never coerced from one to another.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels, as `as_labels` takes them; a column is accepted with a warning.
    estimator_name : str
        For messages.
    known : array, optional
        Labels seen before, which these must be able to join.

    Raises
    ------
    TypeError
        If label types are mixed, or are bytes.
    ValueError
        If a label is missing, not categorical, or y is not one-dimensional.
    """
    if y is None:
        raise ValueError(f"This {estimator_name} estimator requires y to be passed, but the target y is None.")
    return as_labels(y, known=known, warning=DataConversionWarning)


def warn_if_look_alike(classes: NDArray[Any]) -> None:
    """Warn where two labels differ only in their Unicode form; they stay two classes."""
    if classes.dtype.kind not in "UO" or not all(isinstance(c, str) for c in classes):
        return
    seen: dict[str, str] = {}
    for label in classes.tolist():
        twin = seen.setdefault(unicodedata.normalize("NFC", label), label)
        if twin != label:
            warnings.warn(
                f"the labels {twin!r} ({twin!a}) and {label!r} ({label!a}) are one text in two Unicode forms; "
                "they are kept as two classes (unicodedata.normalize makes them one)",
                UserWarning,
                stacklevel=4,
            )
            return


def check_same_length(X: Any, y: Any) -> None:
    """Refuse another number of labels than of rows."""
    if len(X) != len(y):
        raise ValueError(f"X has {len(X)} rows and y {len(y)} labels; give one label for each row")


def check_sample_weight(sample_weight: Any, X: NDArray[Any]) -> NDArray[np.float64]:
    """Return sample weights (n,) as float64, all at least 0 and not all 0; ones if there are none."""
    from sklearn.utils.validation import _check_sample_weight

    if sample_weight is not None and not isinstance(sample_weight, Real):
        sample_weight = as_values(sample_weight, name="sample_weight")
    # NaN would spread to every class, whatever the caller has set.
    with config_context(assume_finite=False), lock_of_filters():
        weight: NDArray[np.float64] = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if weight.size and not weight.any():  # scikit-learn says so itself since 1.9
        raise ValueError("all sample weights are zero, so nothing can be learned; give some row a positive weight")
    extreme = np.flatnonzero((weight > 0) & ((weight < 1e-100) | (weight > 1e100)))
    if extreme.size:
        raise ValueError(
            f"the sample weight {weight[extreme[0]]:.3g} at index {extreme[0]} is outside 1e-100 to 1e100, "
            "where sums lose it or overflow; rescale the weights"
        )
    return weight


def warn_of_zero_rows(X: NDArray[Any]) -> None:
    """Warn of rows without a direction, once however many there are."""
    zero = np.flatnonzero(~X.any(1))
    if zero.size:
        warnings.warn(
            f"row {zero[0]} of X is all zeros ({zero.size} such rows); its cosine with anything is taken as 0",
            UserWarning,
            stacklevel=4,
        )


def shorten(labels: NDArray[Any], n: int = 10) -> str:
    """Return labels for a message, the first `n` of them.

    Examples
    --------
    >>> shorten(np.array(["ant", "bee", "cat"]), 2)
    "'ant', 'bee', ... (3 in all)"
    """
    shown = ", ".join(brief(repr(label)) for label in labels[:n].tolist())
    return shown if len(labels) <= n else f"{shown}, ... ({len(labels)} in all)"
