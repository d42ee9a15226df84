"""Rows of a support set: neutral padding and sums by class."""

from __future__ import annotations

import torch
from torch import Tensor


def mask_padding(support: Tensor, labels: Tensor, n_way: int, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return support, labels and weight with padding neutralised: zero rows of class 0 with weight 0.

    Raises
    ------
    ValueError
        If shapes disagree, or a label of a real row is outside 0..n_way-1.
    """
    if support.dim() < 2 or labels.shape != support.shape[:-1]:
        raise ValueError(
            f"support has shape {tuple(support.shape)} and labels {tuple(labels.shape)}; "
            "expected (..., n, d) and (..., n)"
        )
    if weight is None:
        _check_range(labels, n_way)
        return support, labels.clone(), support.new_ones(labels.shape)
    if weight.shape != labels.shape:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; expected that of labels, {tuple(labels.shape)}")
    if not (weight >= 0).all():
        raise ValueError("a weight is negative or NaN; expected numbers of at least 0, 0 for padding")
    real = weight > 0
    labels = torch.where(real, labels, 0)
    _check_range(labels, n_way)
    return torch.where(real.unsqueeze(-1), support, 0), labels, torch.where(real, weight, 0).to(support.dtype)


def _check_range(labels: Tensor, n_way: int) -> None:
    low, high = (int(bound) for bound in labels.aminmax()) if labels.numel() else (0, 0)
    if low < 0 or high >= n_way:
        raise ValueError(f"labels run from {low} to {high}; expected integers in 0..{n_way - 1}")


def sum_by_class(values: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Sum rows by class, without a one-hot matrix, so a million classes fit.

    Parameters
    ----------
    values : Tensor of shape (..., n, k)
        Rows to sum.
    labels : Tensor of shape (..., n)
        Class of each row, integers in 0..n_way-1.
    n_way : int
        Number of classes.

    Returns
    -------
    Tensor of shape (..., n_way, k)
        Sums; 0 for classes without rows.

    Examples
    --------
    >>> import torch
    >>> from fewshot import sum_by_class
    >>> sum_by_class(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 1, 1]), 2)
    tensor([[1.],
            [6.]])
    """
    batch = labels.shape[:-1]
    n_episodes = batch.numel()
    offset = torch.arange(n_episodes, device=labels.device).unsqueeze(-1) * n_way
    flat = (labels.reshape(n_episodes, -1) + offset).flatten()
    rows = values.reshape(-1, values.shape[-1])
    sums = values.new_zeros((n_episodes * n_way, values.shape[-1])).index_add(0, flat, rows)
    return sums.reshape(*batch, n_way, values.shape[-1])
