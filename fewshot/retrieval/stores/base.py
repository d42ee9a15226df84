"""What every store of embeddings can do: `Store`, the records that go in, and the matches that come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.errors import StoreError, UnknownNameError
from fewshot.retrieval.stores.records import Match, Record, check_embedder, check_queries, check_records
from fewshot.retrieval.stores.values import check_where, similarities, token
from fewshot.search.similarity import METRICS

#: The contract as one import: records and matches stand in a file of their own for its length.
__all__ = ["BATCH", "Match", "Record", "Store", "check_queries", "check_records"]

#: Records that are written or read at a time.
BATCH = 1000
#: Queries whose candidates are held at a time.
QUERIES = 100
#: Records beyond those asked for that are compared again, and how many at most where all of them are equally near.
SPARE, TIES = 16, 4096
#: What the similarities of a store, in float32, may be wrong by: in proportion, and where they underflow.
SLACK, UNDERFLOW = 2e-6, 1e-36


class Store(ABC):
    """A collection of embeddings that is added to, removed from and searched, wherever it lives.

    A store knows its metric and the fingerprint of the embedder whose vectors it holds, and refuses another's: vectors
    of two networks can be compared, but the result means nothing.

    What a store proposes as nearest is compared again here, in float64, and ordered by similarity and then by id: all
    stores give the same answers, as far as each is exact.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}
        Similarity; higher is closer. ``sqeuclidean`` is minus the squared Euclidean distance.
    fingerprint : str
        Of the embedder: `Embedder.fingerprint`.
    d : int
        Length of a vector.
    """

    kind: ClassVar[str] = ""

    def __init__(self, metric: str, fingerprint: str, d: int) -> None:
        if metric not in METRICS:
            raise UnknownNameError("metric", metric, METRICS)
        if not fingerprint:
            raise ValueError("fingerprint is empty; give that of the embedder (Embedder.fingerprint)")
        if d < 1:
            raise ValueError(f"d is {d}; expected the length of an embedding")
        self.metric, self.fingerprint, self.d = metric, fingerprint, int(d)

    # ---- what a store fills in -----------------------------------------------------------------------------------

    @abstractmethod
    def add(self, records: Iterable[Record]) -> int:
        """Add records and return how many; all of them or, where one is bad or the store is lost, none.

        Raises
        ------
        ValueError
            If a vector has another length or is not finite, an id is there already or twice, or a label or payload is
            of a type that a store cannot keep.
        StoreError
            If the store cannot be reached or written, or a record names another embedder.
        """

    @abstractmethod
    def remove(self, ids: Sequence[str]) -> int:
        """Remove records and return how many; all of them or none.

        Raises
        ------
        ValueError
            If an id is not there.
        """

    @abstractmethod
    def snapshot(self) -> list[Record]:
        """Return all records as they are at this moment, sorted by their ids."""

    @abstractmethod
    def labels(self) -> list[Any]:
        """Return the labels that are there, each once, in no order."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what the store holds open."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _candidates(
        self, queries: NDArray[np.float32], n: int, conditions: Mapping[str, list[Any]]
    ) -> list[list[Record]]:
        """Return for each query the `n` nearest records that pass; another number than `n` means all that pass."""

    # ---- what every store can do then -----------------------------------------------------------------------------

    def search(self, vectors: ArrayLike, k: int = 10, where: Mapping[str, Any] | None = None) -> list[list[Match]]:
        """Return the nearest records of each of `vectors` (n, d), nearest first, among equals by their ids.

        Of more than 4096 records that are equally near as the last one, any may be returned.

        Parameters
        ----------
        vectors : array-like of shape (n, d)
            Queries.
        k : int, default=10
            Records a query; fewer come where the store, or what the filter leaves of it, holds fewer.
        where : mapping, optional
            Only records whose ``label``, or value in the payload, is this, or one of these where it is a list. Types
            count: 1 is 1.0, but neither "1" nor True. Of a list in the payload one value has to fit.

        Raises
        ------
        ValueError
            If vectors have another length or are not finite, or k is below 1.
        StoreError
            If the store cannot be reached.
        """
        queries, conditions = check_queries(vectors, self.d, k), check_where(where)
        if not all(conditions.values()):
            return [[] for _ in queries]
        found: list[list[Match]] = []
        for start in range(0, len(queries), QUERIES):
            found += self._search(queries[start : start + QUERIES], int(k), conditions)
        return found

    def nearest_per_class(
        self, vectors: ArrayLike, k: int = 10, where: Mapping[str, Any] | None = None
    ) -> list[list[Match]]:
        """Return the best record of each of the `k` nearest labels, for each of `vectors` (n, d), nearest first.

        Parameters
        ----------
        vectors, where
            As for `search`.
        k : int, default=10
            Labels a query; fewer come where there are fewer.

        Raises
        ------
        ValueError, StoreError
            As for `search`.
        """
        queries, conditions = check_queries(vectors, self.d, k), check_where(where)
        if not all(conditions.values()):
            return [[] for _ in queries]
        return [self._nearest_per_class(query, int(k), conditions) for query in queries]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def check_embedder(self, fingerprint: str) -> None:
        """Refuse the vectors of another embedder.

        Raises
        ------
        StoreError
            If the fingerprint is another's.
        """
        check_embedder(fingerprint, self.fingerprint)

    def _check_facts(self, facts: Mapping[str, Any], where: str) -> None:
        """Refuse to open a store that was made with another metric, length or embedder."""
        for name in ("metric", "d"):
            if facts.get(name) != getattr(self, name):
                raise StoreError(
                    f"{where} was made with {name}={facts.get(name)!r}, and not {getattr(self, name)!r}; give the same"
                )
        if (known := str(facts.get("fingerprint"))) != self.fingerprint:
            raise StoreError(
                f"{where} holds vectors of the embedder {known[:12]}, and {self.fingerprint[:12]} was given; embed "
                "with the same network and preprocessing, or make another store"
            )

    @property
    def _facts(self) -> dict[str, Any]:
        return {"metric": self.metric, "fingerprint": self.fingerprint, "d": self.d}

    def _search(self, queries: NDArray[np.float32], k: int, conditions: Mapping[str, list[Any]]) -> list[list[Match]]:
        found: list[list[Match]] = [[] for _ in queries]
        waiting, n = list(range(len(queries))), k + SPARE
        while waiting:
            again = []
            for place, records in zip(waiting, self._candidates(queries[waiting], n, conditions), strict=True):
                matches = self._compare(queries[place], records)
                found[place] = matches[:k]
                # Where the last candidate is as near as the last match, one that was not proposed could be, too.
                if len(records) == n < k + TIES and self._is_level(
                    queries[place], records, matches[k - 1], matches[-1]
                ):
                    again.append(place)
            waiting, n = again, 2 * n
        return found

    def _compare(self, query: NDArray[np.float32], records: Sequence[Record]) -> list[Match]:
        """Return records as matches, nearest first."""
        values = similarities(query, [record.vector for record in records], self.metric).tolist()
        matches = (Match(r.id, r.label, value, dict(r.payload)) for r, value in zip(records, values, strict=True))
        return sorted(matches, key=lambda match: (-match.similarity, match.id))

    def _is_level(self, query: NDArray[np.float32], records: Sequence[Record], one: Match, other: Match) -> bool:
        """Whether a store, which compares in float32, could confuse the two."""
        scale = 1.0
        if self.metric == "sqeuclidean":
            scale = -other.similarity
        elif self.metric == "dot":
            scale = float(np.linalg.norm(query) * max(np.linalg.norm(record.vector) for record in records))
        return one.similarity - other.similarity <= SLACK * scale + UNDERFLOW

    def _nearest_per_class(
        self, query: NDArray[np.float32], k: int, conditions: Mapping[str, list[Any]]
    ) -> list[Match]:
        n = 4 * k
        while True:
            matches = self._search(query[None], n, conditions)[0]
            best = best_of_labels(matches)
            if len(best) >= k or len(matches) < n:
                return best[:k]
            n *= 4


def best_of_labels(matches: Iterable[Match]) -> list[Match]:
    """Return the first match of each label."""
    best: dict[str, Match] = {}
    for match in matches:
        best.setdefault(token("label", match.label), match)
    return list(best.values())
