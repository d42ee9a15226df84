"""A store in Qdrant: a server, a folder, or this process."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.errors import MissingExtraError, StoreError
from fewshot.retrieval.stores.base import BATCH, SPARE, Match, Record, Store, best_of_labels, check_records
from fewshot.retrieval.stores.connection import connect_qdrant
from fewshot.retrieval.stores.records import check_ids
from fewshot.retrieval.stores.values import token, tokens, uuid_of
from fewshot.search.similarity import normalize

#: How Qdrant compares. For ``cosine`` it would scale vectors when it takes them in, and the originals were gone.
DISTANCES = {"sqeuclidean": "EUCLID", "cosine": "DOT", "dot": "DOT"}
#: Records of one label that are compared again where the best of each label is asked for.
GROUP = 4


class QdrantStore(Store):
    """A store in a collection of Qdrant (extra ``qdrant``).

    A point's key is made of the record's id (a UUID of version 5); its payload holds ``id``, ``label`` and ``payload``.
    Filters go by ``tokens``, a text for each value, since Qdrant has no match for floats and none that can name any
    key; labels are grouped by ``group``, the token of the label. Under ``cosine`` the point is the vector scaled to
    length 1, compared by the inner product, and the payload holds the original in ``raw`` (base64 of float32): that
    costs its bytes a second time, on disk, and gives back what was added to the last bit.

    Metric, embedder and length of the vectors stand in the metadata of the collection, which Qdrant has had since 1.16.
    Qdrant knows no transactions: `add` checks everything first, and what it has written when something fails it deletes
    again, and nothing that others have; where the server is gone by then, the error says how many records may be left.
    Of two who add one id at the same moment the later wins. `snapshot` reads part after part, and what others write
    meanwhile may be in it or not.

    Parameters
    ----------
    location : str, path or QdrantClient
        ``":memory:"``, the URL of a server, a folder (used by one process at a time), or a client that is there.
    collection : str
        Name of the collection.
    metric, fingerprint, d
        As for `Store`; an existing collection must have been made with the same.
    create : bool, default=True
        Whether to make the collection where it is not there.
    exact : bool, default=True
        Whether all points are compared; otherwise a server's HNSW proposes, which is quicker and may miss some.

    Raises
    ------
    MissingExtraError
        If qdrant-client is not installed.
    StoreError
        If the server cannot be reached, or the collection is missing, no store, or another embedder's.

    Examples
    --------
    >>> store = QdrantStore(":memory:", "flowers", "cosine", "3f2a", d=2)
    >>> store.add([Record("a.jpg", np.float32([3, 0]), "rose"), Record("b.jpg", np.float32([0, 1]), "tulip")])
    2
    >>> [(match.id, match.similarity) for match in store.search([[1.0, 0.0]], k=1)[0]]
    [('a.jpg', 1.0)]
    """

    kind: ClassVar[str] = "qdrant"

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
            raise MissingExtraError("qdrant-client is missing; run: pip install 'fewshot[qdrant]'") from None
        self.collection, self.exact = collection, bool(exact)
        self._models, self._lost = qdrant_client.models, (ApiException, import_module("grpc").RpcError, OSError)
        self._owned, self._params = isinstance(location, (str, Path)), None
        self._client: Any
        with self._calls():
            self._client = connect_qdrant(qdrant_client.QdrantClient, location) if self._owned else location
            try:
                self._open(create)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the client, unless it was given; a collection in memory is gone then."""
        if self._owned:
            self._client.close()

    @contextmanager
    def _calls(self) -> Iterator[None]:
        try:
            yield
        except self._lost as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            what = f"Qdrant, collection {self.collection!r}, cannot be reached or refused ({line})"
            raise StoreError(f"{what}; see that the server runs and call again") from error

    def _open(self, create: bool) -> None:
        """Make the collection, or see that it was made for the same vectors."""
        client, models, name = self._client, self._models, self.collection
        options = getattr(client, "init_options", {})
        has_server = not options.get("path") and options.get("location") != ":memory:"
        if has_server:  # the others compare all, and warn of settings that mean nothing to them
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
        if not isinstance(facts, dict):
            raise StoreError(
                f"the collection {name!r} is no store of embeddings: its metadata, which Qdrant has since 1.16, does "
                "not say so; give another name, or upgrade the server"
            )
        self._check_facts(facts, f"the collection {name!r}")

    # ---- records --------------------------------------------------------------------------------------------------

    def add(self, records: Iterable[Record]) -> int:
        """Add records, all of them checked before the first is sent; see `Store.add`."""
        new = check_records(records, self.d, self.fingerprint)
        with self._calls():
            for id in self._present([record.id for record in new])[:1]:
                raise ValueError(f"the id {id!r} is there already; remove that record first")
        sent, batch = 0, uuid.uuid4().hex
        try:
            with self._calls():
                for start in range(0, len(new), BATCH):
                    points = [self._point(record, batch) for record in new[start : start + BATCH]]
                    sent += len(points)
                    self._client.upsert(self.collection, points, wait=True)
        except BaseException as error:  # an interrupt, too, must not leave a part
            try:
                self._delete([record.id for record in new[:sent]], batch)
            except self._lost:
                raise StoreError(
                    f"Qdrant, collection {self.collection!r}, was lost while records were added, so that up to {sent} "
                    f"of them may be left, from {new[0].id!r} on; remove those that are there, and add all again"
                ) from error
            raise
        return len(new)

    def remove(self, ids: Sequence[str]) -> int:
        """Remove records; see `Store.remove`."""
        gone = check_ids(ids)
        with self._calls():
            present = set(self._present(gone))
            for id in gone:
                if id not in present:
                    raise ValueError(f"there is no record {id!r}; nothing was removed")
            self._delete(gone)
        return len(gone)

    def snapshot(self) -> list[Record]:
        """Return all records, sorted by their ids."""
        points = self._scroll(True, self.metric != "cosine")
        return sorted(map(self._record, points), key=lambda record: record.id)

    def labels(self) -> list[Any]:
        """Return the labels that are there, each once."""
        found = (point.payload["label"] for point in self._scroll(["label"], False))
        return list({token("label", label): label for label in found}.values())

    def __len__(self) -> int:
        with self._calls():
            return int(self._client.count(self.collection, exact=True).count)

    def _point(self, record: Record, batch: str) -> Any:
        vector, payload = record.vector, {"id": record.id, "label": record.label, "payload": dict(record.payload)}
        payload |= {
            "batch": batch,
            "tokens": tokens(record.label, record.payload),
            "group": token("label", record.label),
        }
        if self.metric == "cosine":
            payload["raw"] = base64.b64encode(vector.astype("<f4").tobytes()).decode()
            vector = _unit(vector)
        return self._models.PointStruct(id=str(uuid_of(record.id)), vector=vector.tolist(), payload=payload)

    def _record(self, point: Any) -> Record:
        held = point.payload
        raw = point.vector if self.metric != "cosine" else np.frombuffer(base64.b64decode(held["raw"]), "<f4")
        return Record(held["id"], np.array(raw, np.float32), held["label"], held["payload"], self.fingerprint)

    def _present(self, ids: Sequence[str]) -> list[str]:
        """Return those of some ids that are there."""
        keys = [str(uuid_of(id)) for id in ids]
        parts = [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]
        found = (self._client.retrieve(self.collection, part, with_payload=["id"]) for part in parts)
        return [point.payload["id"] for points in found for point in points]

    def _delete(self, ids: Sequence[str], batch: str | None = None) -> None:
        """Delete records, if a batch is named only those that came with it."""
        if not ids:
            return
        models, keys = self._models, [str(uuid_of(id)) for id in ids]
        chosen = models.PointIdsList(points=keys)
        if batch is not None:
            own = models.FieldCondition(key="batch", match=models.MatchValue(value=batch))
            chosen = models.FilterSelector(filter=models.Filter(must=[models.HasIdCondition(has_id=keys), own]))
        self._client.delete(self.collection, chosen, wait=True)

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

    def _candidates(
        self, queries: NDArray[np.float32], n: int, conditions: Mapping[str, list[Any]]
    ) -> list[list[Record]]:
        requests = [
            self._models.QueryRequest(
                query=self._query(query),
                filter=self._filter(conditions),
                params=self._params,
                limit=n,
                with_payload=True,
                with_vector=self.metric != "cosine",
            )
            for query in queries
        ]
        with self._calls():
            found = self._client.query_batch_points(self.collection, requests)
        return [[self._record(point) for point in response.points] for response in found]

    def _nearest_per_class(
        self, query: NDArray[np.float32], k: int, conditions: Mapping[str, list[Any]]
    ) -> list[Match]:
        """See `Store.nearest_per_class`; in one call, of Qdrant's groups, which on a server are its best effort.

        Of records of a class that are equally near, more than four, it may be another than the first.
        """
        with self._calls():
            found = self._client.query_points_groups(
                self.collection,
                group_by="group",
                query=self._query(query),
                query_filter=self._filter(conditions),
                search_params=self._params,
                limit=k + SPARE,
                group_size=GROUP,
                with_payload=True,
                with_vectors=self.metric != "cosine",
            )
        records = [self._record(point) for group in found.groups for point in group.hits]
        return best_of_labels(self._compare(query, records))[:k]

    def _query(self, query: NDArray[np.float32]) -> list[float]:
        return list((_unit(query) if self.metric == "cosine" else query).tolist())

    def _filter(self, conditions: Mapping[str, list[Any]]) -> Any:
        models = self._models
        must = [
            models.FieldCondition(key="tokens", match=models.MatchAny(any=[token(name, value) for value in values]))
            for name, values in conditions.items()
        ]
        return models.Filter(must=must) if must else None


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale to length 1; zero stays zero."""
    return normalize(torch.from_numpy(vector.astype(np.float64))).float().numpy()
