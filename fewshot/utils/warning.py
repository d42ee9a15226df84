"""Warnings that point at the user's line of code, and the only place that touches warning filters."""

from __future__ import annotations

import sys
import warnings

#: Modules whose frames are skipped: the library's own, and those of its context managers.
_OURS = ("fewshot.", "contextlib")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn on behalf of the nearest caller outside the library.

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
    warnings.warn(message, category, stacklevel=level)
