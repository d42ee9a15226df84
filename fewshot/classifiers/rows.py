"""Labelled rows of many classes, which change a few at a time while earlier versions stay as they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.learners.memory import Statistics
from fewshot.utils.blocks import Blocks

#: The number of the class of a row that is gone.
GONE = -1


class RowChange(NamedTuple):
    """What makes the rows of a model of those of an earlier one, all of weight 1."""

    gone: NDArray[np.int64]  # which of the earlier rows go, sorted
    old: list[Any]  # classes that have other labels now
    new: list[Any]  # and these labels
    x: NDArray[np.float64]  # embeddings (k, d) that come
    labels: NDArray[np.int64]  # the class of each among `of`
    of: NDArray[Any]  # sorted labels


@dataclass(frozen=True, eq=False)
class LabelledBlocks:
    """Rows in the order in which they came; those that are gone keep their place.

    Attributes
    ----------
    x, number, weight : Blocks of n rows
        Embedding (d,), number of the class or `GONE`, and weight.
    n_gone : int
        How many are gone.
    """

    x: Blocks
    number: Blocks
    weight: Blocks
    n_gone: int = field(default=0, kw_only=True)

    @staticmethod
    def columns(support: Mapping[str, Tensor], numbers: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Return the columns of kept support whose class i has the number ``numbers[i]``."""
        return support["x"].numpy(), numbers[support["labels"].numpy()], support["weight"].numpy()

    @classmethod
    def of(cls, support: Mapping[str, Tensor], numbers: NDArray[np.int64]) -> Self:
        """Return kept support whose class i has the number ``numbers[i]``."""
        return cls(*map(Blocks.of, cls.columns(support, numbers)))

    def extended(self, support: Mapping[str, Tensor], numbers: NDArray[np.int64]) -> Self:
        """Return these rows and more; see `of`."""
        columns = zip(self._blocks, self.columns(support, numbers), strict=True)
        return type(self)(*(blocks.extended(values) for blocks, values in columns), n_gone=self.n_gone)

    @property
    def _blocks(self) -> list[Blocks]:
        return [value for value in vars(self).values() if isinstance(value, Blocks)]

    def __len__(self) -> int:
        return len(self.number)

    def present(self) -> NDArray[np.int64]:
        """Return which rows are not gone."""
        return self.number.where(lambda numbers: numbers != GONE)

    @property
    def n_present(self) -> int:
        """How many rows are not gone."""
        return len(self) - self.n_gone

    def only(self, rows: NDArray[np.int64]) -> Self:
        """Return some of the rows, without the memory of the others."""
        return type(self)(*(Blocks.of(blocks.rows(rows)) for blocks in self._blocks))

    def of_classes(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which rows are of these classes."""
        if not len(numbers):
            return np.empty(0, np.int64)
        if len(numbers) == 1:
            return self.number.where(lambda block: block == numbers[0])
        return self.number.where(lambda block: np.isin(block, numbers))

    def without(self, rows: NDArray[np.int64]) -> Self:
        """Return these rows without some, which are there."""
        number = self.number.changed(rows, np.full(len(rows), GONE))
        return replace(self, number=number, n_gone=self.n_gone + len(rows))

    def since(self, old: LabelledBlocks) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Return which of the present rows of `old` are gone, and which rows are new.

        None if `old` is no earlier version of these rows.
        """
        n, before, now = len(old), old.x.blocks, self.x.blocks
        if len(self) < n or (self.x.size, self.number.size) != (old.x.size, old.number.size):
            return None
        if any(one is not other for one, other in zip(now, before[:-1], strict=False)):
            return None
        differing = self.number.differing(old.number)
        changed, added = differing[differing < n], differing[differing >= n]
        is_other = not np.array_equal(now[len(before) - 1][: len(before[-1])], before[-1])
        if is_other or (self.number.rows(changed) != GONE).any():
            return None
        gone = np.searchsorted(old.present(), changed) if old.n_gone and len(changed) else changed
        return gone, added[self.number.rows(added) != GONE]

    @property
    def is_even(self) -> bool:
        """Whether all rows have the weight 1."""
        return all(bool((block == 1).all()) for block in self.weight.blocks)

    def numbered(self, new: NDArray[np.int64]) -> Self:
        """Return the same rows whose class i has the number ``new[i]``."""
        whole = self.number.whole()
        return replace(self, number=Blocks.of(np.where(whole == GONE, GONE, new[whole])))

    def statistics(self, rows: NDArray[np.int64], order: NDArray[np.int64], n: int) -> Statistics:
        """Return the statistics of some rows, whose classes have the numbers `order` (n_way,) among `n`."""
        place = np.zeros(n, np.int64)
        place[order] = np.arange(len(order))
        x = self.x.whole() if len(rows) == len(self) else self.x.rows(rows)
        labels = place[self.number.rows(rows)]
        weight = torch.from_numpy(self.weight.rows(rows))
        return Statistics.of_support(torch.from_numpy(x), torch.from_numpy(labels), len(order), weight)


def with_rows(statistics: Statistics, rows: NDArray[np.int64]) -> Statistics:
    """Return statistics whose kept support says in which `rows` (n,) it was kept, as one more tensor."""
    return replace(statistics, support={**statistics.support, "row": torch.from_numpy(rows)})
