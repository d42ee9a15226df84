"""A store in memory, on `PrototypeIndex`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fewshot.retrieval.stores.base import Conditions, Store, Vectors, refuse_missing, similarities
from fewshot.retrieval.stores.records import Record, token, tokens
from fewshot.search.index import PrototypeIndex
from fewshot.utils.locks import new_lock

#: Records compared at a time in a search with a filter.
PART = 16384


class FaissStore(Store):
    """A store in memory: a matrix product up to 1e5 records, a graph or lists of FAISS beyond.

    Searches are exact with a filter, and without one up to 1e5 records; see `PrototypeIndex` for larger stores. Any
    number of threads may search while one adds or removes. The content is lost when the process ends: keep the records
    elsewhere too, for example in a table of annotations.

    Parameters
    ----------
    metric, fingerprint, d
        As for `Store`.

    Examples
    --------
    >>> import numpy as np
    >>> store = FaissStore("cosine", "3f2a", d=2)
    >>> store.add([Record("a.jpg", np.float32([1, 0]), "cat"), Record("b.jpg", np.float32([0, 1]), "dog", {"n": 3})])
    2
    >>> [match.id for match in store.search([[1.0, 0.1]], k=2)[0]]
    ['a.jpg', 'b.jpg']
    >>> store.search([[1.0, 0.1]], where={"n": [3, 4]})[0][0].label
    'dog'
    """

    def __init__(self, metric: str, fingerprint: str, d: int) -> None:
        super().__init__(metric, fingerprint, d)
        # The index holds numbers instead of ids, because a numpy array of texts is as wide as the longest text.
        self._index = PrototypeIndex(metric)
        self._held: dict[int, tuple[Record, frozenset[str]]] = {}
        self._numbers: dict[str, int] = {}
        self._next = 0
        self._lock = new_lock(self)

    def add(self, records: Iterable[Record]) -> int:
        """Add records; see `Store.add`."""
        new = self._checked(records)
        if not new:
            return 0
        with self._lock:
            for record in new:
                if record.id in self._numbers:
                    raise ValueError(f"the id {record.id!r} is already in the store; remove that record first")
            numbers = range(self._next, self._next + len(new))
            self._next += len(new)
            # Records first, index second, so that a search never finds a number without a record.
            for number, record in zip(numbers, new, strict=True):
                self._held[number] = record, frozenset(tokens(record.label, record.payload))
                self._numbers[record.id] = number
            self._index.add(np.stack([record.vector for record in new]), np.array(numbers))
        return len(new)

    def close(self) -> None:
        """Do nothing."""

    def __len__(self) -> int:
        return len(self._index)

    def _remove(self, ids: list[str]) -> None:
        with self._lock:
            refuse_missing(ids, self._numbers)
            numbers = [self._numbers.pop(id) for id in ids]
            self._index.remove(np.array(numbers))
            for number in numbers:
                del self._held[number]

    def _records(self) -> Iterable[Record]:
        held = list(self._held.values())  # an atomic copy: other threads may add
        return (Record(r.id, r.vector.copy(), r.label, dict(r.payload), r.embedder) for r, _ in held)

    def _labels(self) -> Iterable[Any]:
        return (record.label for record, _ in list(self._held.values()))

    def _candidates(self, queries: Vectors, n: int, conditions: Conditions) -> list[list[Record]]:
        if conditions:
            wanted = [{token(name, value) for value in values} for name, values in conditions.items()]
            held = list(self._held.values())
            records = [record for record, own in held if not any(some.isdisjoint(own) for some in wanted)]
            return [self._nearest(query, records, n) for query in queries]
        while some := min(n, len(self._index)):
            try:
                numbers = self._index.search(queries, some)[0]
            except ValueError:  # another thread has removed some
                continue
            found = [[self._held.get(number) for number in row] for row in numbers.tolist()]
            known = [[held[0] for held in row if held is not None] for row in found]
            if all(len(row) == some for row in known):  # no other thread has removed any
                return known
        return [[] for _ in queries]

    def _nearest(self, query: Vectors, records: Sequence[Record], n: int) -> list[Record]:
        if len(records) <= n:
            return list(records)
        parts = (records[start : start + PART] for start in range(0, len(records), PART))
        values = [similarities(query, [record.vector for record in part], self.metric) for part in parts]
        return [records[i] for i in np.argsort(-np.concatenate(values), kind="stable")[:n].tolist()]
