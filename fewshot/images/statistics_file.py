"""The statistics of a learner as tensors of a file, which are not trusted when they are read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.learners.base import Learner
from fewshot.learners.memory import Statistics
from fewshot.utils.isolation import isolated
from fewshot.utils.values import TOO_LARGE

#: Fields of `Statistics` that hold tensors by name.
_FIELDS = ("sums", "totals", "support")
#: The largest sum of weights.
_MOST_WEIGHT = 1e120


def statistics_to_tensors(statistics: Statistics) -> dict[str, Tensor]:
    """Convert statistics to named tensors."""
    tensors = {f"{part}.{name}": value for part in _FIELDS for name, value in getattr(statistics, part).items()}
    return {"count": statistics.count, **tensors}


def read_statistics(tensors: Mapping[str, Tensor], learner: Learner, n_support: NDArray[np.int64]) -> Statistics:
    """Convert back from `statistics_to_tensors`, checking that the learner could have produced them.

    Raises
    ------
    ValueError
        If a tensor is missing, unexpected, of the wrong type or shape, not finite, or out of range.
    """
    n_way, x = len(n_support), tensors.get("support.x", tensors.get("sums.x"))
    if x is None or x.ndim != 2 or not x.shape[1]:
        raise ValueError("its memory holds neither class sums nor support of two dimensions")
    _check_like(tensors, statistics_to_tensors(_example(learner, x.shape[1])), n_way)
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _FIELDS}
    for name, value in tensors.items():
        part, _, key = name.partition(".")
        if key:
            parts[part][key] = value
    statistics = Statistics(n_way, tensors["count"], **parts)
    if not ((statistics.count >= 0) & (statistics.count <= _MOST_WEIGHT)).all() or not (statistics.count > 0).any():
        raise ValueError("its counts must be at least 0, and above 0 for some class")
    if not np.allclose(statistics.count.numpy(), n_support, rtol=1e-6, atol=1e-6):
        raise ValueError("its counts must be those of n_support")
    if support := statistics.support:
        labels, weight = support["labels"], support["weight"]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_way:
            raise ValueError(f"its support must be of the {n_way} classes")
        sums = torch.zeros_like(statistics.count).index_add(0, labels, weight)
        if (weight < 0).any() or not torch.allclose(sums, statistics.count, rtol=1e-6, atol=1e-6):
            raise ValueError("its counts must be the sums of the weights of its support")
    largest = max(float(value.abs().max()) for value in (statistics.means, *parts["support"].values()) if value.numel())
    if largest > max(TOO_LARGE, _MOST_WEIGHT if parts["support"] else 0):
        raise ValueError(f"its numbers reach {largest:.3g}, which overflows when squared")
    return statistics


def _example(learner: Learner, d: int) -> Statistics:
    """Return what a learner keeps of a single embedding, as a template."""
    x, labels = torch.zeros((1, d), dtype=torch.float64, device="cpu"), torch.zeros(1, dtype=torch.int64, device="cpu")
    with isolated(gradients=False):
        return learner.learn(x, labels, 1)


def _check_like(tensors: Mapping[str, Tensor], example: Mapping[str, Tensor], n_way: int) -> None:
    """Raise unless tensors match the template up to the numbers of classes and rows."""
    if tensors.keys() != example.keys():
        raise ValueError(
            f"its memory is not that of its learner: {', '.join(sorted(tensors.keys() ^ example.keys())):.200}"
        )
    labels = tensors.get("support.labels")
    rows = {"count": n_way, "sums": n_way, "support": len(labels) if labels is not None and labels.ndim else 0}
    for name, value in example.items():
        found, part = tensors[name], name.partition(".")[0]
        shape = (rows[part], *value.shape[1:]) if part in rows else tuple(value.shape)
        if found.shape != shape or found.dtype != value.dtype:
            raise ValueError(
                f"{name} in its memory is {found.dtype} {tuple(found.shape)}; expected {value.dtype} {shape}"
            )
        if not torch.isfinite(found).all():
            raise ValueError(f"{name} in its memory is not finite")
