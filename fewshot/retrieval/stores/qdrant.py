"""A store in Qdrant: on a server, in a folder, or in memory."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewshot.errors import StoreError, missing
from fewshot.retrieval.stores.base import BATCH, UNTOUCHED, Store, Vectors, first_line, refuse_missing
from fewshot.retrieval.stores.records import Conditions, Range, Record, token, tokens, uuid_of
from fewshot.search.similarity import Metric, normalize

#: Qdrant's distances. Its own cosine would normalize the stored vectors, and the originals would be lost.
DISTANCES = {"sqeuclidean": "EUCLID", "cosine": "DOT", "dot": "DOT"}
#: Qdrant's names of comparisons.
_BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
#: Records of each label that are re-scored to find its nearest one.
GROUP = 4


class QdrantStore(Store):
    """A store in a collection of Qdrant (extra ``qdrant``).

    The key of a point is a version 5 UUID of the record's id; its payload holds ``id``, ``label`` and ``payload``.
    Filters match ``tokens``, one text for each value, because Qdrant can match neither floats nor arbitrary names, and
    bounds ``numbers``, by a hash of the name; labels are grouped by ``group``, the token of the label. Under ``cosine``
    the point is the vector normalized to length 1, compared by inner product, and the payload holds the original in
    ``raw`` (base64 of float32). This doubles the disk space, and returns exactly what was added.

    Metric, embedder and vector length are stored in the metadata of the collection, which needs Qdrant 1.16. Qdrant has
    no transactions: `add` and `upsert` check everything first, and on failure take back what they have written, and
    nothing that others have added; if the server is unreachable by then, the error says how many records may remain. If
    two clients write the same id at the same moment, the later one wins. `snapshot` reads in parts, so concurrent
    changes may or may not be included.

    Parameters
    ----------
    location : str, path or QdrantClient
        ``":memory:"``, the URL of a server, a folder (used by one process at a time), or an existing client.
    collection : str
        Name of the collection.
    metric, fingerprint, d
        As for `Store`; must match those of an existing collection.
    create : bool, default=True
        Whether to create the collection if it does not exist, as soon as `d` is known.
    exact : bool, default=True
        Whether to compare all points; otherwise a server uses HNSW, which is faster and may miss some.

    Raises
    ------
    MissingExtraError
        If qdrant-client is not installed.
    StoreError
        If the server cannot be reached, or the collection is missing, is not a store, or belongs to another embedder.

    Examples
    --------
    >>> store = QdrantStore(":memory:", "flowers", "cosine", "3f2a", d=2)
    >>> store.add([Record("a.jpg", np.float32([3, 0]), "rose"), Record("b.jpg", np.float32([0, 1]), "tulip")])
    2
    >>> [(match.id, match.similarity) for match in store.search([[1.0, 0.0]], k=1)[0]]
    [('a.jpg', 1.0)]
    """

    def __init__(
        self,
        location: str | Path | Any,
        collection: str,
        metric: Metric,
        fingerprint: str,
        d: int | None = None,
        *,
        create: bool = True,
        exact: bool = True,
    ) -> None:
        super().__init__(metric, fingerprint, d)
        try:
            import qdrant_client
            from qdrant_client.http.exceptions import ApiException
        except ImportError:
            raise missing("qdrant-client is missing", "qdrant") from None
        self.collection, self.exact = collection, bool(exact)
        self._models, self._lost = qdrant_client.models, (ApiException, import_module("grpc").RpcError, OSError)
        self._owned, self._params, self._location = isinstance(location, (str, Path)), None, str(location)
        self._has_server = self._knows_numbers = False
        self._client: Any
        with self._calls():
            self._client = _connect(qdrant_client.QdrantClient, location) if self._owned else location
            try:
                self._open(create)
            except BaseException:
                self.close()
                raise

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments that open it; see `Store.parameters`."""
        if self._location == ":memory:" or not self._owned:
            what = "lives in this process" if self._owned else "was made with a client"
            raise ValueError(f"the QdrantStore {what}; make it with a URL or a folder")
        return {"location": self._location, "collection": self.collection, **self._facts, "exact": self.exact}

    def close(self) -> None:
        """Close the client unless it was passed in; a collection in memory is then lost."""
        if self._owned:
            self._client.close()

    @contextmanager
    def _calls(self) -> Iterator[None]:
        try:
            yield
        except self._lost as error:
            what = f"Qdrant, collection {self.collection!r}, cannot be reached or refused ({first_line(error)})"
            raise StoreError(f"{what}; make sure that the server runs, then call again") from error

    def _open(self, create: bool) -> None:
        """Create the collection, or check that an existing one is for the same vectors."""
        options = getattr(self._client, "init_options", {})
        self._has_server = not options.get("path") and options.get("location") != ":memory:"
        if self._has_server:  # without a server, search is always exact, and parameters cause warnings
            self._params = self._models.SearchParams(exact=self.exact)
        if not self._is_there() and not create:
            raise StoreError(f"there is no collection {self.collection!r} in Qdrant; give its name, or create=True")
        if self.d is not None:
            self._make(self.d)

    def _is_there(self) -> bool:
        """Return whether the collection exists; check its facts."""
        client, name = self._client, self.collection
        if not client.collection_exists(name):
            return False
        facts: Any = (client.get_collection(name).config.metadata or {}).get("fewshot_store")
        cure = "its metadata (Qdrant 1.16 or later) does not say so; give another name, or upgrade the server"
        self._check_facts(facts, f"the collection {name!r}", cure)
        self._knows_numbers = bool(facts.get("numbers"))
        return True

    def _look(self) -> None:
        with self._calls():
            self._is_there()

    def _make(self, d: int) -> None:
        client, models, name = self._client, self._models, self.collection
        with self._calls():
            if self._is_there():
                return
            vectors = models.VectorParams(size=d, distance=getattr(models.Distance, DISTANCES[self.metric]))
            facts = {**self._facts, "d": d, "numbers": True}
            client.create_collection(name, vectors_config=vectors, metadata={"fewshot_store": facts})
            for field in ("tokens", "group") if self._has_server else ():
                client.create_payload_index(name, field, models.PayloadSchemaType.KEYWORD)
            self._is_there()

    # ---- records --------------------------------------------------------------------------------------------------

    def add(self, records: Iterable[Record]) -> int:
        """Add records, all of them checked before the first is sent; see `Store.add`."""
        new = self._checked(records)
        self._settle(new)
        with self._calls():
            for id in self._present([record.id for record in new])[:1]:
                raise ValueError(f"the id {id!r} is already in the store; remove that record first, or call upsert")
        return self._send(new, {})

    def upsert(self, records: Iterable[Record]) -> int:
        """Add or replace records, all of them checked before the first is sent; see `Store.upsert`."""
        new = self._checked(records)
        self._settle(new)
        return self._send(new, {record.id: record for record in self._get([record.id for record in new])})

    def _send(self, new: list[Record], before: dict[str, Record]) -> int:
        """Write records; on failure take them back, and write those `before` again."""
        sent, batch = 0, uuid.uuid4().hex
        try:
            with self._calls():
                for start in range(0, len(new), BATCH):
                    some = new[start : start + BATCH]
                    sent += len(some)
                    self._put(some, batch)
        except BaseException as error:  # including an interrupt
            try:
                self._delete([record.id for record in new[:sent]], batch)
                changed = [before[record.id] for record in new[:sent] if record.id in before]
                for start in range(0, len(changed), BATCH):
                    self._put(changed[start : start + BATCH], "")
            except self._lost:
                raise StoreError(
                    f"the connection to Qdrant, collection {self.collection!r}, was lost while records were written, "
                    f"so up to {sent} of them may remain, from {new[0].id!r} on; "
                    + ("write all again with upsert" if before else "remove those, then add all again")
                ) from error
            raise
        return len(new)

    def _put(self, records: Sequence[Record], batch: str) -> None:
        self._client.upsert(self.collection, [self._point(record, batch) for record in records], wait=True)

    def _count(self) -> int:
        with self._calls():
            return int(self._client.count(self.collection, exact=True).count)

    def _get(self, ids: list[str]) -> Iterable[Record]:
        found, with_vectors = list[Any](), self.metric != "cosine"
        with self._calls():
            for start in range(0, len(ids), BATCH):
                keys = [str(uuid_of(id)) for id in ids[start : start + BATCH]]
                found += self._client.retrieve(self.collection, keys, with_payload=True, with_vectors=with_vectors)
        return map(self._record, found)

    def _remove(self, ids: list[str]) -> None:
        with self._calls():
            refuse_missing(ids, set(self._present(ids)), UNTOUCHED)
            self._delete(ids)

    def _records(self, conditions: Conditions) -> Iterable[Record]:
        return map(self._record, self._scroll(True, self.metric != "cosine", conditions))

    def _labels(self) -> Iterable[Any]:
        return (point.payload["label"] for point in self._scroll(["label"], False))

    def _point(self, record: Record, batch: str) -> Any:
        payload = {
            "id": record.id,
            "label": record.label,
            "payload": dict(record.payload),
            "batch": batch,
            "tokens": tokens(record.label, record.payload),
            "group": token("label", record.label),
            "numbers": _numbers(record),
        }
        if self.metric == "cosine":
            payload["raw"] = base64.b64encode(record.vector.astype("<f4").tobytes()).decode()
        return self._models.PointStruct(
            id=str(uuid_of(record.id)), vector=self._compared(record.vector), payload=payload
        )

    def _compared(self, vector: Vectors) -> list[float]:
        """Return a vector as Qdrant compares it: under ``cosine`` normalized to length 1; zero stays zero."""
        x = torch.from_numpy(vector).double()
        return list((normalize(x) if self.metric == "cosine" else x).tolist())

    def _record(self, point: Any) -> Record:
        held = point.payload
        raw = point.vector if self.metric != "cosine" else np.frombuffer(base64.b64decode(held["raw"]), "<f4")
        return Record(held["id"], np.array(raw, np.float32), held["label"], held["payload"], self.fingerprint)

    def _present(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that exist."""
        keys = [str(uuid_of(id)) for id in ids]
        parts = [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]
        found = (self._client.retrieve(self.collection, part, with_payload=["id"]) for part in parts)
        return [point.payload["id"] for points in found for point in points]

    def _delete(self, ids: Sequence[str], batch: str | None = None) -> None:
        """Delete records; with `batch` only those added in that batch."""
        if not ids:
            return
        models = self._models
        conditions = [models.HasIdCondition(has_id=[str(uuid_of(id)) for id in ids])]
        if batch is not None:
            conditions.append(models.FieldCondition(key="batch", match=models.MatchValue(value=batch)))
        self._client.delete(self.collection, models.Filter(must=conditions), wait=True)

    def _scroll(self, payload: bool | list[str], vectors: bool, conditions: Conditions | None = None) -> Iterator[Any]:
        after, passing = None, self._filter(conditions or {})
        while True:
            with self._calls():
                points, after = self._client.scroll(
                    self.collection, passing, limit=BATCH, offset=after, with_payload=payload, with_vectors=vectors
                )
            yield from points
            if after is None:
                return

    # ---- searching ------------------------------------------------------------------------------------------------

    def _candidates(self, queries: Vectors, n: int, conditions: Conditions) -> list[list[Record]]:
        with self._calls():
            requests = [
                self._models.QueryRequest(
                    query=self._compared(query),
                    filter=self._filter(conditions),
                    params=self._params,
                    limit=n,
                    with_payload=True,
                    with_vector=self.metric != "cosine",
                )
                for query in queries
            ]
            found = self._client.query_batch_points(self.collection, requests)
        return [[self._record(point) for point in response.points] for response in found]

    def _candidates_per_class(self, queries: Vectors, n: int, conditions: Conditions) -> list[list[Record]]:
        """One request per query for Qdrant's groups, which a server computes approximately."""
        with self._calls():
            found = [
                self._client.query_points_groups(
                    self.collection,
                    group_by="group",
                    query=self._compared(query),
                    query_filter=self._filter(conditions),
                    search_params=self._params,
                    limit=n,
                    group_size=GROUP,
                    with_payload=True,
                    with_vectors=self.metric != "cosine",
                )
                for query in queries
            ]
        return [[self._record(point) for group in one.groups for point in group.hits] for one in found]

    def _filter(self, conditions: Conditions) -> Any:
        models, must = self._models, []
        for name, some in conditions.items():
            if not isinstance(some, Range):
                wanted = models.MatchAny(any=[token(name, value) for value in some])
                must.append(models.FieldCondition(key="tokens", match=wanted))
            elif self._knows_numbers:
                bounds = models.Range(**{_BOUNDS[sign]: bound for sign, bound in some.bounds.items()})
                must.append(models.FieldCondition(key=f"numbers.{_hash(name)}", range=bounds))
            else:
                raise StoreError(
                    f"the collection {self.collection!r} was made by a version that knew no bounds; copy its records "
                    "into another collection to filter by them"
                )
        return models.Filter(must=must) if must else None


def _hash(name: str) -> str:
    return uuid_of(name).hex


def _numbers(record: Record) -> dict[str, list[float]]:
    """Return the numbers of a record by a hash of their names, as floats, which Qdrant compares."""
    named = {**record.payload, "label": record.label}
    found = {name: value if isinstance(value, list) else [value] for name, value in named.items()}
    numbers = {
        _hash(name): [float(v) for v in some if isinstance(v, (int, float)) and not isinstance(v, bool)]
        for name, some in found.items()
    }
    return {name: some for name, some in numbers.items() if some}


def _connect(client: Any, location: str | Path) -> Any:
    """Return a client for a server, a folder, or this process."""
    if str(location) == ":memory:" or str(location).startswith(("http://", "https://")):
        return client(str(location))
    if re.fullmatch(r"[\w.-]+:\d+", str(location)):
        raise ValueError(f"{str(location)!r} is neither a URL nor a folder; for a server give 'http://{location}'")
    try:
        return client(path=str(location))
    except RuntimeError as error:
        raise StoreError(
            f"the folder {location} is used by another Qdrant client ({error}); close that one, or run a server"
        ) from None
