"""The best of many scores, on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: So many at most are found one after another.
FEW = 4


def argmax(x: Tensor) -> NDArray[np.int64]:
    """Return the place (...) of the largest of each row of `x` (..., m) on the CPU, the first among equals.

    Torch's own takes ten times as long there.
    """
    return x.detach().numpy().argmax(-1)


def top(ids: Tensor | None, similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best of each row of `similarity` (q, m) as ids and values, equals in the order of their ids."""
    if ids is not None:
        # Order candidates by id first, so that the stable sort below keeps it among equals.
        ids, order = ids.sort(-1)
        similarity = similarity.gather(-1, order)
    columns = torch.from_numpy(argmax(similarity))[..., None] if k == 1 else _stable_topk(similarity, k)
    return (columns if ids is None else ids.gather(-1, columns)), similarity.gather(-1, columns)


def largest(x: Tensor, k: int) -> Tensor:
    """Return the places (..., k) of the k largest of each row of `x` (..., m), largest first; `x` is written over.

    At least k numbers of a row are finite. On a CPU a few come one after another, in about half the time of ``topk``.
    """
    if k > FEW or x.device.type != "cpu":
        return x.topk(k, -1).indices
    found = torch.empty((*x.shape[:-1], k), dtype=torch.long, device="cpu")
    for i in range(k):
        found[..., i] = torch.from_numpy(argmax(x))
        x.scatter_(-1, found[..., i : i + 1], -torch.inf)
    return found


def _stable_topk(similarity: Tensor, k: int) -> Tensor:
    values, columns = similarity.topk(k, -1)
    last = values[:, -1:]
    # topk picks any of several equal values: sort those rows in full.
    tied = (similarity >= last).sum(-1) > k
    if tied.any():
        columns[tied] = similarity[tied].argsort(dim=-1, descending=True, stable=True)[:, :k]
    columns = columns.sort(-1).values
    order = similarity.gather(-1, columns).argsort(dim=-1, descending=True, stable=True)
    return columns.gather(-1, order)
