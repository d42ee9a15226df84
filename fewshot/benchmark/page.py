"""The report of a benchmark, a self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fewshot.benchmark.sources import Measured
from fewshot.benchmark.table import MARKS, MEANING, UNIT, Row, mean_ranks, named, names, percent, setting
from fewshot.benchmark.tasks import make_sampler
from fewshot.data.preprocess import Preprocessing
from fewshot.episodes.query_draws import of_queries
from fewshot.report.figures import accuracy_dots, accuracy_lines, accuracy_map, confusion
from fewshot.report.page import Page, count_card

#: Side of a picture in pixels, hard episodes to show, and pictures of each class.
SIDE, N_HARD, N_PICTURES = 64, 3, 3


def write_report(
    path: str | Path,
    rows: Sequence[Row],
    frame: pd.DataFrame,
    summary: pd.DataFrame,
    data: Sequence[Measured],
    facts: Mapping[str, Any],
) -> None:
    """Write the report.

    Parameters
    ----------
    path : path
        The page.
    rows : sequence of Row
        Every unit.
    frame, summary : DataFrame
        As `tidy` and `pooled` return them.
    data : sequence of Measured
        The data sets.
    facts : mapping
        With ``manifest`` and ``baseline``.
    """
    page = Page(
        "Benchmark",
        "Learners compared on the same episodes. In each episode they learn a few unseen classes from a few images "
        "each, then answer queries of these classes. Intervals are 95 %, over episodes.",
    )
    page.cards(
        [
            count_card(frame["learner"].nunique(), "learner"),
            count_card(len(data), "data set"),
            count_card(frame["backbone"].nunique(), "backbone"),
            (f"{int(frame.loc[frame['error'] == '', 'n_episodes'].sum()):,}", "episodes answered"),
        ]
    )
    if len(summary):
        shown = named(summary)
        _accuracies(page, shown, facts["baseline"])
        _sizes(page, shown[shown["n_way"] > 0])
        _over_data(page, shown)
        _errors(page, rows, data)
        _times(page, shown)
    _failures(page, frame)
    _about(page, data, facts)
    page.write(path, "results.csv lists every unit; episodes.json pins the episodes.")


def _accuracies(page: Page, shown: pd.DataFrame, baseline: str) -> None:
    page.section("Accuracy", "\n\n".join(f"{MARKS[w]} {MEANING[w]}." for w in MARKS if shown[w].any()))
    for dataset, part in shown.groupby("dataset", sort=False):
        figure = accuracy_dots(part.assign(group=part["backbone"]))
        page.figure(figure, f"Accuracy of each learner on {dataset}", str(dataset))
        cells: dict[str, dict[str, str]] = {}
        for line in part.to_dict("records"):
            own = cells.setdefault(f"{line['method']}, {line['backbone']}", {})
            own[line["setting"]] = percent(line["accuracy"], line["ci95"])
            own[f"{line['setting']}, change"] = percent(line["change"], line["change_ci95"], "+")
        table = pd.DataFrame.from_dict(cells, orient="index").fillna("").rename_axis("learner")
        page.table(table, f"{dataset}: accuracy in %, and its paired change from {baseline}")


def _sizes(page: Page, shown: pd.DataFrame) -> None:
    figures = []
    for column, fixed in (("n_shot", "n_way"), ("n_way", "n_shot")):
        if shown[column].nunique() < 2:
            continue
        value = shown[fixed].min()
        groups = shown[shown[fixed] == value].groupby(["dataset", "backbone", "query_classes"], sort=False)
        for (dataset, backbone, spread), part in groups:
            title = f"{dataset}, {backbone}, {value}-{fixed.removeprefix('n_')}{of_queries(spread)}"
            figures.append((accuracy_lines(part, column, title), f"Accuracy against {column}, {title}"))
    if figures:
        page.section("Shots and ways", "Accuracy rises with more images per class, and falls with more classes.")
        for figure, alt in figures:
            page.figure(figure, alt)


def _over_data(page: Page, shown: pd.DataFrame) -> None:
    column, row = shown["dataset"] + ", " + shown["setting"], shown["method"] + ", " + shown["backbone"]
    wide = shown.assign(row=row, column=column).pivot_table("accuracy", "row", "column", sort=False)
    page.section("Over data sets", "Accuracy in %. Each column is coloured from its worst to its best.")
    page.figure(accuracy_map(wide), "Heat map of learners and data sets")
    ranks = mean_ranks(shown.assign(learner=shown["method"]))
    if len(ranks):
        page.table(
            ranks.map("{:.2f}".format), "Mean rank over data sets, ways and shots, for each backbone; 1 is best."
        )


def _errors(page: Page, rows: Sequence[Row], data: Sequence[Measured]) -> None:
    whole = [row for row in rows if not row.error]
    page.section("Confusions", "The best learner of each data set, on its first set of episodes.")
    opened = {one.dataset.name: one for one in data}
    first = {row.unit.dataset: row.place[3:] for row in reversed(whole)}
    for dataset in dict.fromkeys(row.unit.dataset for row in whole):
        own = [row for row in whole if (row.unit.dataset, row.place[3:]) == (dataset, first[dataset])]
        best = max(own, key=lambda row: row.accuracies.mean())
        unit = best.unit
        backbone, method = names({"backbone": unit.backbone.name, "learner": unit.method.name, **best.marked})
        name = f"{dataset}: {method}, {backbone}, {setting(unit.n_way, unit.n_shot, unit.query_classes)}"
        if best.found["confusion"]:
            classes = best.found["classes"]
            page.figure(confusion(pd.DataFrame(best.found["confusion"], classes, classes)), f"Confusion, {name}", name)
        if not opened[dataset].is_given:
            _hardest(page, best, opened[dataset], name)


def _hardest(page: Page, row: Row, one: Measured, name: str) -> None:
    """Show the support of the episodes with the lowest accuracy."""
    unit, picture = row.unit, Preprocessing(3, SIDE, SIDE)
    made = make_sampler(unit.n_way, unit.n_shot, unit.n_query, unit.query_classes)
    sampler = made(one.data.labels, seed=unit.seed)
    for i in np.argsort(row.accuracies, kind="stable")[:N_HARD].tolist():
        episode = sampler[i]
        support = {
            label: [picture(one.data.images[j]) for j in episode.support[episode.support_labels == c][:N_PICTURES]]
            for c, label in enumerate(episode.classes[:10].tolist())
        }
        page.task(support, [], f"{name}: support of episode {i}, {100 * row.accuracies[i]:.0f} % right")


def _times(page: Page, shown: pd.DataFrame) -> None:
    times = shown.pivot_table(index="method", columns="setting", values="ms_per_episode", sort=False)
    page.section("Time", "Milliseconds per episode on one thread, for drawing it, gathering embeddings and answering.")
    page.table(times.map("{:.2f}".format))


def _failures(page: Page, frame: pd.DataFrame) -> None:
    failed = frame[frame["error"] != ""]
    if len(failed):
        page.section("Failures", "These units have no result. Run the same command again to retry only them.")
        page.table(failed.set_index("learner")[[*UNIT[:2], *UNIT[3:], "error"]])


def _about(page: Page, data: Sequence[Measured], facts: Mapping[str, Any]) -> None:
    page.section("Data")
    shown = {
        one.dataset.name: [len(one.data), len(one.data.classes), len(one.dropped), one.digest[:16]] for one in data
    }
    columns = ["images", "classes", "duplicates left out", "digest"]
    page.table(pd.DataFrame.from_dict(shown, orient="index", columns=columns).rename_axis("data set"))
    about = {**facts["manifest"], **facts["manifest"]["versions"]}
    command, _ = about.pop("command"), about.pop("versions")
    page.rerun(command, about, "environment")
