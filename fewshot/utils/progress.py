"""The progress bar, readable in terminals, notebooks and log files."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from typing import Any

from tqdm import tqdm

#: Seconds before a bar appears: what is done sooner needs none.
DELAY = 2.0
#: Seconds between updates of a bar on a screen, and between lines of a log file, of which the first waits as long.
ON_SCREEN, IN_LOG = 0.1, 30.0


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
        Options of tqdm, such as ``iterable``.
    """
    stream, kind = _Forgiving(sys.stderr), _kind()
    is_seen = kind is not tqdm or stream.isatty()
    seconds = {"mininterval": ON_SCREEN, "delay": DELAY} if is_seen else {"mininterval": IN_LOG, "delay": IN_LOG}
    return kind(
        total=total,
        unit=unit,
        desc=desc,
        disable=not show or not stream.is_there,
        dynamic_ncols=True,
        file=stream,
        **{**seconds, **options},
    )


def _kind() -> Any:
    """Return the bar of notebooks where one runs, and else that of terminals, which is quicker to import."""
    if "ipykernel" not in sys.modules:
        return tqdm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ipywidgets is missing; a bar of text does
        from tqdm.auto import tqdm as automatic
    return automatic


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
        if not self.isatty():  # in a log file, a state of the bar is a line
            text = f"{text.strip()}\n" if text.strip() else ""
        with suppress(AttributeError, OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(AttributeError, OSError, ValueError):
            self._stream.flush()
