"""Result tables of a benchmark: tidy for programs, Markdown for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewshot.benchmark.references import iterates
from fewshot.benchmark.tasks import Unit
from fewshot.episodes.evaluate import mean_and_ci95
from fewshot.episodes.query_draws import of_queries
from fewshot.utils.text import signed

#: Marks of results that must not be compared with the rest.
MARKS = {"transductive": "†", "external": "‡", "gradient": "§"}
MEANING = {
    "transductive": "transductive: all queries of an episode are answered together",
    "external": "external pretraining: the network has seen other data, perhaps of these classes",
    "gradient": "fitted iteratively to each support set, as by gradient descent",
}
#: The columns that identify a set of episodes, and those that identify a unit.
SETTING = ["dataset", "n_way", "n_shot", "query_classes"]
UNIT = ["dataset", "backbone", "learner", "n_way", "n_shot", "query_classes", "seed"]


@dataclass(frozen=True, eq=False)
class Row:
    """A unit with its result, or the reason why it has none.

    Attributes
    ----------
    unit : Unit
        The unit.
    found : mapping
        As `answer` returns it; empty for a failure.
    error : str
        Why the unit failed; empty otherwise.
    external : bool
        Whether the backbone was pretrained on other data.
    trace : str
        The traceback of the failure.
    """

    unit: Unit
    found: Mapping[str, Any]
    error: str
    external: bool
    trace: str = ""

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """The accuracy of each episode; one NaN for a failure."""
        return np.array(self.found.get("accuracies", [np.nan]))

    @property
    def marked(self) -> dict[str, bool]:
        """Which of the `MARKS` apply."""
        return {
            "transductive": bool(self.found.get("transductive", False)),
            "external": self.external,
            "gradient": iterates(self.unit.method),
        }

    @property
    def place(self) -> tuple[Any, ...]:
        """The values of the `UNIT` columns."""
        unit = self.unit
        sizes = unit.n_way, unit.n_shot, str(unit.query_classes), unit.seed
        return unit.dataset, unit.backbone.name, unit.method.name, *sizes


def tidy(rows: Sequence[Row], baseline: str) -> pd.DataFrame:
    """Return one row per unit.

    Returns
    -------
    DataFrame
        ``dataset``, ``backbone``, ``learner``, ``n_way``, ``n_shot`` (0 if they vary), ``query_classes`` and ``seed``;
        ``accuracy`` (0..1) with ``ci95``; ``change`` and ``change_ci95``, the paired difference from the baseline on
        the same episodes; ``n_episodes``; ``transductive``, ``external``, ``gradient`` and ``batch_statistics``, which
        mark results that must not be compared with the rest; ``ms_per_episode``; ``error``, empty unless the unit
        failed; ``key``.
    """
    frame = _measure([[row] for row in rows], UNIT, baseline)
    return frame.assign(error=[row.error for row in rows], key=[row.unit.key for row in rows])


def pooled(rows: Sequence[Row], baseline: str) -> pd.DataFrame:
    """Return one row per data set, backbone, learner and kind of episodes, with the episodes of all seeds pooled.

    A row is left out if one of its units failed.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.place[:-1], []).append(row)
    return _measure([group for group in groups.values() if not any(row.error for row in group)], UNIT[:-1], baseline)


def _measure(groups: Sequence[Sequence[Row]], columns: Sequence[str], baseline: str) -> pd.DataFrame:
    """Return one row per group of units that agree in `columns`, with their episodes pooled; NaN where unknown."""
    accuracies = {group[0].place[: len(columns)]: np.concatenate([row.accuracies for row in group]) for group in groups}
    lines = []
    for (place, own), group in zip(accuracies.items(), groups, strict=True):
        change = own - accuracies.get((*place[:2], baseline, *place[3:]), np.nan)
        values = (*place, *mean_and_ci95(own), *mean_and_ci95(change))
        lines.append(
            {
                **dict(zip((*columns, "accuracy", "ci95", "change", "change_ci95"), values, strict=True)),
                "n_episodes": sum(row.unit.n_episodes for row in group),
                **group[0].marked,
                "batch_statistics": False,  # `Embedder` uses the running statistics of training
                "ms_per_episode": float(np.mean([row.found.get("ms_per_episode", np.nan) for row in group])),
            }
        )
    return pd.DataFrame(lines)


