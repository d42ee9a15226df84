"""An episode, and the interface of episode samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.utils.labels import as_labels
from fewshot.utils.text import counted
from fewshot.utils.values import check_count


@dataclass(frozen=True, eq=False)
class Episode:
    """A learning task over a data set: its support rows and its query rows.

    Attributes
    ----------
    classes : ndarray of shape (n_way,)
        The user's labels of the classes 0..n_way-1.
    support, query : ndarray of shape (n_support,), (n_queries,)
        Row numbers, class by class; no row is in both.
    support_labels, query_labels : ndarray
        Class of each of these rows, integers in 0..n_way-1.

    Notes
    -----
    Iterating gives the row numbers, support first: an episode is a batch of ``torch.utils.data.DataLoader``.
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

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row numbers of the support, then of the queries."""
        return np.concatenate([self.support, self.query])

    def __iter__(self) -> Iterator[int]:
        """Yield the row numbers, as Python integers."""
        return iter(self.rows.tolist())

    def __len__(self) -> int:
        return len(self.support) + len(self.query)


class EpisodeBatches:
    """Some episodes in a row, each time the same, as the ``batch_sampler`` of a ``DataLoader``; see `Sampler.batches`.

    Parameters
    ----------
    sampler : Sampler
        Draws the episodes.
    start, stop : int
        The numbers of the first episode, and of the first one after the last.
    """

    def __init__(self, sampler: Sampler, start: int, stop: int) -> None:
        self.sampler, self.start, self.stop = sampler, start, stop

    def __iter__(self) -> Iterator[Episode]:
        return self.sampler.between(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start

    def __repr__(self) -> str:
        return f"EpisodeBatches({self.sampler!r}, {self.start}, {self.stop})"


class Sampler(ABC):
    """Episodes by number: ``sampler[i]`` depends only on the sampler and ``i``.

    Attributes
    ----------
    classes : ndarray
        Labels of all classes that can occur.
    """

    classes: NDArray[Any]

    @property
    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Everything but the labels that decides the episodes, as a JSON value."""

    @abstractmethod
    def draw(self, index: int) -> Episode:
        """Return episode `index`, at least 0."""

    def __getitem__(self, index: int) -> Episode:
        check_index(index)
        return self.draw(index)

    def between(self, start: int, stop: int) -> Iterator[Episode]:
        """Yield the episodes `start`, ..., ``stop - 1``; samplers may draw many faster than one by one."""
        return (self[index] for index in range(start, stop))

    def batches(self, n_episodes: int, start: int = 0) -> EpisodeBatches:
        """Return the episodes `start`, ..., ``start + n_episodes - 1`` as the ``batch_sampler`` of a ``DataLoader``.

        Each batch has the support rows of an episode first, then its queries. The sampler itself is a batch sampler
        too, but without end.

        Raises
        ------
        ValueError
            If `n_episodes` is below 1, or `start` below 0.

        Examples
        --------
        >>> import torch
        >>> from torch.utils.data import DataLoader
        >>> from fewshot import EpisodeSampler, digits
        >>> data = digits()
        >>> batches = EpisodeSampler(data.labels, n_way=3, n_shot=2, n_query=4).batches(10)
        >>> loader = DataLoader(data, batch_sampler=batches, generator=torch.Generator())
        >>> for episode, (images, labels) in zip(batches, loader):
        ...     support, queries = images[: len(episode.support)], images[len(episode.support) :]
        >>> len(loader), support.shape, queries.shape
        (10, torch.Size([6, 28, 28]), torch.Size([12, 28, 28]))
        """
        check_whole(n_episodes=n_episodes)
        check_whole(0, start=start)
        return EpisodeBatches(self, start, start + n_episodes)

    def __iter__(self) -> Iterator[Episode]:
        """Yield episodes 0, 1, 2, ... without end."""
        return map(self.__getitem__, count())

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.protocol.items() if name != "sampler")
        return f"{type(self).__name__}({counted(len(self.classes), 'class')}, {given})"


def rows_by_class(labels: ArrayLike) -> dict[Any, NDArray[np.int64]]:
    """Return the row numbers of each label, in the order of the labels.

    Raises
    ------
    ValueError, TypeError
        If `labels` is not one label per row; see `as_labels`.
    """
    found = as_labels(labels, name="the list of labels", any_type=True)
    if not len(found):
        return {}
    classes, codes = np.unique(found, return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return dict(zip(classes, rows, strict=True))


def check_index(index: int) -> None:
    """Raise unless `index`, the number of an episode, is a whole number of at least 0."""
    if not isinstance(index, Integral):
        raise TypeError(f"the number of an episode is {index!r}; expected a whole number; between() yields several")
    if index < 0:
        raise IndexError(f"there is no episode {index}; numbers start at 0")


def check_whole(least: int = 1, **values: int) -> None:
    """Raise ValueError, naming the number, unless every number is whole and at least `least`."""
    for name, value in values.items():
        check_count(name, value, least)
