"""Logging of what takes long or may surprise; the loggers are below ``fewshot``, and show nothing by themselves."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def timed(log: logging.Logger, message: str, *values: object, level: int = logging.INFO) -> Iterator[None]:
    """Log what the block has done, and how long it took, unless it fails.

    Examples
    --------
    >>> with timed(logging.getLogger("fewshot.doctest"), "counted to %d", 3):
    ...     _ = list(range(3))
    """
    began = time.perf_counter()
    yield
    log.log(level, f"{message} in %.2f s", *values, time.perf_counter() - began)
