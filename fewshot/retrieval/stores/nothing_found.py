"""Why a filter finds nothing: it asks for a name or a value that no record has, such as a mistyped one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fewshot.errors import brief
from fewshot.retrieval.stores.records import Conditions, Range, Record, token
from fewshot.utils.text import closest, listed
from fewshot.utils.warning import warn

#: The most records that are looked at for names and values that are there.
SEEN = 100


def warn_of_nothing(find: Callable[[Conditions], Sequence[Record]], conditions: Conditions) -> None:
    """Warn of a name or label in a filter that no record has.

    Parameters
    ----------
    find : callable
        Returns at most `SEEN` records that meet conditions.
    conditions : mapping
        What no record meets.
    """
    if not (seen := find({})):
        return  # an empty store
    names = {"label", *(name for record in seen for name in record.payload)}
    for name, some in conditions.items():
        if len(conditions) > 1 and find({name: some}):
            continue
        if name not in names:
            hint = closest(name, names) or f"; they have {brief(', '.join(sorted(names)))}"
            asked = brief(repr(name))
            warn(f"nothing was found, since none of the records that were looked at has a value named {asked}{hint}")
        elif isinstance(some, Range):
            _warn_of_bounds(name, list(_values(seen, name)))
        else:
            _warn_of_values(name, some, list(_values(seen, name)))


def _warn_of_bounds(name: str, there: Sequence[Any]) -> None:
    """Warn of bounds on what are no numbers, such as prices that were read from a table as text."""
    if not any(_kind(value) == "numbers" for value in there):
        warn(f"nothing was found, since bounds compare numbers, and {brief(repr(name))} has {_described(there)}")


def _warn_of_values(name: str, wanted: Sequence[Any], there: Sequence[Any]) -> None:
    """Warn of a label that no record has; of other values only if they look mistyped: filters may well find nothing."""
    by_text = {str(value): value for value in there}
    alike = [text for text, value in by_text.items() if isinstance(value, str)]  # 190.0 is nobody's mistyped '10..50'
    text = next(filter(None, (closest(str(one), alike) for one in wanted)), "")
    mistyped = [by_text[str(one)] for one in wanted if str(one) in by_text]  # 1 instead of "1"
    hint = f"; did you mean {mistyped[0]!r}?" if mistyped else text
    if (
        not hint
        and name != "label"
        and there
        and wanted
        and not {*map(_kind, wanted)} & {*map(_kind, there), "nothing"}
    ):
        hint = f"; it has {_described(there)}"
    if not hint and _lie_between(wanted, there):
        low, high = sorted(wanted)
        hint = f"; for all between the two, give {{'>=': {low!r}, '<=': {high!r}}}"
    if hint or name == "label":
        asked = f"{name}={brief(repr(wanted[0]))}" if len(wanted) == 1 else f"{name} among {listed(wanted, 5)}"
        seen = f"; those that were looked at have {listed(there, 5)}"
        others = f"{seen}; for a class that was learned since, call reclassify(model, store)"
        warn(f"nothing was found, since no record has {asked}{hint or others}")


def _lie_between(wanted: Sequence[Any], there: Sequence[Any]) -> bool:
    """Whether two numbers were given, as bounds often are, and some value lies between them."""
    if len(wanted) != 2 or {*map(_kind, wanted)} != {"numbers"}:
        return False
    return any(_kind(value) == "numbers" and min(wanted) < value < max(wanted) for value in there)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true and false"
    return "text" if isinstance(value, str) else "nothing" if value is None else "numbers"


def _described(values: Sequence[Any]) -> str:
    """Return what values are; records without one have None."""
    one = next((value for value in values if value is not None), None)
    return f"{_kind(one)}, such as {brief(repr(one))}"


def _values(records: Iterable[Record], name: str) -> Iterable[Any]:
    """Return the distinct values of a name."""
    held = (record.label if name == "label" else record.payload.get(name) for record in records)
    values = (one for value in held for one in (value if isinstance(value, list) else [value]))
    return {token(name, value): value for value in values}.values()
