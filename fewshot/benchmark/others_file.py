"""Files of results that others have measured or published, in a schema that anyone can write."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fewshot.benchmark.result import Result, Source
from fewshot.episodes.evaluate import mean_and_ci95
from fewshot.episodes.query_draws import BALANCED, check_query_classes
from fewshot.errors import brief
from fewshot.persistence.content import is_number, is_whole

#: What ``schema`` says in such a file. Bump when the meaning of a field changes.
SCHEMA = "fewshot-results-1"
#: Longest text, and most episodes, of a row.
LONGEST, MOST_EPISODES = 400, 1_000_000
#: An accuracy is a whole number of right answers, divided; this much may be lost by rounding to four digits.
ROUNDING = 1e-4

Check = tuple[Callable[[Any], bool], str]
_TEXT: Check = (lambda v: isinstance(v, str) and 0 < len(v) <= LONGEST, f"text of 1 to {LONGEST} characters")
_FLAG: Check = (lambda v: isinstance(v, bool) or v is None, "true, false or null")
_SHARE: Check = (lambda v: is_number(v, 0, 1), "a number from 0 to 1")
_EPISODES: Check = (lambda v: is_whole(v, 1, MOST_EPISODES), f"a whole number from 1 to {MOST_EPISODES}")


def _whole(least: int, most: int) -> Check:
    return lambda v: is_whole(v, least, most), f"a whole number from {least} to {most}"


#: Field -> whether a value is valid, and what is expected.
FIELDS: dict[str, Check] = {
    "dataset": _TEXT,
    "split": _TEXT,
    "method": _TEXT,
    "backbone": _TEXT,
    "n_way": _whole(2, 1_000_000),
    "n_shot": _whole(1, 1_000_000),
    "n_query": _whole(1, 1_000_000),
    "query_classes": (lambda v: isinstance(v, (str, int)), "as for EpisodeSampler"),
    "n_episodes": _EPISODES,
    "accuracy": _SHARE,
    "ci95": _SHARE,
    "external": _FLAG,
    "transductive": _FLAG,
    "supposes_balance": _FLAG,
    "quoted": _TEXT,
    "by": _TEXT,
    "episodes": (
        lambda v: isinstance(v, str) and len(v) == 64 and set(v) <= set("0123456789abcdef"),
        "the sha256 of a set of episodes in an episodes.json",
    ),
    "accuracies": (
        lambda v: isinstance(v, list) and 2 <= len(v) <= MOST_EPISODES and all(is_number(one, 0, 1) for one in v),
        "a list of at least two numbers from 0 to 1, one for each episode",
    ),
    "against": _TEXT,
}
#: Those that every row has.
NEEDED = ("dataset", "method", "backbone", "n_way", "n_shot", "external", "transductive", "supposes_balance")


def results_of_others(found: Mapping[str, Any], source: Source) -> list[Result]:
    """Return the results in a file of that schema.

    Raises
    ------
    ValueError
        If a row lacks a field, or has an unknown one or an invalid value; the message names the row and the field.
    """
    if found.get("schema") != SCHEMA:
        raise ValueError(f"schema is {brief(repr(found.get('schema')))}; expected {SCHEMA!r}")
    rows = found.get("results")
    if not isinstance(rows, list) or not rows:
        raise ValueError("results is missing; expected a list of rows")
    made = []
    for i, row in enumerate(rows, 1):
        try:
            made.append(_result(row, source))
        except ValueError as error:
            raise ValueError(f"row {i}: {error}") from None
    return made


def _result(row: Any, source: Source) -> Result:
    if not isinstance(row, Mapping):
        raise ValueError(f"it is {brief(repr(row))}; expected an object")
    for name in NEEDED:
        if name not in row:
            raise ValueError(f"{name} is missing; expected {FIELDS[name][1]}")
    for name, value in row.items():
        if name not in FIELDS:
            raise ValueError(f"{brief(repr(name))} is no field; the fields are {', '.join(FIELDS)}")
        is_valid, expected = FIELDS[name]
        if not is_valid(value):
            raise ValueError(f"{name} is {brief(repr(value))}; expected {expected}")
    values = {"n_query": 0, "n_episodes": 0, "query_classes": BALANCED, **row}
    values["query_classes"] = check_query_classes(values["query_classes"], values["n_way"])
    values["digest"] = values.pop("episodes", "")
    _check_accuracies(values)
    return Result(source=source, **values)


def _check_accuracies(values: dict[str, Any]) -> None:
    """Derive the accuracy and its interval from those of the episodes; raise if they contradict the row."""
    if "accuracies" not in values:
        if "accuracy" not in values:
            raise ValueError("accuracy is missing; give it, or the accuracies of all episodes")
        return
    own = values["accuracies"] = np.array(values["accuracies"], np.float64)
    n, n_query = values["n_episodes"], values["n_query"]
    if n and n != len(own):
        raise ValueError(f"n_episodes is {n} and there are {len(own)} accuracies; give one for each episode")
    values["n_episodes"] = len(own)
    if n_query and values["query_classes"] != "single":
        right = own * n_query * values["n_way"]
        off = np.abs(right - right.round())
        if off.max() > ROUNDING * n_query * values["n_way"]:
            bad = int(off.argmax())
            raise ValueError(
                f"accuracies[{bad}] is {own[bad]:g}, no whole number of right answers among {n_query} queries of each "
                f"of {values['n_way']} classes; give the shares of right answers, with four digits or more"
            )
    mean, ci95 = mean_and_ci95(own)
    if not math.isclose(values.get("accuracy", mean), mean, abs_tol=1e-3):
        raise ValueError(f"accuracy is {values['accuracy']:g} and the mean of accuracies is {mean:.4f}; leave it out")
    values["accuracy"], values["ci95"] = mean, ci95
