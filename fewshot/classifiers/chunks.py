"""Support that comes in chunks, of which only one is in memory at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sized
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from fewshot.utils.progress import progress_bar

C = TypeVar("C", bound="_Learns")
#: Seconds before a bar appears.
BAR_AFTER = 2


class _Learns(Protocol):
    def partial_fit(self, X: Any, y: Any, classes: Any, sample_weight: Any = None) -> Any: ...


def learning_bar(total: int | None) -> Any:
    """Return a bar of learned rows, for a ``with`` block, which nobody sees but those who wait before a screen."""
    watched = "ipykernel" in sys.modules
    with suppress(AttributeError, ValueError):  # there may be no stream, or a closed one
        watched = watched or sys.stderr.isatty()
    return progress_bar(total, "row", show=watched, desc="learning", delay=BAR_AFTER, leave=False)


def learn_chunks(classifier: C, chunks: Iterator[Any], classes: Any) -> C:
    """Teach a classifier chunks of support, showing how many rows it has learned, and return it.

    Parameters
    ----------
    classifier : classifier
        It has learned some of the chunks if one is invalid.
    chunks : iterator of (X, y) or (X, y, sample_weight)
        The support.
    classes : array-like or None
        Passed with the first one.

    Raises
    ------
    ValueError
        If there is no chunk, or one is invalid.
    """
    number = -1
    with learning_bar(None) as bar:
        for number, chunk in enumerate(chunks):
            if not isinstance(chunk, (tuple, list)) or len(chunk) not in (2, 3):
                kind = type(chunk).__name__ + (f" and length {len(chunk)}" if isinstance(chunk, Sized) else "")
                raise ValueError(
                    f"chunk {number} is of type {kind}; give (X, y) or (X, y, sample_weight), or rows as X and y"
                )
            X, y, *weight = chunk
            classifier.partial_fit(X, y, None if number else classes, *weight)
            bar.update(len(X))
    if number < 0:
        raise ValueError("there are no chunks; give at least one (X, y)")
    return classifier
