"""The records of a store, the matches of a search, and the values that every store supports."""

from __future__ import annotations

import json
import operator
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from types import MappingProxyType, NoneType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.errors import brief
from fewshot.utils.containers import is_missing, to_array
from fewshot.utils.labels import check_length, plain_label, unicode_forms
from fewshot.utils.plain import plain_dict
from fewshot.utils.values import as_values

#: The largest number in a vector: larger ones overflow in databases, which compute in float32.
LARGEST = 1e15
#: Types of labels and payload values: those that JSON and every database support.
PLAIN = (str, int, float, bool, type(None))
#: Compares numbers with more digits than a float or 64 bits have, whatever decimal context the caller has set.
_DIGITS = Context(prec=40)
#: Comparisons in the bounds of a filter.
COMPARISONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
#: The largest bound: every database compares such numbers exactly.
LARGEST_BOUND = 2**53
_NAMESPACE = uuid.UUID("7f1e6b52-5d0c-5b0e-9d57-3f0f5c9f2a11")


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
        More values, by name, of the same types as a label, or lists of these. A store keeps missing ones, such as the
        NaN of an empty cell, as None.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values, which JSON can hold.

        Examples
        --------
        >>> Match("a.png", "ant", 0.75, {"shop": "Oslo"}).to_dict()
        {'id': 'a.png', 'label': 'ant', 'similarity': 0.75, 'payload': {'shop': 'Oslo'}}
        """
        return plain_dict(**vars(self))


@dataclass(frozen=True)
class Range:
    """Bounds of a number in a filter.

    Attributes
    ----------
    bounds : mapping
        Numbers by the comparison with each, one of `COMPARISONS`.
    """

    bounds: Mapping[str, float]

    def holds(self, value: Any) -> bool:
        """Return whether a value, or one of a list, is a number within the bounds."""
        return any(
            isinstance(one, (int, float))
            and not isinstance(one, bool)
            and all(COMPARISONS[name](one, bound) for name, bound in self.bounds.items())
            for one in (value if isinstance(value, list) else [value])
        )


#: The accepted values of each name, or the bounds of a number.
Conditions = Mapping[str, list[Any] | Range]


def several(records: Iterable[Record]) -> Iterable[Record]:
    """Return records.

    Raises
    ------
    TypeError
        If they are a single one.
    """
    if isinstance(records, Record):
        raise TypeError(f"records is one record, {records.id!r}; give a list, [record]")
    return records


def check_record(record: Record, d: int | None, fingerprint: str) -> Record:
    """Return a copy of a record of the embedder `fingerprint`, with a vector (d,) in float32 and plain values.

    Without `d`, the vector may have any length. Missing values in the payload, such as NaN, become None.

    Raises
    ------
    ValueError
        Naming the record.
    TypeError
        If it is none.
    """
    if not isinstance(record, Record):
        raise TypeError(f"a record is {brief(repr(record))}; expected Record(id, vector, label)")
    id = plain_label(record.id)
    if not isinstance(id, str) or not id:
        raise ValueError(f"the id {record.id!r} is not text; give each record a name")
    check_text(id, f"the id {id!r}")
    vector = np.array(as_values(record.vector, name=f"the vector of {id!r}"), np.float32)
    if vector.shape != (d or vector.size,) or not vector.size:
        raise ValueError(f"the vector of {id!r} has shape {vector.shape}; this store holds ({d or 'd'},)")
    _check_magnitude(vector, f"the vector of {id!r}")
    payload = {}
    for name, value in record.payload.items():
        what = f"{name!r} in the payload of {id!r}"
        if not isinstance(name, str):
            raise ValueError(f"{what} has a {type(name).__name__} as its name; names must be text")
        check_text(name, f"the name of {what}")
        payload[name] = [_of_payload(v, what) for v in value] if isinstance(value, list) else _of_payload(value, what)
    label = check_length(check_plain(record.label, f"the label of {id!r}"), f"the label of {id!r}")
    return Record(id, vector, label, payload, fingerprint)


def check_queries(vectors: ArrayLike, d: int | None, k: int) -> NDArray[np.float32]:
    """Return queries (n, d) in float32; without `d`, of any length.

    Raises
    ------
    ValueError
        If their shape is wrong, they are not finite, or k is below 1.
    """
    by_image = "; to search by images, use retrieve(model, store, images)"
    given = as_values(vectors, name="the array of queries")
    try:
        queries = np.asarray(given, np.float32)
    except (TypeError, ValueError):  # names of files, for example
        raise ValueError(f"queries are no vectors of numbers{by_image}") from None
    if queries.ndim != 2 or queries.shape[1] != (d or queries.shape[1]):
        cure = {1: "; for one vector there is search_one", 2: ""}.get(queries.ndim, by_image)
        raise ValueError(f"queries have shape {queries.shape}; this store is searched with (n, {d or 'd'}){cure}")
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


def check_text(value: str, what: str) -> str:
    """Return text if every database can store it.

    Raises
    ------
    ValueError
        If it contains a zero byte or a lone surrogate, as file names that are not UTF-8 do.
    """
    if "\0" in value:
        raise ValueError(f"{what} holds a zero byte, which databases refuse; leave it out")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not valid Unicode, which databases refuse; decode it differently") from None
    return value


def check_plain(value: Any, what: str) -> Any:
    """Return a label, or a value of a payload, as a plain Python value.

    Raises
    ------
    ValueError
        If its type or magnitude is not supported.
    """
    value = plain_label(value)
    if not isinstance(value, PLAIN):
        cure = ", so write it as text, such as '2026-05-31'" if hasattr(value, "isoformat") else ""
        raise ValueError(f"{what} is a {type(value).__name__}; a store keeps text, numbers and booleans{cure}")
    if isinstance(value, str):
        return check_text(value, what)
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"{what} is {value}, which JSON cannot hold; leave it out")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{what} is {value}, which does not fit 64 bits; keep it as text")
    return value


def _of_payload(value: Any, what: str) -> Any:
    """Return a value of a payload as `check_plain`; None for an empty cell of a table, whatever stands for it there."""
    if is_missing(value):  # before conversion: the number behind a mask of numpy is no value
        return None
    value = plain_label(value)
    return None if is_missing(value) else check_plain(value, what)


def check_where(where: Mapping[str, Any] | None) -> dict[str, list[Any] | Range]:
    """Return the accepted values of each name in a filter, or the bounds of a number.

    Raises
    ------
    ValueError
        If a name is not text, or a value or bound is not supported.
    TypeError
        If it is not a mapping.
    """
    if not isinstance(where, (Mapping, NoneType)):
        raise TypeError(
            f"where is {brief(repr(where))}; expected a mapping such as {{'label': 'ant', 'price': {{'>': 3}}}}"
        )
    conditions: dict[str, list[Any] | Range] = {}
    for name, value in (where or {}).items():
        if not isinstance(name, str):
            raise ValueError(f"the filter names {name!r}; expected 'label' or the name of a value in the payload")
        what = f"{name!r} in the filter"
        if not isinstance(value, (Mapping, Range)):
            given = (check_plain(v, what) for v in _several(value))
            value = [form for v in given for form in (unicode_forms(v) if isinstance(v, str) else [v])]
        elif isinstance(value, Mapping):
            value = Range({sign: _bound(sign, bound, what) for sign, bound in value.items()})
            if not value.bounds:
                raise ValueError(f"{what} has no bounds; {_BOUNDS}")
        conditions[check_text(name, "a name in the filter")] = value
    return conditions


_BOUNDS = "expected values, or bounds such as {'>=': 1, '<': 5}"


def _bound(sign: Any, bound: Any, what: str) -> float:
    if sign not in COMPARISONS:
        raise ValueError(f"{what} is compared by {sign!r}; {_BOUNDS}")
    bound = plain_label(bound)
    # NaN fails the comparison.
    if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not abs(bound) <= LARGEST_BOUND:
        raise ValueError(f"{what} has the bound {bound!r}; expected a number between -2**53 and 2**53")
    return bound


def accepts(condition: list[Any] | Range, name: str, value: Any) -> bool:
    """Return whether a value of this name meets a condition.

    Examples
    --------
    >>> accepts([1, "a"], "n", 1.0), accepts(Range({">": 1}), "n", 1.0)
    (True, False)
    """
    if isinstance(condition, Range):
        return condition.holds(value)
    return token(name, value) in {token(name, one) for one in condition}


def _several(value: Any) -> Iterable[Any]:
    """Return the values of a list, set, array or column, or a single value in a list."""
    if isinstance(value, (set, frozenset)):
        return value
    try:
        found = to_array(value, as_list=True)
    except TypeError:  # text, a number
        return [value]
    return [value] if isinstance(found, np.ndarray) and not found.ndim else found


def token(name: str, value: Any) -> str:
    """Return a text that is the same for equal named values: 1 equals 1.0, but neither "1" nor True.

    Examples
    --------
    >>> token("label", 1) == token("label", 1.0), token("label", 1) == token("label", "1")
    (True, False)
    """
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return json.dumps([name, value])
    return json.dumps([name, {"number": str(Decimal(json.dumps(value + 0)).normalize(_DIGITS) + 0)}])


def tokens(label: Any, payload: Mapping[str, Any]) -> list[str]:
    """Return the tokens of a record, including one for each value of a list in its payload."""
    found = {token("label", label)}
    for name, value in payload.items():
        if name != "label":  # in a filter, this name means the class
            found.update(token(name, v) for v in (value if isinstance(value, list) else [value]))
    return sorted(found)


def uuid_of(id: str) -> uuid.UUID:
    """Return the database key of an id: database keys cannot be text, or not text of any length."""
    return uuid.uuid5(_NAMESPACE, id)


def _check_magnitude(vector: NDArray[np.float32], what: str) -> None:
    if not np.isfinite(vector).all():
        raise ValueError(f"{what} holds NaN or infinity; leave it out")
    if vector.size and np.abs(vector).max() > LARGEST:
        raise ValueError(f"{what} holds a number above {LARGEST:g}, whose square is too large to compare; scale it")
