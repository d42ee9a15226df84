"""Keys in half precision, or in 8 bits with a factor for each key."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

#: How keys are kept: as they come, with 11 significant bits, or with 8 bits below the largest number of the key.
Precision = Literal["full", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
#: Magnitudes of the largest number of a key (zero is fine too) between which half precision keeps 11 bits, and 8 bits
#: have a factor.
RANGES = {"float16": (2.0**-14, 65504.0), "int8": (1e-30, 1e18)}
#: Bytes of the factor at the end of a key in 8 bits.
FACTOR = 4


def packed(x: Tensor, precision: str) -> Tensor:
    """Return keys (..., d) as they are kept; packed keys are returned unmodified.

    Raises
    ------
    ValueError
        If the precision cannot hold a key.

    Examples
    --------
    >>> unpacked(packed(torch.tensor([[127.0, 1.0, 0.3]]), "int8")).tolist()
    [[127.0, 1.0, 0.0]]
    """
    if precision == "full" or x.dtype in (torch.float16, torch.int8):
        return x
    largest, (low, high) = x.abs().amax(-1, keepdim=True), RANGES[precision]
    unfit = (largest > high) | ((largest < low) & (largest > 0))
    if unfit.any():
        row = int(unfit.reshape(-1).nonzero()[0])
        raise ValueError(
            f"the largest number of key {row} is {float(largest.reshape(-1)[row]):.3g}; keys={precision!r} holds "
            f"{low:.1e} to {high:.1e}, so rescale the embeddings or give keys='full'"
        )
    if precision == "float16":
        return x.half()
    factor = (largest / 127).float()
    numbers = (x / torch.where(factor > 0, factor, 1)).round().to(torch.int8)
    return torch.cat([numbers, factor.contiguous().view(torch.int8)], -1)


def unpacked(x: Tensor) -> Tensor:
    """Return keys (..., d) as float32, or float64 if they are."""
    if x.dtype == torch.float16:
        return x.float()
    if x.dtype != torch.int8:
        return x
    factor = x[..., -FACTOR:].clone(memory_format=torch.contiguous_format).view(torch.float32)  # aligned
    return x[..., :-FACTOR].float().mul_(factor)


def precision_of(x: Tensor) -> str:
    """Return the precision in which keys are kept."""
    return {torch.float16: "float16", torch.int8: "int8"}.get(x.dtype, "full")


def width(x: Tensor) -> int:
    """Return the length d of keys (..., d) as they are kept."""
    return x.shape[-1] - (FACTOR if x.dtype == torch.int8 else 0)
