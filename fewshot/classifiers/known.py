"""What is known of each of many classes, changed a few at a time while earlier versions stay as they were."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.classifiers.summary import Summary
from fewshot.learners.memory import Statistics
from fewshot.utils.blocks import Blocks
from fewshot.utils.labels import as_labels
from fewshot.utils.places import Places


@dataclass(frozen=True, eq=False)
class KnownClasses:
    """What is known of each class, by the number that it got when it was first learned.

    Attributes
    ----------
    places : Places
        Numbers of the present classes.
    labels, n_support, count, sums : Blocks of n rows
        Of every number: label, support rows, total weight and sum of embeddings; zeros for classes that are gone.
    dtype : dtype
        Of an array of all labels.
    """

    places: Places
    labels: Blocks
    n_support: Blocks
    count: Blocks
    sums: Blocks
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, all_classes: Summary) -> Self:
        """Return the given classes, numbered in their order."""
        classes, statistics = all_classes.classes, all_classes.statistics
        return cls(
            Places(classes, np.arange(len(classes))),
            Blocks.of(_one_by_one(classes)),
            Blocks.of(all_classes.n_support),
            Blocks.of(statistics.count.numpy()),
            Blocks.of(statistics.sums["x"].numpy()),
            classes.dtype,
        )

    def numbers(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Return the number of each label (k,), -1 for an unknown one."""
        return np.array(list(map(self.places.of, labels.tolist())), np.int64)

    def ordered_places(self) -> NDArray[np.int64]:
        """Return by number the place of each class in the order of the labels, -1 for one that is gone."""
        order = self.places.ordered()[1]
        places = np.full(len(self.count), -1)
        places[order] = np.arange(len(order))
        return places

    def names(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return the labels of classes by number (...), in the type of all labels."""
        return self.labels.rows(numbers).astype(self.dtype, copy=False)

    def means(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the mean support of classes by number (...), (..., d), which must have some."""
        return self.sums.rows(numbers) / self.count.rows(numbers)[..., None]

    def part(self, numbers: NDArray[np.int64]) -> Summary:
        """Return what is known of the classes of these numbers (k,), in this order."""
        count, sums = (torch.from_numpy(blocks.rows(numbers)) for blocks in (self.count, self.sums))
        return Summary(self.names(numbers), self.n_support.rows(numbers), Statistics(len(numbers), count, {"x": sums}))

    def having(self, part: Summary) -> tuple[Self, NDArray[np.int64]]:
        """Return the classes with those of `part` added or replaced, and their numbers (k,)."""
        numbers = self.numbers(part.classes)
        new = numbers < 0
        numbers[new] = len(self.sums) + np.arange(new.sum())
        labels, statistics = part.classes[new], part.statistics

        def written(blocks: Blocks, values: NDArray[Any]) -> Blocks:
            return blocks.changed(numbers[~new], values[~new]).extended(values[new])

        changed = type(self)(
            self.places.changed(dict(zip(labels.tolist(), numbers[new].tolist(), strict=True))),
            self.labels.extended(_one_by_one(labels)),
            written(self.n_support, part.n_support),
            written(self.count, statistics.count.numpy()),
            written(self.sums, statistics.sums["x"].numpy()),
            np.result_type(self.dtype, labels),
        )
        return changed, numbers

    def present(self, numbers: NDArray[np.int64]) -> dict[Any, int]:
        """Return those of these numbers (k,) that are of present classes, by their labels."""
        labelled = zip(self.names(numbers).tolist(), numbers.tolist(), strict=True)
        return {label: number for label, number in labelled if self.places.of(label) == number}

    def without(self, numbers: NDArray[np.int64]) -> Self:
        """Return the classes without those of these numbers (k,)."""
        gone = dict.fromkeys(self.names(numbers).tolist(), -1)
        n_support, count, sums = (
            blocks.changed(numbers, np.zeros_like(blocks.rows(numbers)))
            for blocks in (self.n_support, self.count, self.sums)
        )
        return replace(self, places=self.places.changed(gone), n_support=n_support, count=count, sums=sums)

    def renamed(self, numbers: NDArray[np.int64], labels: list[Any]) -> Self:
        """Return the classes with other labels for those of these numbers (k,)."""
        gone, new = dict.fromkeys(self.names(numbers).tolist(), -1), as_labels(labels)
        return replace(
            self,
            places=self.places.changed({**gone, **dict(zip(labels, numbers.tolist(), strict=True))}),
            labels=self.labels.changed(numbers, _one_by_one(new)),
            dtype=np.result_type(self.dtype, new),
        )


def _one_by_one(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels as an array whose elements have one size; text as objects, since a longer one may come."""
    return labels.astype(object) if labels.dtype.kind == "U" else labels
