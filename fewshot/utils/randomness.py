"""Random numbers for torch that leave the caller's generators as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fewshot.utils.locks import lock_of


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's own generators inside the block and restore them after it.

    Layers draw initial weights and dropout masks from global generators and take no other, so these are forked. One
    thread at a time is inside: two would draw from each other's.

    Examples
    --------
    >>> with seeded(0):
    ...     a = torch.rand(1)
    >>> with seeded(0):
    ...     b = torch.rand(1)
    >>> bool(a == b)
    True
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with lock_of(seeded), torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
