"""`Store`: a searchable collection of embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.errors import StoreError, UnknownNameError
from fewshot.persistence.content import is_whole
from fewshot.retrieval.stores.nothing_found import SEEN, warn_of_nothing
from fewshot.retrieval.stores.records import (
    Conditions,
    Match,
    Record,
    check_ids,
    check_queries,
    check_record,
    check_where,
    several,
    token,
)
from fewshot.search.similarity import METRICS, Metric

Vectors = NDArray[np.float32]
#: Proposes records for each query.
Search = Callable[[Vectors, int, Conditions], list[list[Record]]]
#: Records written or read at a time.
BATCH = 1000
#: Queries whose candidates are held in memory at a time.
QUERIES = 100
#: What has become of other records if one to remove is missing.
UNTOUCHED = "nothing was removed"
#: Extra candidates that are re-scored, because databases rank in float32.
SPARE = 16


class Store(ABC):
    """A searchable collection of embeddings, in memory or in a database.

    A store knows its metric and the fingerprint of its embedder, and refuses vectors of any other embedder, since
    similarities between two networks are meaningless.

    Candidates from the database are re-scored in float64, so all stores return the same similarities if their search is
    exact. Which of several equally near records are returned may differ.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}
        Similarity; higher is closer. ``sqeuclidean`` is minus the squared Euclidean distance.
    fingerprint : str
        That of the embedder, `Embedder.fingerprint`.
    d : int, optional
        Length of a vector; by default that of the first record.
    """

    def __init__(self, metric: Metric, fingerprint: str, d: int | None = None) -> None:
        if metric not in METRICS:
            raise UnknownNameError("metric", metric, METRICS)
        if not fingerprint:
            raise ValueError("fingerprint is empty; give that of the embedder (Embedder.fingerprint)")
        if d is not None and d < 1:
            raise ValueError(f"d is {d}; expected the length of an embedding")
        self.metric, self.fingerprint, self.d = metric, fingerprint, None if d is None else int(d)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.metric!r}, {self.fingerprint[:12]!r}, d={self.d})"

    # ---- implemented by each store --------------------------------------------------------------------------------

    @abstractmethod
    def add(self, records: Iterable[Record]) -> int:
        """Add records and return their number. If any is invalid or the connection fails, none is added.

        Raises
        ------
        ValueError
            If a vector has the wrong length or is not finite, an id is in use or occurs twice, or the type of a label
            or payload value is not supported.
        StoreError
            If the store cannot be reached or written, or a record comes from another embedder.
        """

    @abstractmethod
    def upsert(self, records: Iterable[Record]) -> int:
        """Add records, each in place of the one that has its id, and return their number.

        Raises
        ------
        ValueError
            As for `add`, but an id may be in use.
        StoreError
            As for `add`.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection, if any."""

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The arguments, as JSON values, that open this store in another process.

        Raises
        ------
        ValueError
            If another process cannot reach it, or an argument is a secret.
        """

    @abstractmethod
    def _count(self) -> int: ...

    @abstractmethod
    def _get(self, ids: list[str]) -> Iterable[Record]:
        """Return copies of those records that exist, in any order."""

    @abstractmethod
    def _remove(self, ids: list[str]) -> None:
        """Remove at least one record, or call `refuse_missing` before anything is removed."""

    @abstractmethod
    def _records(self, conditions: Conditions) -> Iterable[Record]:
        """Return copies of the records that meet the conditions, in any order."""

    @abstractmethod
    def _labels(self) -> Iterable[Any]:
        """Return all labels, in any order; each at least once."""

    @abstractmethod
    def _candidates(self, queries: Vectors, n: int, conditions: Conditions) -> list[list[Record]]:
        """Return the `n` nearest records of each query that meet the conditions; fewer only if there are no more."""

    def _look(self) -> None:  # noqa: B027 - a store in memory has nothing to look at
        """Set `d` if the store has been made meanwhile."""

    def _make(self, d: int) -> None:  # noqa: B027 - nor to make
        """Make what keeps vectors of length `d`."""

    def _alone(self) -> AbstractContextManager[object]:
        """Keep others from changing the store inside the block, where it can."""
        return nullcontext()

    # ---- common to all stores ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count() if self._is_made else 0

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records with these ids, in this order.

        Raises
        ------
        ValueError
            If there is no record with one of the ids.
        """
        wanted = check_ids(ids)
        found = {record.id: record for record in (self._get(wanted) if wanted and self._is_made else [])}
        refuse_missing(wanted, found)
        return [found[id] for id in wanted]

    def relabel(self, labels: Mapping[str, Any]) -> int:
        """Give records other labels, by id, and return their number. If any is missing or invalid, none changes.

        Raises
        ------
        ValueError
            If there is no record with one of the ids, or the type of a label is not supported.
        """
        if not labels or not self._is_made:
            refuse_missing(labels, (), "nothing was changed")
            return 0
        with self._alone():
            return self.upsert([replace(record, label=labels[record.id]) for record in self.get(list(labels))])

    def remove(self, ids: Sequence[str]) -> int:
        """Remove records and return their number. If any is missing, none is removed.

        Raises
        ------
        ValueError
            If there is no record with one of the ids.
        """
        gone = check_ids(ids)
        if gone and not self._is_made:
            refuse_missing(gone, (), UNTOUCHED)
        elif gone:
            self._remove(gone)
        return len(gone)

    def snapshot(self, where: Mapping[str, Any] | None = None) -> list[Record]:
        """Return the current records that pass a filter as for `search`, or all, sorted by id.

        Examples
        --------
        >>> from fewshot import FaissStore, Record
        >>> store = FaissStore("cosine", "3f2a")
        >>> store.add([Record("a.jpg", [1, 0], "cat", {"year": 2019}), Record("b.jpg", [0, 1], "dog", {"year": 2024})])
        2
        >>> store.remove([record.id for record in store.snapshot({"year": {"<": 2020}})])
        1
        """
        conditions = check_where(where)
        if not (self._is_made and all(conditions.values())):
            return []
        found = sorted(self._records(conditions), key=lambda record: record.id)
        if conditions and not found:
            warn_of_nothing(lambda some: list(islice(self._records(some), SEEN)), conditions)
        return found

    def labels(self) -> list[Any]:
        """Return the distinct labels, in any order."""
        return list({token("label", label): label for label in (self._labels() if self._is_made else [])}.values())

    def search(self, vectors: ArrayLike, k: int = 10, where: Mapping[str, Any] | None = None) -> list[list[Match]]:
        """Return the nearest records of each of `vectors` (n, d), sorted by similarity, then by id.

        Parameters
        ----------
        vectors : array-like of shape (n, d)
            Queries.
        k : int, default=10
            Records per query; fewer if the store, or the part that passes the filter, holds fewer.
        where : mapping, optional
            Required values of ``label`` or of the payload, by name; a list means any of its values. Types matter: 1
            equals 1.0, but neither "1" nor True; Unicode forms of one text are equal. Or the bounds of a number, by
            comparison: ``{">=": 1, "<": 5}``. A list in the payload matches if one of its values does. If nothing is
            found because no record has a name or a label that is asked for, a warning says so.

        Raises
        ------
        ValueError
            If vectors have the wrong length or are not finite, or k is below 1.
        StoreError
            If the store cannot be reached.
        """
        return [matches[:k] for matches in self._find(self._candidates, vectors, k, where)]

    def search_one(self, vector: ArrayLike, k: int = 10, where: Mapping[str, Any] | None = None) -> list[Match]:
        """Return the nearest records of one vector (d,); see `search`."""
        (found,) = self.search(np.asarray(vector)[None], k, where)
        return found

    def nearest_per_class(
        self, vectors: ArrayLike, k: int = 10, where: Mapping[str, Any] | None = None
    ) -> list[list[Match]]:
        """Return the nearest record of each of the `k` nearest labels, for each of `vectors` (n, d), nearest first.

        Parameters
        ----------
        vectors, where
            As for `search`.
        k : int, default=10
            Labels per query; fewer if there are fewer.

        Raises
        ------
        ValueError, StoreError
            As for `search`.
        """
        found = self._find(self._candidates_per_class, vectors, k, where)
        return [_best_of_labels(matches)[:k] for matches in found]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def check_embedder(self, fingerprint: str) -> None:
        """Raise unless `fingerprint` is that of the store.

        Raises
        ------
        StoreError
            If it is that of another embedder.
        """
        if fingerprint != self.fingerprint:
            raise StoreError(
                f"this store holds vectors of the embedder {self.fingerprint[:12]}, and these come from "
                f"{fingerprint[:12]}; embed with the same network and preprocessing, or make another store"
            )

    def _checked(self, records: Iterable[Record]) -> list[Record]:
        """Return copies of records that this store can keep; see `add`."""
        checked: dict[str, Record] = {}
        d = self.d if self._is_made else None
        for record in several(records):
            new = check_record(record, d, self.fingerprint)
            d = len(new.vector)
            self.check_embedder(record.embedder or self.fingerprint)
            if new.id in checked:
                raise ValueError(f"the id {new.id!r} occurs twice; ids must differ")
            checked[new.id] = new
        return list(checked.values())

    @property
    def _is_made(self) -> bool:
        """Whether the length of the vectors is known."""
        if self.d is None:
            self._look()
        return self.d is not None

    def _settle(self, records: Sequence[Record]) -> None:
        """Keep vectors of the length of these records from now on, if none has been known."""
        if self.d is None and records:
            self._make(len(records[0].vector))
            self.d = len(records[0].vector)

    def _check_facts(self, facts: Any, where: str, otherwise: str) -> None:
        """Raise unless this is a store, and has the same metric, vector length (adopted if unknown) and embedder."""
        if not isinstance(facts, dict):
            raise StoreError(f"{where} is not a store of embeddings: {otherwise}")
        if not is_whole(facts.get("d"), 1):
            raise StoreError(f"{where} does not say how long its vectors are: {otherwise}")
        for name in ("metric", "d"):
            if facts.get(name) != getattr(self, name) and (name, self.d) != ("d", None):
                raise StoreError(
                    f"{where} was made with {name}={facts.get(name)!r}, not {getattr(self, name)!r}; give the same"
                )
        if (known := str(facts.get("fingerprint"))) != self.fingerprint:
            raise StoreError(
                f"{where} holds vectors of the embedder {known[:12]}, and {self.fingerprint[:12]} was given; embed "
                "with the same network and preprocessing, or make another store"
            )
        self.d = facts["d"]

    @property
    def _facts(self) -> dict[str, Any]:
        return {"metric": self.metric, "fingerprint": self.fingerprint, "d": self.d}

    def _find(
        self, search: Search, vectors: ArrayLike, k: int, where: Mapping[str, Any] | None
    ) -> Iterator[list[Match]]:
        """Yield the candidates of each query, re-scored, nearest first."""
        is_made = self._is_made
        queries, conditions = check_queries(vectors, self.d, k), check_where(where)
        accepts_any, any_found = is_made and all(conditions.values()), False
        for start in range(0, len(queries), QUERIES):
            part = queries[start : start + QUERIES]
            found = search(part, int(k) + SPARE, conditions) if accepts_any else [[] for _ in part]
            any_found |= any(found)
            for query, records in zip(part, found, strict=True):
                yield self._compare(query, records)
        if accepts_any and conditions and len(queries) and not any_found:
            warn_of_nothing(lambda some: self._candidates(queries[:1], SEEN, some)[0], conditions)

    def _compare(self, query: Vectors, records: Sequence[Record]) -> list[Match]:
        values = similarities(query, [record.vector for record in records], self.metric).tolist()
        matches = (Match(r.id, r.label, value, dict(r.payload)) for r, value in zip(records, values, strict=True))
        return sorted(matches, key=lambda match: (-match.similarity, match.id))

    def _candidates_per_class(self, queries: Vectors, n: int, conditions: Conditions) -> list[list[Record]]:
        """Return records of each query that include the nearest of each of the ``n - SPARE`` nearest labels."""
        return [self._reaching(query, n - SPARE, conditions) for query in queries]

    def _reaching(self, query: Vectors, k: int, conditions: Conditions) -> list[Record]:
        """Return the nearest records that have `k` labels, or all."""
        n = 4 * k + SPARE
        while True:
            (records,) = self._candidates(query[None], n, conditions)
            # As a set counts 1 and True once, it may ask for more records than needed, never for fewer.
            if len(records) < n or len({record.label for record in records[:-SPARE]}) >= k:
                return records
            n *= 4


def _best_of_labels(matches: Iterable[Match]) -> list[Match]:
    """Return the first match of each label."""
    best: dict[str, Match] = {}
    for match in matches:
        best.setdefault(token("label", match.label), match)
    return list(best.values())


def refuse_missing(ids: Iterable[str], present: Container[str], outcome: str = "give ids that it has") -> None:
    """Raise ValueError if an id is not there."""
    for id in ids:
        if id not in present:
            raise ValueError(f"there is no record {id!r} in the store; {outcome}")


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def similarities(query: Vectors, keys: Sequence[Vectors] | Vectors, metric: str) -> NDArray[np.float64]:
    """Return the similarities (m,) of a query (d,) to m keys (d,).

    As `pairwise_similarity` in float64, but row by row: a value does not depend on the other keys, so all stores
    return the same one, and equal keys have equal ones. Squares of float32 cannot overflow.

    Examples
    --------
    >>> similarities(np.float32([0, 2]), [np.float32([0, 1]), np.float32([0, 0])], "cosine").tolist()
    [1.0, 0.0]
    """
    q, x = query.astype(np.float64), np.asarray(keys, np.float64).reshape(len(keys), len(query))
    if metric == "sqeuclidean":
        return -np.square(x - q).sum(-1)
    product = (x * q).sum(-1)
    if metric == "dot":
        return product
    norm = np.sqrt(np.square(x).sum(-1)) * np.sqrt(np.square(q).sum())
    return np.where(norm > 0, product / np.where(norm > 0, norm, 1), 0).clip(-1, 1)
