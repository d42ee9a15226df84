"""Checks of arrays, with numpy alone: values that can be squared, lengths, number of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import brief

#: Squares of magnitudes above NEEDS_FLOAT64 or below TINY leave the range of float32.
NEEDS_FLOAT64, TINY = 1e9, 1e-9
#: Larger or smaller magnitudes raise an error.
TOO_LARGE, TOO_SMALL = 1e18, 1e-161


def check_values(
    X: NDArray[Any], name: str, whole: str, cure: str = "drop or repair that row", finite: bool = True
) -> NDArray[Any]:
    """Return X (n, d), in float64 if the squares of a row do not fit float32.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Numbers.
    name, whole : str
        How messages call X: about too large or small values, and about values that are not finite.
    cure : str
        How to repair values that are not finite.
    finite : bool, default=True
        Whether NaN and infinity raise an error.

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
        check_finite(X, whole, cure)
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


def check_finite(X: NDArray[Any], what: str, cure: str = "drop or repair that row") -> None:
    """Raise if X (n, d) contains NaN or infinity, naming the first row and column."""
    finite = np.isfinite(X)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        name = "NaN" if np.isnan(X[row, column]) else "infinity"
        raise ValueError(f"{what} contains {name} at row {row}, column {column}; {cure}")


def check_k(k: Any, n_keys: int) -> None:
    """Raise unless k is an integer from 1 to n_keys."""
    if not isinstance(k, (int, np.integer)) or not 1 <= k <= n_keys:
        raise ValueError(f"k is {k!r}; expected an integer from 1 to {n_keys}, the number of keys")


def check_same_length(X: Any, y: Any) -> None:
    """Raise unless X and y have the same length."""
    if len(X) != len(y):
        raise ValueError(f"X has {len(X)} rows and y {len(y)} labels; give one label for each row")


def shorten(labels: NDArray[Any], n: int = 10) -> str:
    """Return the first `n` labels as text for a message.

    Examples
    --------
    >>> shorten(np.array(["ant", "bee", "cat"]), 2)
    "'ant', 'bee', ... (3 in all)"
    """
    shown = ", ".join(brief(repr(label)) for label in labels[:n].tolist())
    return shown if len(labels) <= n else f"{shown}, ... ({len(labels)} in all)"
