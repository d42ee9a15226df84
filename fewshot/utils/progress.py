"""The progress bar, readable in terminals and log files."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from tqdm import tqdm


def progress_bar(total: int | None, unit: str, *, show: bool, desc: str | None = None, **options: Any) -> tqdm[Any]:
    """Return a progress bar on standard error, for a ``with`` block.

    Parameters
    ----------
    total : int or None
        Number of steps, if known.
    unit : str
        The name of a step, in the singular.
    show : bool
        Whether to show the bar.
    desc : str, optional
        The name of the work.
    **options
        Options of tqdm, such as ``delay``: seconds before the bar appears.
    """
    stream = _Forgiving(sys.stderr)
    return tqdm(
        total=total,
        unit=unit,
        desc=desc,
        disable=not show or not stream.is_there,
        # A log file gets a line every 5 seconds, a terminal ten updates a second.
        mininterval=0.1 if stream.isatty() else 5.0,
        dynamic_ncols=True,
        file=stream,
        **options,
    )


class _Forgiving:
    """A stream that may be missing (in a service or a windowed program), closed or full: a bar must not fail."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def is_there(self) -> bool:
        return self._stream is not None and not getattr(self._stream, "closed", False)

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "ascii"

    def isatty(self) -> bool:
        with suppress(AttributeError, OSError, ValueError):
            return bool(self._stream.isatty())
        return False

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def write(self, text: str) -> None:
        with suppress(AttributeError, OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(AttributeError, OSError, ValueError):
            self._stream.flush()
