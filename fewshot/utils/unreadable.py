"""What to do with an item that cannot be read: one vocabulary, from the command line to the decoder."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot.errors import UnknownNameError

#: "raise" raises an error. "skip" leaves the item out of the support, with a warning; "unknown" raises for support.
#: Under both, a query is answered "unknown", and its embedding is a row of NaN.
ON_ERROR = ("raise", "skip", "unknown")


def check_on_error(on_error: str, allowed: Sequence[str] = ON_ERROR) -> str:
    """Return `on_error` if it is allowed.

    Raises
    ------
    UnknownNameError
        If it is not.

    Examples
    --------
    >>> check_on_error("skip")
    'skip'
    """
    if on_error not in allowed:
        raise UnknownNameError("on_error", on_error, allowed)
    return on_error
