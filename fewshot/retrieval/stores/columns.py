"""The records of a store in memory as arrays, so that a filter is a mask and the nearest are a product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from fewshot.retrieval.stores.base import Vectors, similarities
from fewshot.retrieval.stores.records import COMPARISONS, LARGEST_BOUND, Conditions, Range, Record, token
from fewshot.search.state import State
from fewshot.utils.isolation import isolated
from fewshot.utils.locks import one_at_a_time

#: Records compared at a time.
PART = 16384
#: Stands for integers beyond any bound, some of which float64 would round to one.
_BEYOND = 2.0 * LARGEST_BOUND
#: Relative rounding errors of float32 and float64, and the least normal number of float32, below which it may be zero.
_U32, _U64, _TINY = 2.0**-24, 2.0**-53, 2.0**-126


class Columns:
    """The records of one version of a store: values by name, and vectors, which stay those of its index.

    Values are arranged when a filter first asks for their name.

    Parameters
    ----------
    held : mapping
        The records by their labels in the index, in the order in which ties are answered.
    state : State
        What the index holds of them; keys in float32.
    metric : str
        That of the store.

    Examples
    --------
    >>> from fewshot.search.index import PrototypeIndex
    >>> held = {0: Record("a", np.float32([1, 0]), "cat"), 1: Record("b", np.float32([0, 1]), "dog", {"n": 3})}
    >>> state = PrototypeIndex("dot").add([record.vector for record in held.values()], [0, 1]).state
    >>> columns = Columns(held, state, "dot")
    >>> columns.passing({"n": Range({">": 2})}).tolist(), columns.passing({"label": ["cat", "dog"]}).tolist()
    ([1], [0, 1])
    >>> [record.id for record in columns.nearest(np.float32([1, 2]), np.arange(2), 1)]
    ['b']
    """

    def __init__(self, held: Mapping[int, Record], state: State, metric: str) -> None:
        self._records, self._metric, self.state = list(held.values()), metric, state
        # Keys without those of removed records would be a copy of all.
        self._parts = state.base.snapshot.keys.numpy(), state.raw.numpy()
        alive = np.flatnonzero(state.alive_keys)
        labels = state.all_labels[alive]
        order = np.argsort(labels, kind="stable")
        numbers = np.fromiter(held, np.int64, len(held))
        #: Of each record, the row of its key in the two parts.
        self._rows = alive[order[np.searchsorted(labels, numbers, sorter=order)]]
        self._columns: dict[str, tuple[dict[tuple[type, object], int], NDArray[np.intp], NDArray[np.intp]]] = {}
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._lengths: NDArray[np.float64] | None = None

    # ---- filters ----------------------------------------------------------------------------------------------------

    def passing(self, conditions: Conditions) -> NDArray[np.intp]:
        """Return the places of the records that meet all conditions."""
        mask = np.ones(len(self._records), np.bool_)
        for name, some in conditions.items():
            known, codes, owners = self._column(name)
            accepted = self._within(name, some) if isinstance(some, Range) else _equal(known, name, some)
            own = np.zeros_like(mask)
            own[owners[accepted[codes]]] = True
            mask &= own
        return np.flatnonzero(mask)

    @one_at_a_time
    def _column(self, name: str) -> tuple[dict[tuple[type, object], int], NDArray[np.intp], NDArray[np.intp]]:
        """Return the codes of the distinct values of a name, and the code and the place of each of its m values.

        A list has several values, and a record without the name has none.
        """
        if (found := self._columns.get(name)) is not None:
            return found
        held = (r.label if name == "label" else r.payload.get(name, []) for r in self._records)
        rows = [value if isinstance(value, list) else (value,) for value in held]
        values = list(chain.from_iterable(rows))
        forms = list(zip(map(type, values), values, strict=True))  # 1, 1.0 and True are one key of a dict
        known = {form: code for code, form in enumerate(dict.fromkeys(forms))}
        codes = np.fromiter(map(known.__getitem__, forms), np.intp, len(forms))
        found = known, codes, np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        if known:  # else a stranger's names, of which there is no end
            self._columns[name] = found
        return found

    @one_at_a_time
    def _within(self, name: str, bounds: Range) -> NDArray[np.bool_]:
        """Return which distinct values of a name are numbers within bounds."""
        if (numbers := self._numbers.get(name)) is None:
            known = self._column(name)[0]
            numbers = np.fromiter((_as_float(value) for _, value in known), np.float64, len(known))
            if known:
                self._numbers[name] = numbers
        accepted = ~np.isnan(numbers)
        for sign, bound in bounds.bounds.items():
            accepted &= COMPARISONS[sign](numbers, float(bound))
        return accepted

    # ---- the nearest ------------------------------------------------------------------------------------------------

    @isolated()
    def nearest(self, query: Vectors, places: NDArray[np.intp], n: int) -> list[Record]:
        """Return the `n` records, of those at some places, nearest to a query (d,); ties go to the first."""
        if len(places) > n:
            places = places[self._may_be_nearest(query, places, n)]
            parts = (places[start : start + PART] for start in range(0, len(places), PART))
            values = [similarities(query, self._vectors(part), self._metric) for part in parts]
            places = places[np.argsort(-np.concatenate(values), kind="stable")[:n]]
        return self.at(places)

    def at(self, places: NDArray[np.intp]) -> list[Record]:
        """Return the records at some places."""
        return [self._records[place] for place in places.tolist()]

    def _may_be_nearest(self, query: Vectors, places: NDArray[np.intp], n: int) -> NDArray[np.bool_]:
        """Return which of some records may be among the `n` nearest, as far as products in float32 tell."""
        rows, d = self._rows[places], len(query)
        own, length = self._all_lengths()[rows], float(np.sqrt(np.square(query.astype(np.float64)).sum()))
        products, lengths = self._products(query, places).astype(np.float64), own * length
        # A sum of d products, in any order, is off by at most d * u / (1 - d * u) of the product of the two lengths
        # (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); what is too small for float32 is lost.
        errors = 1.01 * (d + 2) * _U32 / max(1 - d * _U32, 0.5) * lengths + 4 * d * _TINY * (1 + own + length)
        if self._metric == "cosine":
            scale = np.where(lengths > 0, lengths, 1)
            values, errors = (products / scale).clip(-1, 1), np.where(lengths > 0, errors / scale, 0) + 8 * _U64
        elif self._metric == "sqeuclidean":
            squares = np.square(own) + length**2
            values, errors = 2 * products - squares, 2 * errors + 8 * (d + 8) * _U64 * squares
        else:
            values = products
        least = np.partition(values - errors, len(values) - n)[len(values) - n]
        return values + errors >= least

    def _products(self, query: Vectors, places: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the products (m,) of a query with the vectors at some places."""
        if 3 * len(places) > len(self._rows):  # then copying them takes longer than the products with all
            return np.concatenate([part @ query for part in self._parts])[self._rows[places]]
        parts = (places[start : start + PART] for start in range(0, len(places), PART))
        return np.concatenate([self._vectors(part) @ query for part in parts])

    @one_at_a_time
    def _all_lengths(self) -> NDArray[np.float64]:
        """Return the Euclidean lengths of all rows."""
        if self._lengths is None:
            parts = (part[start : start + PART] for part in self._parts for start in range(0, len(part), PART))
            squares = [np.square(part, dtype=np.float64).sum(-1) for part in parts]
            self._lengths = np.sqrt(np.concatenate(squares))
        return self._lengths

    def _vectors(self, places: NDArray[np.intp]) -> Vectors:
        """Return the vectors (m, d) at some places."""
        (base, more), rows = self._parts, self._rows[places]
        if not len(more):
            return base[rows]
        found, in_base = np.empty((len(rows), base.shape[1]), np.float32), rows < len(base)
        found[in_base], found[~in_base] = base[rows[in_base]], more[rows[~in_base] - len(base)]
        return found


def _equal(known: Mapping[tuple[type, object], int], name: str, wanted: Iterable[object]) -> NDArray[np.bool_]:
    """Return which distinct values have the `token` of one that is wanted."""
    accepted = np.zeros(len(known), np.bool_)
    for one in wanted:
        # An integer and a float may be one number: for each there is but one of the other type.
        for form in (one, *_other_form(one)):
            code = known.get((type(form), form))
            if code is not None and token(name, form) == token(name, one):
                accepted[code] = True
    return accepted


def _other_form(value: object) -> list[object]:
    """Return the float nearest to an integer, or the integers that a float may be."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [float(value)]
    # Text shows fewer digits of a large float than its exact integer has.
    return [int(Decimal(repr(value)))] if isinstance(value, float) else []


def _as_float(value: object) -> float:
    """Return a number for comparisons with bounds; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return np.nan
    if isinstance(value, int) and abs(value) > LARGEST_BOUND:
        return _BEYOND if value > 0 else -_BEYOND
    return float(value)
