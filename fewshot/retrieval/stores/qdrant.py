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
from fewshot.retrieval.stores.base import BATCH, Conditions, Store, Vectors, first_line, refuse_missing
from fewshot.retrieval.stores.records import Record, token, tokens, uuid_of
from fewshot.search.similarity import normalize

#: Qdrant's distances. Its own cosine would normalize the stored vectors, and the originals would be lost.
DISTANCES = {"sqeuclidean": "EUCLID", "cosine": "DOT", "dot": "DOT"}
#: Records of each label that are re-scored to find its nearest one.
GROUP = 4


class QdrantStore(Store):
    """A store in a collection of Qdrant (extra ``qdrant``).

    The key of a point is a version 5 UUID of the record's id; its payload holds ``id``, ``label`` and ``payload``.
    Filters match ``tokens``, one text for each value, because Qdrant can match neither floats nor arbitrary names;
    labels are grouped by ``group``, the token of the label. Under ``cosine`` the point is the vector normalized to
    length 1, compared by inner product, and the payload holds the original in ``raw`` (base64 of float32). This doubles
    the disk space, and returns exactly what was added.

    Metric, embedder and vector length are stored in the metadata of the collection, which needs Qdrant 1.16. Qdrant has
    no transactions: `add` checks everything first, and on failure deletes what it has written, and nothing that others
    have written; if the server is unreachable by then, the error says how many records may remain. If two clients add
    the same id at the same moment, the later one wins. `snapshot` reads in parts, so concurrent changes may or may not
    be included.

    Parameters
    ----------
    location : str, path or QdrantClient
        ``":memory:"``, the URL of a server, a folder (used by one process at a time), or an existing client.
    collection : str
        Name of the collection.
    metric, fingerprint, d
        As for `Store`; must match those of an existing collection.
    create : bool, default=True
        Whether to create the collection if it does not exist.
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
        metric: str,
        fingerprint: str,
        d: int,
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
        self._owned, self._params = isinstance(location, (str, Path)), None
        self._client: Any
        with self._calls():
            self._client = _connect(qdrant_client.QdrantClient, location) if self._owned else location
            try:
                self._open(create)
            except BaseException:
                self.close()
                raise

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
        client, models, name = self._client, self._models, self.collection
        options = getattr(client, "init_options", {})
        has_server = not options.get("path") and options.get("location") != ":memory:"
        if has_server:  # without a server, search is always exact, and parameters cause warnings
            self._params = models.SearchParams(exact=self.exact)
        if not client.collection_exists(name):
            if not create:
                raise StoreError(f"there is no collection {name!r} in Qdrant; give its name, or create=True")
            distance = getattr(models.Distance, DISTANCES[self.metric])
            vectors = models.VectorParams(size=self.d, distance=distance)
            client.create_collection(name, vectors_config=vectors, metadata={"fewshot_store": self._facts})
            for field in ("tokens", "group") if has_server else ():
                client.create_payload_index(name, field, models.PayloadSchemaType.KEYWORD)
        facts = (client.get_collection(name).config.metadata or {}).get("fewshot_store")
        cure = "its metadata (Qdrant 1.16 or later) does not say so; give another name, or upgrade the server"
        self._check_facts(facts, f"the collection {name!r}", cure)

    # ---- records --------------------------------------------------------------------------------------------------

    def add(self, records: Iterable[Record]) -> int:
        """Add records, all of them checked before the first is sent; see `Store.add`."""
        new = self._checked(records)
        with self._calls():
            for id in self._present([record.id for record in new])[:1]:
                raise ValueError(f"the id {id!r} is already in the store; remove that record first")
        sent, batch = 0, uuid.uuid4().hex
        try:
            with self._calls():
                for start in range(0, len(new), BATCH):
                    points = [self._point(record, batch) for record in new[start : start + BATCH]]
                    sent += len(points)
                    self._client.upsert(self.collection, points, wait=True)
        except BaseException as error:  # including an interrupt
            try:
                self._delete([record.id for record in new[:sent]], batch)
            except self._lost:
                raise StoreError(
                    f"the connection to Qdrant, collection {self.collection!r}, was lost during add, so "
                    f"up to {sent} records may remain, from {new[0].id!r} on; remove those, then add all again"
                ) from error
            raise
        return len(new)

    def __len__(self) -> int:
        with self._calls():
            return int(self._client.count(self.collection, exact=True).count)

    def _remove(self, ids: list[str]) -> None:
        with self._calls():
            refuse_missing(ids, set(self._present(ids)))
            self._delete(ids)

    def _records(self) -> Iterable[Record]:
        return map(self._record, self._scroll(True, self.metric != "cosine"))

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

    def _scroll(self, payload: bool | list[str], vectors: bool) -> Iterator[Any]:
        after = None
        while True:
            with self._calls():
                points, after = self._client.scroll(
                    self.collection, limit=BATCH, offset=after, with_payload=payload, with_vectors=vectors
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
        models = self._models
        must = [
            models.FieldCondition(key="tokens", match=models.MatchAny(any=[token(name, value) for value in values]))
            for name, values in conditions.items()
        ]
        return models.Filter(must=must) if must else None


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
