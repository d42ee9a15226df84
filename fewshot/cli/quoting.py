"""Notice a name with a blank that was typed without quotation marks, so that the shell took it for two names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import takewhile

#: Most words that one name is put together from.
_MOST = 12


def unquoted(words: Sequence[str]) -> str:
    """Return how to write a name that the shell has split at its blanks, to be added to a message, or nothing.

    Parameters
    ----------
    words : sequence of str
        What was typed after the command.

    Examples
    --------
    >>> unquoted(["fit", "there is no", "such folder"])
    ''
    """
    for start, first in enumerate(words):
        if first.startswith("-") or os.path.lexists(first):
            continue
        some = [first, *takewhile(lambda word: not word.startswith("-"), words[start + 1 : start + _MOST])]
        names = [" ".join(some[:n]) for n in range(len(some), 1, -1)]
        names += [os.path.dirname(name) for name in names]  # of a pattern, such as my photos/*.jpg
        if found := next((name for name in names if " " in name and os.path.lexists(name)), ""):
            return f'; a name with blanks needs quotation marks: "{found}"'
    return ""
