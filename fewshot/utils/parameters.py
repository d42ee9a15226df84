"""Checks of numeric parameters."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


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
