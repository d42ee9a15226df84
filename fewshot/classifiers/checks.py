"""Checks of user input at the public boundary: embeddings, labels, sample weights."""

from __future__ import annotations

import unicodedata
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import validate_data

from fewshot.utils.labels import as_labels
from fewshot.utils.values import as_values, check_values
from fewshot.utils.warning import lock_of_filters, warn


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
    X = as_values(X, keep_table=True)  # scikit-learn reads feature names from a table
    if isinstance(X, np.ndarray):
        if (
            X.dtype.kind in "iu"
            and X.dtype.itemsize == 8
            and X.size
            and max(abs(int(X.max())), abs(int(X.min()))) > 2**53
        ):
            warn("integers above 2**53 lose digits in float64")
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
    cure = "drop or repair that row; on_error='skip' learns without it, and answers such queries 'unknown'"
    return check_values(X, "X", "Input X", cure, finite=finite)


def _is_plain(X: Any, min_samples: int) -> bool:
    """Whether scikit-learn's check can be skipped; it sets warning filters, which all threads share."""
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and (X.dtype.kind in "iub" or X.dtype in (np.float32, np.float64))
        and len(X) >= min_samples
        and X.shape[1] > 0
    )


def check_labels(y: Any, estimator_name: str, known: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return labels as a 1-D array of booleans, integers or strings, never coerced from one to another.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels as for `as_labels`; a column is accepted with a warning.
    estimator_name : str
        Name for messages.
    known : array, optional
        Labels seen before, whose type these must share.

    Raises
    ------
    TypeError
        If labels mix types or are bytes.
    ValueError
        If a label is missing, not categorical, or y is not one-dimensional.
    """
    if y is None:
        raise ValueError(f"This {estimator_name} estimator requires y to be passed, but the target y is None.")
    return as_labels(y, known=known, warning=DataConversionWarning)


def warn_if_look_alike(classes: NDArray[Any]) -> None:
    """Warn if two labels differ only in their Unicode form; they stay two classes."""
    if classes.dtype.kind not in "UO" or not all(isinstance(c, str) for c in classes):
        return
    seen: dict[str, str] = {}
    for label in classes.tolist():
        twin = seen.setdefault(unicodedata.normalize("NFC", label), label)
        if twin != label:
            warn(
                f"the labels {twin!r} ({twin!a}) and {label!r} ({label!a}) are one text in two Unicode forms; "
                "they stay two classes (unicodedata.normalize unifies them)"
            )
            return


def check_sample_weight(sample_weight: Any, X: NDArray[Any]) -> NDArray[np.float64]:
    """Return sample weights (n,) as float64, at least 0 and not all 0; ones for None."""
    from sklearn.utils.validation import _check_sample_weight

    if sample_weight is not None and not isinstance(sample_weight, Real):
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
    warn(f"row {bad[0]} of X holds NaN or infinity ({bad.size} such rows); they were not learned")
    return X[good], y[good], weight[good]


def warn_of_zero_rows(X: NDArray[Any]) -> None:
    """Warn once if there are zero rows, which have no direction."""
    zero = np.flatnonzero(~X.any(1))
    if zero.size:
        warn(f"row {zero[0]} of X is all zeros ({zero.size} such rows); its cosine with anything is taken as 0")
