"""What a learner makes of a support set: additive `Statistics`, then a `Memory` of labelled keys, which is read."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

#: Rows of kept support that are summed at a time.
PART = 16384


@dataclass(frozen=True, eq=False)
class Statistics:
    """An additive summary: the summary of two support sets together is the sum of their summaries.

    Sums and counts add; kept support is concatenated. All learners share this class, so merging and growing are
    written once.

    Attributes
    ----------
    n_way : int
        Number of classes.
    count : Tensor of shape (..., n_way)
        Total sample weight of each class. A class with count 0 is absent.
    sums : dict of str to Tensor of shape (..., n_way, k)
        Sums over the support of each class.
    totals : dict of str to Tensor
        Sums over the whole support.
    support : dict of str to Tensor
        Kept support: ``x`` (..., n, d), ``labels`` (..., n) and ``weight`` (..., n); empty if nothing is kept.

    Examples
    --------
    >>> one = Statistics(2, torch.tensor([1.0, 0.0]), {"x": torch.tensor([[3.0], [0.0]])})
    >>> (one + one).count
    tensor([2., 0.])
    """

    n_way: int
    count: Tensor
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    totals: Mapping[str, Tensor] = field(default_factory=dict)
    support: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of_sums(cls, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Sum the support (..., n, d) of each class; the result does not grow with the number of shots."""
        sums = sum_by_class(support * weight.unsqueeze(-1), labels, n_way)
        return cls(n_way, _count(labels, n_way, weight), {"x": sums})

    @classmethod
    def of_support(cls, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep the support (..., n, d) itself, in its order."""
        kept = {"x": support, "labels": labels, "weight": weight}
        return cls(n_way, _count(labels, n_way, weight), support=kept)

    @property
    def means(self) -> Tensor:
        """Class means (..., n_way, d); 0 for absent classes."""
        return self.class_sums / torch.where(self.count > 0, self.count, 1).unsqueeze(-1)

    @property
    def class_sums(self) -> Tensor:
        """Sums of the embeddings of each class, (..., n_way, d)."""
        if self.sums:
            return self.sums["x"]
        x, labels, weight = (self.support[name] for name in ("x", "labels", "weight"))
        return sum_by_class(x * weight.unsqueeze(-1), labels, self.n_way)

    def summed(self) -> Statistics:
        """Return counts and class sums alone, of statistics without leading dimensions."""
        if self.sums:
            return Statistics(self.n_way, self.count, {"x": self.sums["x"]})
        x, labels, weight = (self.support[name] for name in ("x", "labels", "weight"))
        if len(x) == self.n_way and torch.equal(labels, torch.arange(len(x), device=x.device)) and (weight == 1).all():
            return Statistics(self.n_way, self.count, {"x": x})
        sums = x.new_zeros((self.n_way, x.shape[-1]))
        for rows in torch.arange(len(x), device=x.device).split(PART):  # a part at a time, without a copy of all
            sums.index_add_(0, labels[rows], x[rows] * weight[rows, None])
        return Statistics(self.n_way, self.count, {"x": sums})

    def __add__(self, other: Statistics) -> Statistics:
        return self._combined(other, 1, _concatenated(self.support, other.support))

    def __sub__(self, other: Statistics) -> Statistics:
        """Remove part of the support; the inverse of ``+`` up to rounding.

        For each row of `other`, kept support loses the oldest row that equals it.

        Raises
        ------
        ValueError
            If kept support has no equal row, or the numbers of classes differ.
        """
        rows = _rows_without(self.support, other.support) if self.support else None
        return self._combined(other, -1, {name: value[rows] for name, value in self.support.items()})

    def _combined(self, other: Statistics, sign: int, support: Mapping[str, Tensor]) -> Statistics:
        if self.n_way != other.n_way:
            raise ValueError(
                f"cannot combine statistics of {self.n_way} and {other.n_way} classes; relabel both to one set of "
                "classes"
            )
        return Statistics(
            self.n_way,
            self.count + sign * other.count,
            {name: value + sign * other.sums[name] for name, value in self.sums.items()},
            {name: value + sign * other.totals[name] for name, value in self.totals.items()},
            support,
        )

    @classmethod
    def gathered(cls, parts: Iterable[tuple[Statistics, Tensor]], n_way: int) -> Statistics:
        """Return the sum of statistics whose classes are some of `n_way`, without a copy of all sums for each.

        Parameters
        ----------
        parts : iterable of (Statistics, Tensor)
            At least one: statistics of k classes, and which of the `n_way` classes these are, (k,), distinct.
        n_way : int
            Number of classes.
        """
        parts = iter(parts)
        part, labels = next(parts)
        total, kept = replace(part, support={}).relabel(labels, n_way), [part.relabel_support(labels)]
        for part, labels in parts:
            total = total._increased(part, labels)
            kept.append(part.relabel_support(labels))
        support = {
            name: torch.cat([one[name] for one in kept], -2 if name == "x" else -1) if len(kept) > 1 else value
            for name, value in kept[0].items()
        }
        return replace(total, support=support)

    def _increased(self, other: Statistics, labels: Tensor) -> Statistics:
        """Add statistics without support, whose classes are `labels`, to these in place."""
        self.count.index_add_(-1, labels, other.count)
        for name, value in self.sums.items():
            value.index_add_(-2, labels, other.sums[name])
        return replace(self, totals={name: value + other.totals[name] for name, value in self.totals.items()})

    def emptied(self, empty: Tensor) -> Statistics:
        """Zero the rounding residue of the classes that `empty` (n_way,) marks."""
        sums = {name: value.masked_fill(empty.unsqueeze(-1), 0) for name, value in self.sums.items()}
        return replace(self, count=self.count.masked_fill(empty, 0), sums=sums)

    def evened(self) -> Statistics:
        """Return the summary whose kept support is weighted so that all present classes have the same count."""
        n = (self.count > 0).sum(-1, keepdim=True)
        even = torch.where(self.count > 0, self.count.sum(-1, keepdim=True) / torch.where(n > 0, n, 1), 0)
        factor, support = even / torch.where(self.count > 0, self.count, 1), dict(self.support)
        if support:
            support["weight"] = support["weight"] * factor.gather(-1, support["labels"])
        sums = {name: value * factor.unsqueeze(-1) for name, value in self.sums.items()}
        return replace(self, count=even, sums=sums, support=support)

    def moved(self, by: Tensor) -> Statistics:
        """Return the summary of the same embeddings plus `by` (..., d)."""
        by, sums, support = by.unsqueeze(-2), dict(self.sums), dict(self.support)
        if sums:
            sums["x"] = sums["x"] + self.count.unsqueeze(-1) * by
        if support:
            support["x"] = torch.where(support["weight"].unsqueeze(-1) > 0, support["x"] + by, 0)
        return replace(self, sums=sums, support=support)

    def take(self, rows: Tensor) -> Statistics:
        """Return the summary of the given `rows` (k,) of kept support, for statistics without sums."""
        support = {name: value[rows] for name, value in self.support.items()}
        count = torch.zeros_like(self.count).index_add(-1, support["labels"], support["weight"])
        return replace(self, count=count, support=support)

    def relabel(self, new_labels: Tensor, n_way: int) -> Statistics:
        """Rename class ``i`` to ``new_labels[i]`` among `n_way` classes; other classes are empty.

        Parameters
        ----------
        new_labels : Tensor of shape (old n_way,)
            Distinct integers below `n_way`.
        n_way : int
            The new number of classes.
        """
        # Copied into fresh zeros once, because the sums of many classes are large.
        count = self.count.new_zeros((*self.count.shape[:-1], n_way)).index_copy_(-1, new_labels, self.count)
        sums = {
            name: value.new_zeros((*value.shape[:-2], n_way, value.shape[-1])).index_copy_(-2, new_labels, value)
            for name, value in self.sums.items()
        }
        return replace(self, n_way=n_way, count=count, sums=sums, support=self.relabel_support(new_labels))

    def joined(self, new_labels: Tensor, other: Statistics, other_labels: Tensor, n_way: int) -> Statistics:
        """Return the sum of both after `relabel` to `n_way` classes; fast if `other` is small."""
        joined, added = self.relabel(new_labels, n_way), other.relabel_support(other_labels)
        return replace(joined._increased(other, other_labels), support=_concatenated(joined.support, added))

    def relabel_support(self, new_labels: Tensor) -> dict[str, Tensor]:
        """Return kept support with class ``i`` renamed to ``new_labels[i]``."""
        support = dict(self.support)
        if support:
            support["labels"] = new_labels[support["labels"]]
        return support

    def keep(self, classes: Tensor) -> Statistics:
        """Return the summary of some classes, renumbered 0, 1, ... in the given order.

        Parameters
        ----------
        classes : Tensor of shape (n,)
            Distinct integers below `n_way`.

        Raises
        ------
        TypeError
            If there are totals over all classes, and a class with support would be dropped.
        """
        place = classes.new_full((self.n_way,), -1).index_copy(
            0, classes, torch.arange(len(classes), device=classes.device)
        )
        if self.totals and self.count[..., place < 0].any():
            raise TypeError("totals over all classes cannot be split by class; fit without that class instead")
        support = dict(self.support)
        if support:
            rows = torch.nonzero(place[support["labels"]] >= 0).squeeze(-1)
            support = {name: value[rows] for name, value in support.items()}
            support["labels"] = place[support["labels"]]
        sums = {name: value[..., classes, :] for name, value in self.sums.items()}
        return replace(self, n_way=len(classes), count=self.count[..., classes], sums=sums, support=support)


def _concatenated(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([value, other[name]], -2 if name == "x" else -1) for name, value in one.items()}


def _rows_without(support: Mapping[str, Tensor], gone: Mapping[str, Tensor]) -> Tensor:
    """Return the positions of kept support that remain after each row of `gone` removes one equal row."""
    places: dict[tuple[Any, ...], deque[int]] = defaultdict(deque)
    for place, row in enumerate(_rows(support)):
        places[row].append(place)
    left = torch.ones(len(support["labels"]), dtype=torch.bool, device="cpu")
    for i, row in enumerate(_rows(gone)):
        if row[2] > 0:  # rows of weight 0 were never counted
            if not places[row]:
                raise ValueError(f"row {i} is not in the memory; give support that was learned, with its weight")
            left[places[row].popleft()] = False
    return left.nonzero().flatten()


def _rows(support: Mapping[str, Tensor]) -> Iterator[tuple[Any, ...]]:
    x = (support["x"] + 0.0).cpu().numpy()  # + 0.0: minus zero equals zero
    yield from zip(map(bytes, x), support["labels"].tolist(), support["weight"].tolist(), strict=True)


def _count(labels: Tensor, n_way: int, weight: Tensor) -> Tensor:
    return sum_by_class(weight.unsqueeze(-1), labels, n_way).squeeze(-1)


def mask_padding(support: Tensor, labels: Tensor, n_way: int, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return support, labels and weight with padding neutralised: zero rows of class 0 with weight 0.

    Raises
    ------
    TypeError
        If support or labels are no tensors.
    ValueError
        If shapes disagree, or a label of a real row is no integer in 0..n_way-1.
    """
    check_tensors(support=support, labels=labels)
    if support.dim() < 2 or labels.shape != support.shape[:-1]:
        raise ValueError(
            f"support has shape {tuple(support.shape)} and labels {tuple(labels.shape)}; "
            "expected (..., n, d) and (..., n)"
        )
    if labels.is_floating_point():
        raise ValueError(f"labels are of type {labels.dtype}; expected integers in 0..{n_way - 1}: labels.long()")
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


def check_tensors(**values: Tensor) -> None:
    """Raise TypeError, naming the value, unless every value is a tensor."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; expected a tensor, such as torch.as_tensor({name})")


def _check_range(labels: Tensor, n_way: int) -> None:
    low, high = (int(bound) for bound in labels.aminmax()) if labels.numel() else (0, 0)
    if low < 0 or high >= n_way:
        raise ValueError(f"labels run from {low} to {high}; expected integers in 0..{n_way - 1}, as in an Episode")


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
        Further tensors that are read: ``center`` (..., d), which is subtracted from transformed queries, and was from
        the support; ``temperature`` (...), if it comes from the support; others of learners that override ``score`` or
        ``read``.
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

    def having(self, extras: Mapping[str, Tensor]) -> Memory:
        """Return this memory with more extras."""
        return replace(self, extras={**self.extras, **extras})

    def centred(self, queries: Tensor) -> Tensor:
        """Return transformed queries (..., q, d) minus the centre, if there is one."""
        center = self.extras.get("center")
        return queries if center is None else queries - center.to(queries.dtype).unsqueeze(-2)

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
