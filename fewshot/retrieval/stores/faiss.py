"""A store in memory, on `PrototypeIndex`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.persistence.artifact import writing
from fewshot.persistence.content import is_whole, json_object
from fewshot.persistence.files import read_regular
from fewshot.persistence.manifest import MOST_BYTES
from fewshot.persistence.versions import EMPTY
from fewshot.retrieval.stores.base import UNTOUCHED, Store, Vectors, refuse_missing
from fewshot.retrieval.stores.columns import Columns
from fewshot.retrieval.stores.records import Conditions, Record, check_record
from fewshot.search.index import PrototypeIndex
from fewshot.search.saving import load_index, save_index
from fewshot.search.similarity import Metric
from fewshot.search.state import State
from fewshot.utils.locks import lock_of, one_at_a_time

#: The kind of a saved folder, and its file of everything but the vectors.
KIND, RECORDS = "store", "records.json"


class FaissStore(Store):
    """A store in memory: a matrix product up to 1e5 records, a graph or lists of FAISS beyond.

    Searches are exact with a filter, and without one up to 1e5 records; see `PrototypeIndex` for larger stores. Any
    number of threads may search while one changes the store. What is not saved is lost when the process ends.

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

    def __init__(self, metric: Metric, fingerprint: str, d: int | None = None) -> None:
        super().__init__(metric, fingerprint, d)
        # The index holds numbers instead of ids, because a numpy array of texts is as wide as the longest text.
        self._index = PrototypeIndex(metric)
        self._held: dict[int, Record] = {}
        self._numbers: dict[str, int] = {}
        self._next = 0
        self._columns: Columns | None = None
        self._versions: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {len(self)} records)"

    @one_at_a_time
    def add(self, records: Iterable[Record]) -> int:
        """Add records; see `Store.add`."""
        new = self._checked(records)
        for record in new:
            if record.id in self._numbers:
                raise ValueError(
                    f"the id {record.id!r} is already in the store; remove that record first, or call upsert"
                )
        return self._write(new)

    @one_at_a_time
    def upsert(self, records: Iterable[Record]) -> int:
        """Add or replace records; see `Store.upsert`. Searches meanwhile find each record as it was or as it is."""
        return self._write(self._checked(records))

    def _write(self, records: list[Record]) -> int:
        """Add records, in place of those with the same ids."""
        if not records:
            return 0
        self._settle(records)
        is_known = any(record.id in self._numbers for record in records)
        numbers = [self._numbers.get(record.id, self._next + i) for i, record in enumerate(records)]
        self._next += len(records)
        vectors = np.stack([record.vector for record in records])
        with lock_of(self._index):
            # Records first, index second, so that a search never finds a number without a record.
            self._hold(numbers, records)
            (self._index.update if is_known else self._index.add)(vectors, np.array(numbers))
            self._columns = None
        return len(records)

    def _hold(self, numbers: Iterable[int], records: Iterable[Record]) -> None:
        for number, record in zip(numbers, records, strict=True):
            self._held[number] = record
            self._numbers[record.id] = number

    def close(self) -> None:
        """Do nothing."""

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the store to a new folder or that of its own; a crash leaves the old content or the new one.

        Vectors are written once: saving again writes only what was added or removed, and labels and payloads. What
        finds the nearest of many gets a file, so that it need not be built again.

        Parameters
        ----------
        folder : path
            Created if needed; must be empty or hold a saved store.
        overwrite : bool, default=False
            Whether to replace the folder even if it holds another store, or someone else has written it since this one
            was loaded from it or last saved to it.

        Raises
        ------
        ArtifactError
            If the folder holds something else or another store, or has changed meanwhile.
        InUseError
            If another writer holds the folder for longer than a minute.
        OSError
            If the folder cannot be written; its content is unchanged.

        Examples
        --------
        >>> import tempfile
        >>> folder, store = tempfile.mkdtemp(), FaissStore("cosine", "3f2a")
        >>> store.add([Record("a.jpg", np.float32([1, 0]), "cat")])
        1
        >>> store.save(folder)
        >>> FaissStore.load(folder).search_one([1.0, 0.1])[0].label
        'cat'
        """
        with writing(folder, KIND):
            with lock_of(self):
                content, state, held = self._index.content, self._index.state, list(self._held.items())
            content |= {"fingerprint": self.fingerprint, "d": self.d}
            columns = {
                "number": [number for number, _ in held],
                **{name: [getattr(record, name) for _, record in held] for name in ("id", "label")},
                "payload": [dict(record.payload) for _, record in held],
            }
            parts = {RECORDS: (None, lambda path: path.write_bytes(json.dumps(columns).encode()))}
            known = {} if overwrite else {os.path.realpath(folder): EMPTY, **self._versions}
            self._versions = {**self._versions, **save_index(state, content, folder, known, KIND, parts)}

    @property
    def parameters(self) -> dict[str, Any]:
        """None that open it: see `Store.parameters`."""
        raise ValueError("a FaissStore lives in this process; save it, and give the name of the folder instead")

    @classmethod
    def load(cls, folder: str | Path, cache: bool = True) -> FaissStore:
        """Open a store that `save` wrote, after verifying every byte of it; it may come from a stranger.

        Parameters
        ----------
        folder : path
            The folder.
        cache : bool, default=True
            Whether to open FAISS's file; see `PrototypeIndex.load`.

        Raises
        ------
        ArtifactError
            If the folder holds no store, or one that is damaged, incomplete, invalid or written by a newer version.
        """
        content, state, store = load_index(folder, cache, KIND, _rebuilt)
        store._index = PrototypeIndex.of(content, state)
        store._versions = {os.path.realpath(folder): content["digest"]}
        return store

    def _count(self) -> int:
        return len(self._index)

    def _get(self, ids: list[str]) -> Iterable[Record]:
        with lock_of(self):
            return [_copy(self._held[self._numbers[id]]) for id in ids if id in self._numbers]

    def _alone(self) -> AbstractContextManager[object]:
        return lock_of(self)

    @one_at_a_time
    def _remove(self, ids: list[str]) -> None:
        refuse_missing(ids, self._numbers, UNTOUCHED)
        numbers = [self._numbers.pop(id) for id in ids]
        with lock_of(self._index):
            self._index.remove(np.array(numbers))
            for number in numbers:
                del self._held[number]
            self._columns = None

    def _records(self, conditions: Conditions) -> Iterable[Record]:
        columns = self._current_columns() if conditions else None
        if columns is not None:
            return map(_copy, columns.at(columns.passing(conditions)))
        return map(_copy, list(self._held.values()))  # an atomic copy: other threads may add

    def _labels(self) -> Iterable[Any]:
        return (record.label for record in list(self._held.values()))

    def _candidates(self, queries: Vectors, n: int, conditions: Conditions) -> list[list[Record]]:
        if conditions:
            if (columns := self._current_columns()) is None:
                return [[] for _ in queries]
            places = columns.passing(conditions)
            return [columns.nearest(query, places, n) for query in queries]
        while some := min(n, len(self._index)):
            try:
                numbers = self._index.search(queries, some)[0]
            except ValueError:  # another thread has removed some
                continue
            found = [[self._held.get(number) for number in row] for row in numbers.tolist()]
            known = [[record for record in row if record is not None] for row in found]
            if all(len(row) == some for row in known):  # no other thread has removed any
                return known
        return [[] for _ in queries]

    def _current_columns(self) -> Columns | None:
        """Return the columns of the records at this moment; None if there are no records."""
        # Another state of the index holds the same keys after a merge, and the old one should be forgotten.
        if (columns := self._columns) is not None and columns.state is self._index.state:
            return columns
        # The lock of the index, because a writer holds that of the store for as long as its records take to come.
        with lock_of(self._index):
            state, columns = self._index.state, self._columns
            if state is not None and self._held and (columns is None or columns.state is not state):
                columns = self._columns = Columns(self._held, state, self.metric)
            return columns


def _copy(record: Record) -> Record:
    return Record(record.id, record.vector.copy(), record.label, dict(record.payload), record.embedder)


def _rebuilt(manifest: dict[str, Any], paths: dict[str, Path], state: State | None) -> FaissStore:
    """Return a saved store without its index; raise ValueError if its records are not those of its keys."""
    if not isinstance(manifest["fingerprint"], str) or (manifest["index"], manifest["keys"]) != ("auto", "full"):
        raise ValueError("its settings are not those of a store")
    store = FaissStore(manifest["metric"], manifest["fingerprint"], manifest["d"])
    columns = json_object(read_regular(paths[RECORDS], MOST_BYTES))
    if state is None:
        keys, numbers = np.empty((0, 1), np.float32), np.empty(0, np.int64)
    else:
        keys, numbers = state.alive()[0].numpy(), state.alive()[1]
    place = {number: i for i, number in enumerate(numbers.tolist())}
    if sorted(columns["number"]) != sorted(place) or not all(is_whole(number, 0) for number in columns["number"]):
        raise ValueError("its records are not those of its vectors")
    for number, *facts in zip(*(columns[name] for name in ("number", "id", "label", "payload")), strict=True):
        id, label, payload = facts
        record = check_record(Record(id, keys[place[number]], label, payload), store.d, store.fingerprint)
        if record.id in store._numbers:
            raise ValueError(f"its id {id!r:.60} occurs twice")
        store._hold([number], [record])
    store._next = manifest["next"]
    return store
