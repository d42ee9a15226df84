"""A limit on what is allocated while something is built as a file says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: Bytes that building may take beside those of the weights: masks, tables of positions, what initialisation needs.
ALLOWANCE = 256 * 2**20


class _Counting(TorchDispatchMode):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], (list, tuple)) and all(isinstance(n, int) for n in args[0]):
            self._refuse_beyond(math.prod(args[0]))  # torch.empty and its like: before the memory is asked for
        made = func(*args, **(kwargs or {}))
        # New tensors alone: a view or a change in place takes no memory.
        if isinstance(made, Tensor) and not func.is_view and not func._schema.is_mutable:
            self.left -= made.numel() * made.element_size()
            self._refuse_beyond(0)
        return made

    def _refuse_beyond(self, n_bytes: int) -> None:
        if n_bytes > self.left:
            raise ValueError("it is far larger than its weights")


@contextmanager
def within_budget(n_bytes: int) -> Iterator[None]:
    """Stop what allocates far more than `n_bytes`, in all: a network or learner larger than the weights in its file.

    Raises
    ------
    ValueError
        As soon as it does.

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
