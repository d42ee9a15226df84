"""Warnings that point at the user's line of code, and the only place that touches warning filters."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from fewshot.utils.locks import lock_of
from fewshot.utils.text import printable

P = ParamSpec("P")
T = TypeVar("T")
#: Modules whose frames are skipped: the library's own, and those of its context managers.
_OURS = ("fewshot.", "contextlib")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn on behalf of the nearest caller outside the library; see `printable` for how names in the message are shown.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("two images are equal")
    >>> str(caught[0].message)
    'two images are equal'
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame, level = frame.f_back, level + 1
    warnings.warn(printable(message), category, stacklevel=level)


def lock_of_filters() -> threading.RLock:
    """Return the lock to hold around calls that set and restore warning filters, as scikit-learn's checks do.

    Filters belong to the process: if two threads set them at once, one restores those of the other.
    """
    return lock_of(lock_of_filters)


def keeps_filters(function: Callable[P, T]) -> Callable[P, T]:
    """Hold `lock_of_filters` while a function runs, such as one that makes a table: pandas sets warning filters."""

    @wraps(function)
    def locked(*args: P.args, **kwargs: P.kwargs) -> T:
        with lock_of_filters():
            return function(*args, **kwargs)

    return locked


@contextmanager
def ignored_warnings(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore warnings inside the block, one thread at a time, and restore the filters after it."""
    with lock_of_filters(), warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield
