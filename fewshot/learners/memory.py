"""`Memory`: the labelled keys that a learner makes of a support set, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Memory:
    """Labelled keys, the model that a learner makes of a support set.

    Attributes
    ----------
    keys : Tensor of shape (..., m, d)
        Vectors that queries are compared with.
    labels : Tensor of shape (..., m)
        Class of each key, integers in 0..n_way-1.
    log_weight : Tensor of shape (..., m)
        Added to the key's score; minus infinity marks an absent key (padding, an absent class).
    n_way : int
        Number of classes.
    one_key_per_class : bool
        True if key ``j`` is the only key of class ``j``, so that reading needs no sum over keys.
    extras : dict of str to Tensor
        Further tensors of learners that override ``score`` or ``read``.
    """

    keys: Tensor
    labels: Tensor
    log_weight: Tensor
    n_way: int
    one_key_per_class: bool = False
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of_keys(
        cls, keys: Tensor, labels: Tensor, weight: Tensor, n_way: int, one_key_per_class: bool = False
    ) -> Memory:
        """Build a memory whose keys count in proportion to `weight` (..., m); weight 0 means absent.

        The values of absent keys do not matter. They are moved to the mean of the present keys, so that the mean of all
        keys, on which distances are centred, stays among the data.
        """
        present = weight > 0
        if keys.device.type == "cpu" and present.all():  # avoids copying many keys
            return cls(keys, labels, weight.log().to(keys.dtype), n_way, one_key_per_class)
        kept = torch.where(present.unsqueeze(-1), keys, 0)
        n_present = present.sum(-1, keepdim=True).unsqueeze(-1).clamp(min=1)
        mean = kept.detach().sum(-2, keepdim=True) / n_present
        log_weight = torch.where(present, torch.where(present, weight, 1).log(), -torch.inf)
        return cls(
            torch.where(present.unsqueeze(-1), keys, mean),
            labels,
            log_weight.to(keys.dtype),
            n_way,
            one_key_per_class,
        )

    @classmethod
    def of_support(cls, support: Mapping[str, Tensor], n_way: int) -> Memory:
        """Build a memory whose keys are the kept support of `Statistics`, with their sample weights."""
        return cls.of_keys(support["x"], support["labels"], support["weight"], n_way)

    @classmethod
    def of_prototypes(cls, prototypes: Tensor, count: Tensor) -> Memory:
        """Build a memory of one key per class, (..., n_way, d); classes whose `count` (..., n_way) is 0 are absent."""
        n_way = prototypes.shape[-2]
        labels = torch.arange(n_way, device=prototypes.device).expand(prototypes.shape[:-1])
        return cls.of_keys(prototypes, labels, (count > 0).to(prototypes.dtype), n_way, one_key_per_class=True)

    def present(self) -> Memory:
        """Drop the absent keys of a memory without leading dimensions."""
        present = torch.isfinite(self.log_weight)
        if present.all():
            return self
        return replace(
            self,
            keys=self.keys[present],
            labels=self.labels[present],
            log_weight=self.log_weight[present],
            one_key_per_class=False,
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> Memory:
        """Apply `function`, such as a cast or a move, to every floating-point tensor."""
        extras = {k: function(v) if v.is_floating_point() else v for k, v in self.extras.items()}
        return replace(self, keys=function(self.keys), log_weight=function(self.log_weight), extras=extras)


def read(scores: Tensor, memory: Memory, candidates: Tensor | None = None) -> Tensor:
    """Turn scores of keys into logits of classes, by log-sum-exp over the keys of each class.

    With one key per class these are the prototypical logits; with the support as keys, matching attention (up to a
    constant that softmax removes). A class without a key, or without a retrieved key, gets minus infinity.

    Parameters
    ----------
    scores : Tensor of shape (..., q, m) or (..., q, k)
        Similarity / temperature of each query to each key, or to its k candidates.
    memory : Memory
        The memory of these keys.
    candidates : Tensor of shape (q, k), optional
        Keys retrieved for each query, -1 for none; all keys by default.

    Returns
    -------
    Tensor of shape (..., q, n_way)
        Logits.
    """
    labels, log_weight = memory.labels.unsqueeze(-2), memory.log_weight.to(scores.dtype).unsqueeze(-2)
    if candidates is not None:
        found, candidates = candidates >= 0, candidates.clamp(min=0)
        labels, log_weight = memory.labels[candidates], log_weight[0][candidates]
        log_weight = torch.where(found, log_weight, -torch.inf)
    present = torch.isfinite(log_weight)
    scores = torch.where(present, scores + torch.where(present, log_weight, 0), -torch.inf)
    if memory.one_key_per_class and candidates is None:
        return scores
    return _logsumexp_by_class(scores, labels.expand_as(scores), memory.n_way)


def _logsumexp_by_class(scores: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Log-sum-exp of `scores` (..., q, m) over the keys that share a label -> (..., q, n_way)."""
    shape = (*scores.shape[:-1], n_way)
    top = scores.new_full(shape, -torch.inf).scatter_reduce(-1, labels, scores.detach(), "amax")
    present = torch.isfinite(top)
    top = torch.where(present, top, 0)
    # exp(-inf) = 0 has gradient 0: absent keys neither count nor receive a gradient.
    total = scores.new_zeros(shape).scatter_add(-1, labels, (scores - top.gather(-1, labels)).exp())
    return torch.where(present, torch.where(present, total, 1).log() + top, -torch.inf)
