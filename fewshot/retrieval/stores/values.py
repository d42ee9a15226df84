"""Values that every store supports, their equality in filters, and similarities that are the same in all stores."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.containers import to_array
from fewshot.utils.labels import plain_label

#: Types of labels and payload values: those that JSON and every database support.
PLAIN = (str, int, float, bool, type(None))
#: Compares numbers with more digits than a float or 64 bits have, whatever decimal context the caller has set.
_DIGITS = Context(prec=40)
_NAMESPACE = uuid.UUID("7f1e6b52-5d0c-5b0e-9d57-3f0f5c9f2a11")


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
        raise ValueError(f"{what} is a {type(value).__name__}; a store keeps text, numbers and booleans")
    if isinstance(value, str):
        return check_text(value, what)
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"{what} is {value}, which JSON cannot hold; leave it out")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{what} is {value}, which does not fit 64 bits; keep it as text")
    return value


def check_where(where: Mapping[str, Any] | None) -> dict[str, list[Any]]:
    """Return the accepted values of each name in a filter.

    Raises
    ------
    ValueError
        If a name is not text, or a value is not supported.
    """
    conditions = {}
    for name, value in (where or {}).items():
        if not isinstance(name, str):
            raise ValueError(f"the filter names {name!r}; expected 'label' or the name of a value in the payload")
        conditions[check_text(name, "a name in the filter")] = [
            check_plain(v, f"{name!r} in the filter") for v in _several(value)
        ]
    return conditions


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


def similarities(query: NDArray[np.float32], keys: Sequence[NDArray[np.float32]], metric: str) -> NDArray[np.float64]:
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
