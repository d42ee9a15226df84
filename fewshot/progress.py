"""The one progress bar: for terminals, and readable in a log file too."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(total: int | None, unit: str, *, show: bool, desc: str | None = None, **options: Any) -> tqdm[Any]:
    """Return a bar on standard error, to be used in a ``with`` block.

    Parameters
    ----------
    total : int or None
        Steps, if known.
    unit : str
        What a step is, in the singular.
    show : bool
        Whether there is one at all.
    desc : str, optional
        What is being done.
    **options
        For tqdm, such as ``delay``: seconds before it appears.
    """
    # A log file wants a line now and then, a terminal ten a second.
    interval = 0.1 if sys.stderr.isatty() else 5.0
    return tqdm(
        total=total, unit=unit, desc=desc, disable=not show, mininterval=interval, dynamic_ncols=True, **options
    )
