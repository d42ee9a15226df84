"""What a benchmark found, as tables: tidy for programs, in Markdown for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewshot.benchmark.grid import LINEAR_PROBE
from fewshot.benchmark.tasks import Unit
from fewshot.episodes.result import mean_and_ci95

#: Marks of what must not be compared with the rest.
MARKS = {"transductive": "†", "external": "‡", "gradient": "§"}
MEANING = {
    "transductive": "transductive: all queries of an episode are answered together",
    "external": "external pretraining: the network has seen other data, maybe of such classes",
    "gradient": "fitted by gradient descent to each support set",
}
#: Marks of learners; the others are of backbones.
METHOD = ("transductive", "gradient")
#: What tells the sets of episodes apart.
SETTING = ["dataset", "way", "shot"]


@dataclass(frozen=True, eq=False)
class Row:
    """A unit with what was found, or why nothing was.

    Attributes
    ----------
    unit : Unit
        The unit.
    found : mapping
        As `answer` returns it; empty for a failure.
    error : str
        Why it failed; empty otherwise.
    external : bool
        Whether the backbone was trained on data from elsewhere.
    trace : str
        Where in the code it failed.
    """

    unit: Unit
    found: Mapping[str, Any]
    error: str
    external: bool
    trace: str = ""

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Of each episode."""
        return np.array(self.found["accuracies"])

    @property
    def marked(self) -> dict[str, bool]:
        """Which of the `MARKS` it has."""
        return {
            "transductive": bool(self.found.get("transductive", False)),
            "external": self.external,
            "gradient": self.unit.method.learner == LINEAR_PROBE,
        }


def tidy(rows: Sequence[Row], baseline: str) -> pd.DataFrame:
    """Return a row a unit.

    Returns
    -------
    DataFrame
        ``dataset``, ``backbone``, ``learner``, ``way``, ``shot`` (0 where they vary) and ``seed``; ``accuracy`` (0..1)
        with ``ci95``; ``change`` and ``change_ci95``, the paired difference to the baseline on the same episodes;
        ``episodes``; ``transductive``, ``external``, ``gradient`` and ``batch_statistics``, which mark what must not be
        compared with the rest; ``ms_per_episode``; ``error``, empty unless the unit failed; ``key``.
    """
    found = {_place(row): row for row in rows}
    lines = []
    for row in rows:
        unit = row.unit
        other = found.get((*_place(row)[:2], baseline, *_place(row)[3:]))
        line: dict[str, Any] = {
            "dataset": unit.dataset,
            "backbone": unit.backbone.name,
            "learner": unit.method.name,
            "way": unit.way,
            "shot": unit.shot,
            "seed": unit.seed,
        }
        line |= dict.fromkeys(["accuracy", "ci95", "change", "change_ci95"], np.nan)
        if not row.error:
            line["accuracy"], line["ci95"] = mean_and_ci95(row.accuracies)
            if other is not None and not other.error:
                line["change"], line["change_ci95"] = mean_and_ci95(row.accuracies - other.accuracies)
        line |= {
            "episodes": unit.episodes,
            **row.marked,
            "batch_statistics": False,  # `Embedder` takes the running ones, of training
            "ms_per_episode": row.found.get("ms_per_episode", np.nan),
            "error": row.error,
            "key": unit.key,
        }
        lines.append(line)
    return pd.DataFrame(lines)


def pooled(rows: Sequence[Row], baseline: str) -> pd.DataFrame:
    """Return a row for each data set, backbone, learner, way and shot: the episodes of all seeds together.

    Units of which one failed are left out.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_place(row)[:5], []).append(row)
    values = {
        place: np.concatenate([row.accuracies for row in group])
        for place, group in groups.items()
        if not any(row.error for row in group)
    }
    lines = []
    for place, accuracies in values.items():
        first, other = groups[place][0], values.get((*place[:2], baseline, *place[3:]))
        line: dict[str, Any] = dict(zip(["dataset", "backbone", "learner", "way", "shot"], place, strict=True))
        line["accuracy"], line["ci95"] = mean_and_ci95(accuracies)
        change = (np.nan, np.nan) if other is None else mean_and_ci95(accuracies - other)
        line["change"], line["change_ci95"] = change
        line |= {
            **first.marked,
            "ms_per_episode": float(np.mean([row.found["ms_per_episode"] for row in groups[place]])),
        }
        lines.append(line)
    return pd.DataFrame(lines)


def mean_ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the mean rank of each learner over data sets, ways and shots, 1 being the best, for each backbone.

    Only sets of episodes that every learner has answered count.

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
        for name, own in (("backbone", ("external",)), ("learner", METHOD))
    )
    return backbone, learner


def setting(way: int, shot: int) -> str:
    """Return what episodes are like, for people."""
    return f"{way}-way {shot}-shot" if way else "varied way and shot"


def to_markdown(frame: pd.DataFrame, baseline: str) -> str:
    """Return the accuracies in %, a column for each set of episodes, and the changes from the baseline below."""
    if frame.empty:
        return "no unit has a result\n"
    columns = list(dict.fromkeys(zip(*(frame[name] for name in SETTING), strict=True)))
    heads = [f"{dataset}, {setting(way, shot)}" for dataset, way, shot in columns]
    cells = {
        (line["backbone"], line["learner"], *(line[name] for name in SETTING)): line
        for line in frame.to_dict("records")
    }
    order = list(dict.fromkeys((place[0], place[1]) for place in cells))
    lines = []
    for title, value, error, sign in (
        ("accuracy, % (95 % interval over episodes)", "accuracy", "ci95", ""),
        (f"paired change from {baseline}, %", "change", "change_ci95", "+"),
    ):
        lines += [f"| {title} | | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(heads)]
        for backbone, learner in order:
            if value == "change" and learner == baseline:
                continue
            found = [cells.get((backbone, learner, *column)) for column in columns]
            own = next(line for line in found if line is not None)
            shown = [
                "" if line is None or np.isnan(line[value])
                else f"{100 * line[value]:{sign}.1f} ± {100 * line[error]:.1f}"
                for line in found
            ]  # fmt: skip
            lines.append("| " + " | ".join([*map(_cell, names(own)), *shown]) + " |")
        lines.append("")
    lines += [f"{mark} {MEANING[what]}  " for what, mark in MARKS.items() if frame[what].any()]
    return "\n".join(lines).rstrip() + "\n"


def list_failures(frame: pd.DataFrame) -> str:
    """Return a line for each unit of a tidy table that has no result, in Markdown."""
    lines = [
        f"failed: {line['learner']} on {line['dataset']} by {line['backbone']}, {setting(line['way'], line['shot'])}, "
        f"seed {line['seed']}: {line['error']}  \n"
        for line in frame[frame["error"] != ""].to_dict("records")
    ]
    return "".join(["\n", *lines]) if lines else ""


def _place(row: Row) -> tuple[Any, ...]:
    unit = row.unit
    return unit.dataset, unit.backbone.name, unit.method.name, unit.way, unit.shot, unit.seed


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
