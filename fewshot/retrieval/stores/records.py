"""The records of a store, the matches of a search, and their validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.errors import StoreError
from fewshot.retrieval.stores.values import check_plain, check_text
from fewshot.utils.containers import to_array
from fewshot.utils.labels import check_length, plain_label
from fewshot.utils.values import as_values

#: The largest number in a vector: larger ones overflow in databases, which compute in float32.
LARGEST = 1e15


@dataclass(frozen=True, eq=False)
class Record:
    """An embedding with a name, a label and further values.

    Attributes
    ----------
    id : str
        Its unique name in the store, such as a path.
    vector : ndarray of shape (d,), float32
        The embedding.
    label : str, int, float, bool or None
        Its class.
    payload : mapping
        More values, by name, of the same types as a label, or lists of these.
    embedder : str
        The fingerprint of the embedder that computed the vector, if known; a store accepts only its own.
    """

    id: str
    vector: NDArray[np.float32]
    label: Any = None
    payload: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    embedder: str = ""


@dataclass(frozen=True)
class Match:
    """A record found by a search.

    Attributes
    ----------
    id : str
        Its name.
    label : object
        Its class.
    similarity : float
        Similarity to the query in the metric of the store; higher is closer.
    payload : mapping
        Its further values.
    """

    id: str
    label: Any
    similarity: float
    payload: Mapping[str, Any]


def check_embedder(found: str, fingerprint: str) -> None:
    """Raise unless vectors come from the embedder of a store.

    Raises
    ------
    StoreError
        If the fingerprints differ.
    """
    if found != fingerprint:
        raise StoreError(
            f"this store holds vectors of the embedder {fingerprint[:12]}, and these come from {found[:12]}; embed "
            "with the same network and preprocessing, or make another store"
        )


def check_records(records: Iterable[Record], d: int, fingerprint: str) -> list[Record]:
    """Return copies of records with float32 vectors, distinct ids and plain values.

    Raises
    ------
    ValueError
        Naming the record.
    StoreError
        If a record comes from an embedder with another fingerprint.
    """
    checked, seen = [], set()
    for record in records:
        id = plain_label(record.id)
        if not isinstance(id, str) or not id:
            raise ValueError(f"the id {record.id!r} is not text; give each record a name")
        if id in seen:
            raise ValueError(f"the id {id!r} occurs twice; ids must differ")
        seen.add(check_text(id, f"the id {id!r}"))
        check_embedder(record.embedder or fingerprint, fingerprint)
        vector = np.array(as_values(record.vector, name=f"the vector of {id!r}"), np.float32)
        if vector.shape != (d,):
            raise ValueError(f"the vector of {id!r} has shape {vector.shape}; this store holds ({d},)")
        _check_magnitude(vector, f"the vector of {id!r}")
        payload = {}
        for name, value in record.payload.items():
            what = f"{name!r} in the payload of {id!r}"
            if not isinstance(name, str):
                raise ValueError(f"{what} has a {type(name).__name__} as its name; names must be text")
            check_text(name, f"the name of {what}")
            payload[name] = (
                [check_plain(v, what) for v in value] if isinstance(value, list) else check_plain(value, what)
            )
        label = check_length(check_plain(record.label, f"the label of {id!r}"), f"the label of {id!r}")
        checked.append(Record(id, vector, label, payload, fingerprint))
    return checked


def check_queries(vectors: ArrayLike, d: int, k: int) -> NDArray[np.float32]:
    """Return queries (n, d) in float32.

    Raises
    ------
    ValueError
        If their shape is wrong, they are not finite, or k is below 1.
    """
    queries = np.asarray(as_values(vectors, name="the array of queries"), np.float32)
    if queries.ndim != 2 or queries.shape[1] != d:
        raise ValueError(f"queries have shape {queries.shape}; this store is searched with (n, {d})")
    _check_magnitude(queries, "a query")
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k is {k!r}; expected a whole number from 1")
    return queries


def check_ids(ids: Sequence[str]) -> list[str]:
    """Return ids without repetitions.

    Raises
    ------
    ValueError
        If `ids` is a single text.
    """
    if isinstance(ids, str):
        raise ValueError(f"ids is the text {ids!r}; give a list of ids")
    return list(dict.fromkeys(map(plain_label, to_array(ids, as_list=True))))


def _check_magnitude(vector: NDArray[np.float32], what: str) -> None:
    if not np.isfinite(vector).all():
        raise ValueError(f"{what} holds NaN or infinity; leave it out")
    if vector.size and np.abs(vector).max() > LARGEST:
        raise ValueError(f"{what} holds a number above {LARGEST:g}, whose square is too large to compare; scale it")
