"""What users pass in, checked once at the public boundary: embeddings, labels, sample weights."""

from __future__ import annotations

import unicodedata
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import validate_data

from fewshot.utils.checks import check_values
from fewshot.utils.labels import as_labels
from fewshot.utils.values import as_values
from fewshot.utils.warning import lock_of_filters, warn


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
    """Whether scikit-learn would take an array as it is: its check sets warning filters, which all threads share."""
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
            warn(
                f"the labels {twin!r} ({twin!a}) and {label!r} ({label!a}) are one text in two Unicode forms; "
                "they are kept as two classes (unicodedata.normalize makes them one)"
            )
            return


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


def skip_bad_rows(
    X: NDArray[np.floating], y: NDArray[Any], weight: NDArray[np.float64]
) -> tuple[NDArray[np.floating], NDArray[Any], NDArray[np.float64]]:
    """Return support without the rows of X (n, d) that hold NaN or infinity, with a warning that counts them.

    Raises
    ------
    ValueError
        If no other row is left.
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
    """Warn of rows without a direction, once however many there are."""
    zero = np.flatnonzero(~X.any(1))
    if zero.size:
        warn(f"row {zero[0]} of X is all zeros ({zero.size} such rows); its cosine with anything is taken as 0")
