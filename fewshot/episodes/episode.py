"""An episode, and what every sampler of episodes can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.utils.labels import as_labels


@dataclass(frozen=True, eq=False)
class Episode:
    """A learning task over a data set: which rows are support, which are queries.

    Attributes
    ----------
    classes : ndarray of shape (n_way,)
        The user's labels of the classes 0..n_way-1.
    support, query : ndarray of shape (n_support,), (n_queries,)
        Row numbers, class after class; no row is in both.
    support_labels, query_labels : ndarray
        Classes of these rows, integers in 0..n_way-1.
    """

    classes: NDArray[Any]
    support: NDArray[np.int64]
    support_labels: NDArray[np.int64]
    query: NDArray[np.int64]
    query_labels: NDArray[np.int64]

    @property
    def n_way(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @classmethod
    def of(cls, classes: NDArray[Any], support: list[NDArray[np.int64]], query: list[NDArray[np.int64]]) -> Episode:
        """Return the episode of each class's support rows and query rows, both in the order of `classes`."""
        order = np.arange(len(classes))
        return cls(
            classes,
            np.concatenate(support),
            order.repeat([len(rows) for rows in support]),
            np.concatenate(query),
            order.repeat([len(rows) for rows in query]),
        )


class Sampler(ABC):
    """Episodes by their number: ``sampler[i]`` depends on the sampler's seed and ``i`` alone.

    Attributes
    ----------
    classes : ndarray
        The labels of all classes that can occur.
    """

    classes: NDArray[Any]

    @property
    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What decides the episodes, beside the labels, as JSON can hold it."""

    @abstractmethod
    def draw(self, index: int) -> Episode:
        """Return episode `index`, at least 0."""

    def __getitem__(self, index: int) -> Episode:
        check_index(index)
        return self.draw(index)

    def between(self, start: int, stop: int) -> Iterator[Episode]:
        """Yield the episodes `start`, ..., ``stop - 1``: the same as one by one, and quicker where many are drawn."""
        return (self[index] for index in range(start, stop))

    def __iter__(self) -> Iterator[Episode]:
        """Yield episode 0, 1, 2, ... without end."""
        index = 0
        while True:
            yield self[index]
            index += 1

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.protocol.items() if name != "sampler")
        return f"{type(self).__name__}({len(self.classes)} classes, {given})"


def rows_by_class(labels: ArrayLike) -> dict[Any, NDArray[np.int64]]:
    """Return the row numbers of each label, labels sorted.

    Raises
    ------
    ValueError, TypeError
        If there is not one label for each row; see `as_labels`.
    """
    found = as_labels(labels, name="the list of labels", any_type=True)
    if not len(found):
        return {}
    classes, codes = np.unique(found, return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return dict(zip(classes, rows, strict=True))


def check_index(index: int) -> None:
    """Raise IndexError unless `index`, the number of an episode, is at least 0."""
    if index < 0:
        raise IndexError(f"there is no episode {index}; numbers start at 0")


def check_whole(least: int = 1, **values: int) -> None:
    """Refuse numbers below `least`.

    Raises
    ------
    ValueError
        Naming the number.
    """
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} is {value}; expected at least {least}")
