"""Keys of many classes in the metric that the support teaches, which a sample of the classes decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.classifiers.known import KnownClasses
from fewshot.classifiers.rows import GONE, LabelledBlocks
from fewshot.learners.discriminant import DiscriminantLearner
from fewshot.learners.memory import Statistics
from fewshot.search.similarity import PART
from fewshot.utils.blocks import Blocks
from fewshot.utils.discriminant import MOST_CLASSES, MOST_ROWS, ClassMetric, LabelledRows, about, scattered

#: The place of a class without support.
ABSENT = 2.0
#: Changes of the sample after which the searchable keys are made again.
MOST_DRIFT = MOST_CLASSES // 8


@dataclass(frozen=True, eq=False)
class SupportRows(LabelledBlocks):
    """The transformed support, in the order in which it came.

    Attributes
    ----------
    place : Blocks of n rows
        Where the content of each row falls in 0..1.
    """

    place: Blocks

    @staticmethod
    def columns(support: Mapping[str, Tensor], numbers: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Return the columns of kept support whose class i has the number ``numbers[i]``."""
        return *LabelledBlocks.columns(support, numbers), scattered(support["x"].numpy(), np)


@dataclass(frozen=True, eq=False)
class _Frame:
    """The metric, and what it rests on.

    Attributes
    ----------
    metric : ClassMetric
        The metric.
    sample, rows : ndarray
        Sorted numbers of the classes that stand for all, and the rows that make up T.
    class_cut, row_cut : float
        A class, or a row, that falls below would be among them.
    """

    metric: ClassMetric
    sample: NDArray[np.int64]
    rows: NDArray[np.int64]
    class_cut: float
    row_cut: float


@dataclass(frozen=True, eq=False)
class TaughtKeys:
    """What makes keys of class means: the support, and a metric that changes only with the sample it rests on.

    Attributes
    ----------
    learner : DiscriminantLearner
        The learner.
    rows : SupportRows
        The support.
    place : Blocks of n rows
        Where the content of each class falls, by number; `ABSENT` without support.
    n_way : int
        Number of classes with support.
    drift : int
        How often the sample has changed since the searchable keys were made.
    """

    #: Candidates of a query beyond the nearest: keys may have been made in a slightly earlier metric.
    spare: ClassVar[int] = 32

    learner: DiscriminantLearner
    rows: SupportRows
    place: Blocks
    n_way: int
    drift: int = 0
    _frames: list[_Frame] = field(default_factory=list)

    @classmethod
    def of(cls, learner: DiscriminantLearner, known: KnownClasses, support: Mapping[str, Tensor]) -> Self:
        """Return what the support teaches whose class i has the number i."""
        numbers = np.arange(len(known.count))
        rows = SupportRows.of(support, numbers)
        if rows.is_even and np.array_equal(rows.number.whole(), numbers):  # each row is the mean of its class
            return cls(learner, rows, rows.place, len(numbers))
        place = np.concatenate([_places(known, numbers[i : i + PART]) for i in range(0, len(numbers), PART)])
        return cls(learner, rows, Blocks.of(place), int((place < ABSENT).sum()))

    def keys(self, means: NDArray[np.float64], known: KnownClasses) -> NDArray[np.float64]:
        """Return the keys (..., d) of classes of these means (..., d)."""
        flat = means.reshape(-1, means.shape[-1])
        found: NDArray[np.float64] = self._frame(known).metric.keys(flat, np).reshape(means.shape)
        return found

    def turn(self, known: KnownClasses) -> tuple[Tensor, Tensor] | None:
        """Return by what an index of many keys multiplies keys and queries; see `ClassMetric.turn`."""
        if self.n_way <= MOST_CLASSES:
            return None
        keys, queries = map(torch.from_numpy, self._frame(known).metric.turn())
        return keys, queries

    def statistics(self, rows: NDArray[np.int64], order: NDArray[np.int64]) -> Statistics:
        """Return the statistics of some rows whose classes have the numbers `order` (n_way,)."""
        return self.rows.statistics(rows, order, len(self.place))

    def changed(
        self,
        known: KnownClasses,
        numbers: NDArray[np.int64],
        gone: NDArray[np.int64],
        support: Mapping[str, Tensor] | None = None,
    ) -> Self:
        """Return what is taught after a change.

        Parameters
        ----------
        known : KnownClasses
            The classes after it.
        numbers : ndarray of shape (k,)
            Those that changed.
        gone : ndarray
            The rows that go.
        support : mapping, optional
            Rows that come, whose class i has the number ``numbers[i]``.
        """
        new = numbers >= len(self.place)
        found = _places(known, numbers)
        n_way = self.n_way + int((found < ABSENT).sum()) - int((self.place.rows(numbers[~new]) < ABSENT).sum())
        place = self.place.changed(numbers[~new], found[~new]).extended(found[new])
        rows, first = self.rows.without(gone), len(self.rows.number)
        rows = rows if support is None else rows.extended(support, numbers)
        frames, drift = list(self._frames), self.drift  # a list of its own: each version finds its own frame
        if frames and about(n_way) != about(self.n_way):
            frames = []
        elif frames:
            frame = frames[0]
            touched = _among(numbers, frame.sample) + (found < frame.class_cut).sum()
            come = rows.place.rows(np.arange(first, len(rows.number))) + 1  # of classes that are not in the sample
            touched += _among(gone, frame.rows) + (come < frame.row_cut).sum()
            frames, drift = ([], drift + int(touched)) if touched else (frames, drift)
        if 2 * rows.n_present < len(rows):
            rows, frames = rows.only(rows.present()), []  # which numbers them again
        return type(self)(self.learner, rows, place, n_way, drift, frames)

    def _frame(self, known: KnownClasses) -> _Frame:
        """Return the metric, computed if the sample has changed."""
        if not self._frames:
            self._frames[:] = [self._find(known)]  # in one step: several threads find the same
        return self._frames[0]

    def _find(self, known: KnownClasses) -> _Frame:
        places, number, d = self.place.whole(), self.rows.number.whole(), known.sums.blocks[0].shape[-1]
        sample = np.argsort(places)[: min(MOST_CLASSES, self.n_way)]
        order = np.where(number == GONE, np.inf, self.rows.place.whole())
        order = np.where(np.isin(number, sample), order, order + 1)
        rows = np.argsort(order)[: max(MOST_ROWS, 2 * d)]
        rows = rows[order[rows] < np.inf]
        place = np.full(len(places), -1)
        place[sample] = np.arange(len(sample))
        x, labels, weight = self.rows.x.rows(rows), place[number[rows]], self.rows.weight.rows(rows)
        support = LabelledRows(x, labels, weight, known.means(sample), known.count.rows(sample))
        metric = ClassMetric.of(support, self.learner.regularization, np, about(self.n_way))
        full = len(rows) == max(MOST_ROWS, 2 * d)
        row_cut = float(order[rows[-1]]) if full else np.inf
        class_cut = float(places[sample[-1]]) if len(sample) == MOST_CLASSES else ABSENT
        return _Frame(metric, np.sort(sample), np.sort(rows), class_cut, row_cut)


def _among(some: NDArray[np.int64], ordered: NDArray[np.int64]) -> int:
    """Return how many of some numbers are among `ordered` ones, without sorting these again as `np.isin` does."""
    places = np.searchsorted(ordered, some).clip(max=len(ordered) - 1)
    return int((ordered[places] == some).sum())


def _places(known: KnownClasses, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return where the content of classes falls."""
    present = known.count.rows(numbers) > 0
    found = np.full(len(numbers), ABSENT)
    found[present] = scattered(known.means(numbers[present]), np)
    return found