def mean_ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return each learner's mean rank over data sets, ways and shots (1 is best), for each backbone.

    Only sets of episodes that every learner answered count.

    References
    ----------
    J. Demsar (2006). Statistical Comparisons of Classifiers over Multiple Data Sets. JMLR 7.
    """
    ranks = {}
    for backbone, part in frame.groupby("backbone", sort=False):
        wide = part.pivot_table(index=SETTING, columns="learner", values="accuracy", sort=False).dropna()
        if len(wide):
            ranks[backbone] = wide.rank(axis=1, ascending=False).mean()
    return pd.DataFrame(ranks).rename_axis("learner").sort_values(list(ranks)[:1]) if ranks else pd.DataFrame()


def names(line: Mapping[str, Any]) -> tuple[str, str]:
    """Return the backbone and the learner of a row, with their marks."""
    backbone, learner = (
        f"{line[name]} {''.join(MARKS[mark] for mark in own if line[mark])}".strip()
        for name, own in (("backbone", ("external",)), ("learner", ("transductive", "gradient")))
    )
    return backbone, learner


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with ``setting``, and ``backbone`` and ``method`` with their marks, for people."""
    lines = frame.to_dict("records")
    own = [(*names(line), setting(line["n_way"], line["n_shot"], line["query_classes"])) for line in lines]
    return frame.assign(**dict(zip(("backbone", "method", "setting"), zip(*own, strict=True), strict=True)))


def setting(n_way: int, n_shot: int, query_classes: str | int) -> str:
    """Return the kind of episodes, for people."""
    return f"{n_way}-way {n_shot}-shot{of_queries(query_classes)}" if n_way else "varied way and shot"


def percent(value: float, error: float, sign: str = "", digits: int = 1) -> str:
    """Return a value, or with `sign` a change, and half its interval in %; empty for NaN."""
    if np.isnan(value):
        return ""
    shown = signed(100 * value, digits) if sign else f"{100 * value:.{digits}f}"
    return f"{shown} ± {100 * error:.{digits}f}"


def to_markdown(frame: pd.DataFrame, baseline: str) -> str:
    """Return accuracies in %, with a column per set of episodes, followed by the changes from the baseline."""
    if frame.empty:
        return "no unit has a result\n"
    frame = frame.assign(head=[f"{d}, {setting(*of)}" for d, *of in zip(*(frame[c] for c in SETTING), strict=True)])
    heads, lines = list(dict.fromkeys(frame["head"])), []
    for title, value, sign in (
        ("accuracy, % (95 % interval over episodes)", "accuracy", ""),
        (f"paired change from {baseline}, %", "change", "+"),
    ):
        lines += [f"| {title} | | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(heads)]
        error = "ci95" if value == "accuracy" else "change_ci95"
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for line in frame.to_dict("records"):
            if value == "accuracy" or line["learner"] != baseline:
                cells.setdefault(names(line), {})[line["head"]] = percent(line[value], line[error], sign)
        for place, own in cells.items():
            lines.append("| " + " | ".join([*map(_cell, place), *(own.get(head, "") for head in heads)]) + " |")
        lines.append("")
    lines += [f"{mark} {MEANING[what]}  " for what, mark in MARKS.items() if frame[what].any()]
    return "\n".join(lines).rstrip() + "\n"


def list_failures(frame: pd.DataFrame) -> str:
    """Return a Markdown line for each unit of a tidy table that failed."""
    lines = [
        f"failed: {line['learner']} on {line['dataset']} by {line['backbone']}, "
        f"{setting(line['n_way'], line['n_shot'], line['query_classes'])}, seed {line['seed']}: {line['error']}  \n"
        for line in frame[frame["error"] != ""].to_dict("records")
    ]
    return "".join(["\n", *lines]) if lines else ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
