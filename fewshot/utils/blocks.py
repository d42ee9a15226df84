"""Rows that change a few at a time, while earlier versions stay as they were."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.claims import Claims

#: About the bytes of a block: small enough to copy in microseconds, large enough that blocks are few.
BLOCK_BYTES = 2**18


class _Tail:
    """A last block with room for more rows; versions read its first ones, which never change."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self.rows, self.claims = rows, Claims()

    @classmethod
    def of(cls, rows: NDArray[Any], dtype: np.dtype[Any], size: int) -> Self:
        """Return a copy of `rows` (n, ...) with room for `size`; the caller may write the next."""
        found = cls(np.empty((size, *rows.shape[1:]), dtype))
        found.rows[: len(rows)] = rows
        found.claims.take(len(rows))
        return found

    def fits(self, values: NDArray[Any]) -> bool:
        """Whether the type of the rows can hold these values."""
        return np.result_type(self.rows, values) == self.rows.dtype

    def with_rows(self, used: int, values: NDArray[Any]) -> NDArray[Any]:
        """Return the first `used` rows, which the caller has claimed, and `values` after them."""
        self.rows[used : used + len(values)] = values
        return self.rows[: used + len(values)]


class Blocks:
    """An immutable array of rows (n, ...), kept in blocks.

    A changed version copies only the blocks that it changes and shares the others, so that both can be read at once.

    Parameters
    ----------
    blocks : list of ndarray
        Blocks of `size` rows; the last may have fewer. They must not change.
    size : int
        Rows of a block.

    Examples
    --------
    >>> old = Blocks.of(np.array([1.0, 2.0, 3.0]))
    >>> new = old.changed(np.array([1]), np.array([9.0])).extended(np.array([4.0]))
    >>> old.whole().tolist(), new.whole().tolist(), new.rows(np.array([3, 1])).tolist()
    ([1.0, 2.0, 3.0], [1.0, 9.0, 3.0, 4.0], [4.0, 9.0])
    """

    def __init__(
        self, blocks: list[NDArray[Any]], size: int, whole: NDArray[Any] | None = None, tail: _Tail | None = None
    ) -> None:
        self.blocks, self.size, self._whole, self._tail = blocks, size, whole, tail

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Self:
        """Return blocks that share the memory of `rows` (n, ...), which must not change."""
        size = max(1, BLOCK_BYTES // max(1, math.prod(rows.shape[1:]) * rows.dtype.itemsize))
        return cls([rows[start : start + size] for start in range(0, max(len(rows), 1), size)], size, rows)

    def __len__(self) -> int:
        return self.size * (len(self.blocks) - 1) + len(self.blocks[-1])

    def changed(self, places: NDArray[np.int64], values: NDArray[Any]) -> Self:
        """Return a version in which the rows at distinct `places` (k,) are `values` (k, ...)."""
        if not len(places):
            return self
        blocks = self.blocks.copy()
        for number, own in self._by_block(places):
            blocks[number] = blocks[number].copy()
            blocks[number][places[own] - number * self.size] = values[own]
        return type(self)(blocks, self.size)

    def extended(self, values: NDArray[Any]) -> Self:
        """Return a version with more rows, `values` (k, ...), at the end."""
        if not len(values):
            return self
        used = len(self.blocks[-1])
        room, tail = self.size - used, self._tail
        if tail is None or not tail.fits(values) or not tail.claims.take(used):
            tail = _Tail.of(self.blocks[-1], np.result_type(self.blocks[-1], values), self.size)
        blocks = self.blocks.copy()
        blocks[-1] = tail.with_rows(used, values[:room])
        if len(values) < room:
            return type(self)(blocks, self.size, tail=tail)
        blocks += [values[start : start + self.size] for start in range(room, len(values), self.size)]
        return type(self)(blocks, self.size)

    def rows(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows at `places` (...), of shape (..., *row)."""
        if self._whole is not None:
            return self._whole[places]
        flat, first = places.reshape(-1), self.blocks[0]
        found = np.empty((len(flat), *first.shape[1:]), first.dtype)
        for number, own in self._by_block(flat):
            found[own] = self.blocks[number][flat[own] - number * self.size]
        return found.reshape(*places.shape, *first.shape[1:])

    def where(self, holds: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> NDArray[np.int64]:
        """Return the places of the rows for which ``holds(block)`` is True, without a copy of all."""
        found = [number * self.size + np.flatnonzero(holds(block)) for number, block in enumerate(self.blocks)]
        return np.concatenate(found)

    def whole(self) -> NDArray[Any]:
        """Return all rows, (n, ...), without a copy if they have not changed since `of`; not to be changed."""
        if self._whole is not None:
            return self._whole
        return np.concatenate(self.blocks)

    def differing(self, old: Self) -> NDArray[np.int64]:
        """Return the places of the rows that differ from those of `old`, which shares most blocks."""
        found = [np.arange(min(len(old), len(self)), len(self))]
        for number, (now, before) in enumerate(zip(self.blocks, old.blocks, strict=False)):
            if now is not before:
                n = min(len(now), len(before))
                rows = (now[:n] != before[:n]).reshape(n, -1).any(1)
                found.append(number * self.size + np.flatnonzero(rows))
        return np.unique(np.concatenate(found))

    def is_other(self, old: Self) -> bool:
        """Whether this shares so few blocks with `old` that it is hardly made from it."""
        shared = sum(a is b for a, b in zip(self.blocks, old.blocks, strict=False))
        return self.size != old.size or 2 * shared < len(old.blocks) - 1

    def _by_block(self, places: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        """Return the number of each block that holds some `places` (k,), and which of them."""
        if len(places) == 1:
            return [(int(places[0]) // self.size, np.zeros(1, np.int64))]
        numbers = places // self.size
        if len(places) and (numbers == numbers[0]).all():
            return [(int(numbers[0]), np.arange(len(places)))]
        order = np.argsort(numbers, kind="stable")
        borders = np.flatnonzero(np.diff(numbers[order])) + 1
        return [(int(numbers[own[0]]), own) for own in np.split(order, borders)] if len(places) else []
