"""A limit on the memory that is allocated while a network or learner from a file is built."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: Bytes allowed in addition to the weights, for masks, position tables and initialisation.
ALLOWANCE = 256 * 2**20


class _Counting(TorchDispatchMode):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], (list, tuple)) and all(isinstance(n, int) for n in args[0]):
            self._check(math.prod(args[0]))  # torch.empty and the like: check before allocating
        made = func(*args, **(kwargs or {}))
        # Views and in-place operations allocate nothing.
        if isinstance(made, Tensor) and not func.is_view and not func._schema.is_mutable:
            self.left -= made.numel() * made.element_size()
            self._check(0)
        return made

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self.left:
            raise ValueError("it is far larger than its weights")


@contextmanager
def within_budget(n_bytes: int) -> Iterator[None]:
    """Raise as soon as the total allocation far exceeds `n_bytes`, the size of the weights in the file.

    Raises
    ------
    ValueError
        When the budget is exceeded.

    Examples
    --------
    >>> from torch import nn
    >>> with within_budget(0):
    ...     _ = nn.Linear(100_000, 100_000)
    Traceback (most recent call last):
    ValueError: it is far larger than its weights
    """
    with _Counting(4 * n_bytes + ALLOWANCE):
        yield
