"""What a learner answers to rows of its own support, as if it had never seen them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: The most parts in which support is left out, and about the most rows.
MOST_PARTS, MOST_ROWS = 10, 1000


@dataclass(frozen=True, eq=False)
class LeftOutRows:
    """Answers to left-out rows.

    Attributes
    ----------
    rows : Tensor of shape (m,)
        Places of the rows; the only row of a class is not among them.
    logits : Tensor of shape (m, n_way)
        Their logits.
    n_taught : Tensor of shape (m,)
        How many rows of its class taught the answer to each.
    """

    rows: Tensor
    logits: Tensor
    n_taught: Tensor


def in_parts(answer: Callable[..., Tensor], x: Tensor, labels: Tensor, n_way: int, every: bool = False) -> LeftOutRows:
    """Leave out the support in parts: each class is spread evenly over them, so that others of it remain.

    Of more than 1000 rows, evenly spaced ones in the order of the classes are left out.

    Parameters
    ----------
    answer : callable
        A learner in evaluation mode.
    x : Tensor of shape (n, d)
        Embeddings.
    labels : Tensor of shape (n,)
        Classes, integers in 0..n_way-1.
    n_way : int
        Number of classes.
    every : bool, default=False
        Whether to leave out all rows, however many.
    """
    count = torch.bincount(labels, minlength=n_way)
    order = torch.argsort(labels, stable=True)
    rank = torch.empty_like(labels)
    rank[order] = torch.arange(len(labels), device=labels.device) - (count.cumsum(0) - count)[labels[order]]
    part = torch.where(count[labels] > 1, rank % MOST_PARTS, -1)
    chosen = torch.zeros_like(part, dtype=torch.bool)
    can = order[part[order] >= 0]
    chosen[can[:: 1 if every else max(1, len(can) // MOST_ROWS)]] = True
    rows, logits, taught = [], [], []
    for number in range(min(MOST_PARTS, int(count.max()))):
        out = chosen & (part == number)
        if out.any():
            rest = torch.bincount(labels[~out], minlength=n_way)
            rows.append(out.nonzero().flatten())
            logits.append(answer(x[~out], labels[~out], x[out], n_way))
            taught.append(rest[labels[out]])
    if not rows:
        return LeftOutRows(labels[:0], x.new_zeros((0, n_way)), labels[:0])
    return LeftOutRows(torch.cat(rows), torch.cat(logits), torch.cat(taught))
