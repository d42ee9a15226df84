"""Who may write the next rows of a buffer that several versions share."""

from __future__ import annotations


class Claims:
    """The ends of a growing buffer after which some version has written.

    Versions may branch, and threads may extend the same one: only the first to claim an end writes there.

    Examples
    --------
    >>> claims = Claims()
    >>> claims.take(3), claims.take(3), claims.take(4)
    (True, False, True)
    """

    def __init__(self) -> None:
        self._taken: dict[int, object] = {}

    def take(self, used: int) -> bool:
        """Claim the rows after the first `used`; False if another version has."""
        mine = object()
        return self._taken.setdefault(used, mine) is mine  # one operation of the interpreter: one of two threads wins
