"""The page of all results: tables with the protocol of each row, and the files that they are from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from fewshot.benchmark.frozen import MOST_BYTES
from fewshot.benchmark.pairing import checked
from fewshot.benchmark.plain_table import PlainTable
from fewshot.benchmark.result import Result, Source
from fewshot.benchmark.result_files import read_results
from fewshot.benchmark.table import percent, setting
from fewshot.episodes.query_draws import BALANCED, DIRICHLET, SINGLE
from fewshot.persistence.files import read_regular, refuse_irregular, refuse_other_files, write_text
from fewshot.persistence.provenance import command_line
from fewshot.report.listing import Cell, Column, Listing, NamedFile
from fewshot.report.page import Page, count_card
from fewshot.utils.text import counted

PAGE, FILES, TITLE = "index.html", "files", "Few-shot results"
#: The link of a page to one of its copies, in the box about it; see `NamedFile`.
_COPY = re.compile(rf'<div class="file" id="file-\d+"><h3>[^<]*</h3><p>[^<]*<a href="{FILES}/([^"]+)">')
LEAD = (
    "Accuracy of few-shot classifiers on episodes: each learns a few classes from a few images, then answers queries "
    "of these classes. Accuracies are means over episodes, with intervals of 95 %."
)
READING = """Rows between two thick lines agree in task, queries and the columns of yes and no. Compare only these;
the best of them is bold. External data: the network has seen other data, perhaps of these classes.
Transductive: all queries of an episode are answered together. Supposes balance: the method counts on as many queries of
each class, which the world does not promise.

Change is the paired difference, episode by episode, from the method that the table names. It needs the same episodes,
and is sharper than the difference of two intervals.

Frozen: the episodes are pinned by their digest, so that anyone can answer the same ones. A quoted row is taken from a
publication, on other episodes; nobody has run it here."""
COLUMNS = (
    Column(name="method"),
    Column(name="backbone", filters="Backbone"),
    Column(name="task", filters="Task"),
    Column(name="queries", filters="Queries"),
    Column(name="accuracy, %"),
    Column(name="change, %"),
    Column(name="external data", filters="External data"),
    Column(name="transductive", filters="Transductive"),
    Column(name="supposes balance", filters="Supposes balance"),
    Column(name="episodes", filters="Episodes"),
    Column(name="file"),
)
_SPREADS: dict[str | int, str] = {BALANCED: "balanced", DIRICHLET: "Dirichlet shares", SINGLE: "a single one"}


@dataclass(frozen=True, eq=False)
class Site:
    """What was written.

    Attributes
    ----------
    page : Path
        The page.
    results : sequence of Result
        Its rows.
    left_out : sequence of str
        Files in the given folders that hold neither accuracies on episodes nor tables.
    """

    page: Path
    results: Sequence[Result]
    left_out: Sequence[str]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the rows as values that JSON can hold, without the accuracies of episodes."""
        left_out = ("source", "accuracies")
        rows = [{f.name: getattr(one, f.name) for f in fields(one) if f.name not in left_out} for one in self.results]
        # JSON has no NaN.
        rows = [{name: None if value != value else value for name, value in row.items()} for row in rows]
        return [row | {"file": one.source.name} for row, one in zip(rows, self.results, strict=True)]

    @property
    def mismatched(self) -> list[Result]:
        """Rows whose episodes are not the frozen ones that they state."""
        return [one for one in self.results if one.frozen is False]


def write_site(out: str | Path, paths: Iterable[str | Path]) -> Site:
    """Write a page of all results in files, and copies of the files next to it.

    Copies that an earlier page lists and this one does not are removed.

    Parameters
    ----------
    out : path
        The folder: a new one, an empty one, or that of an earlier page.
    paths : iterable of paths
        JSON files of results, folders of them, and folders of ``fewshot bench``; frozen episodes among them are what
        results are checked against.

    Returns
    -------
    Site
        The page and its rows.

    Raises
    ------
    ValueError
        If the folder holds other files, or a file of results is invalid; the message names it.
    """
    folder = Path(out)
    refuse_other_files(folder, (PAGE, FILES))
    refuse_irregular(folder, (PAGE,))
    found = read_results(paths)
    results = checked(found)
    earlier = _copies(folder)
    (folder / FILES).mkdir(parents=True, exist_ok=True)
    for source in found.sources:
        write_text(folder / FILES / source.name, source.text)
    _page(results, found.tables, found.sources).write(folder / PAGE, f"Made by: {command_line()}")
    for name in earlier - {source.name for source in found.sources}:
        (folder / FILES / name).unlink(missing_ok=True)
    return Site(folder / PAGE, results, found.left_out)


def _copies(folder: Path) -> set[str]:
    """Return the names of the copies that the page in a folder, of an earlier run, lists: those that it wrote."""
    try:
        page = read_regular(folder / PAGE, MOST_BYTES).decode()
    except (OSError, ValueError):
        return set()
    if f"<title>{TITLE}</title>" not in page:
        return set()
    names = {unquote(unescape(name)) for name in _COPY.findall(page)}
    own = {name for name in names if not (name.startswith(".") or {"/", "\\", "\0"} & set(name))}
    return {name for name in own if (path := folder / FILES / name).is_file() and not path.is_symlink()}


def _page(results: Sequence[Result], tables: Sequence[PlainTable], sources: Sequence[Source]) -> Page:
    page = Page(TITLE, LEAD)
    quoted, frozen = (sum(bool(getattr(one, name)) for one in results) for name in ("quoted", "frozen"))
    cards = [count_card(len(results), "result"), count_card(len({one.dataset for one in results}), "data set")]
    page.cards([*cards, (str(frozen), "on frozen episodes"), (str(quoted), "quoted from publications")])
    numbers = {source.name: i for i, source in enumerate(sources, 1)}
    listings: dict[str, list[Result]] = {}
    for one in results:  # cifar_fs is CIFAR-FS
        listings.setdefault(re.sub(r"[\W_]", "", f"{one.dataset} {one.split}").lower(), []).append(one)
    for own in sorted(listings.values(), key=len, reverse=True):
        title, _ = Counter(f"{one.dataset}, {one.split}".removesuffix(", ") for one in own).most_common()[0]
        page.listing(Listing(title, COLUMNS, _rows(own, numbers), _caption(own)))
    page.section("How to read the tables", READING)
    for source in sources:
        if own_tables := [table for table in tables if table.source is source]:
            _plain(page, source, own_tables, numbers[source.name])
    page.section("Files and commands", "Each file of results, with what wrote it. Numbers in the tables lead here.")
    for source in sources:
        counts = [sum(one.source is source for one in some) for some in (results, tables)]
        page.file(_file(source, numbers[source.name], *counts))
    return page


def _plain(page: Page, source: Source, tables: Sequence[PlainTable], number: int) -> None:
    """Add a section with the tables of a file that are no accuracies on episodes."""
    topic = Path(source.name).stem.replace("_", " ")
    page.section(f"{topic[:1].upper()}{topic[1:]}")
    for one in tables:
        page.table(one.frame, f"{one.title} [{number}]".strip())


def _caption(own: Sequence[Result]) -> str:
    names = {one.against for one in own if not np.isnan(one.change)}
    if not names:
        return ""
    return f"Change: paired difference from {names.pop() if len(names) == 1 else 'the method named'}, same episodes."


def _rows(own: Sequence[Result], numbers: dict[str, int]) -> list[tuple[str, list[Cell]]]:
    """Return the rows of a table by protocol, the best first; changes name their method if there are several."""
    named = len({one.against for one in own if not np.isnan(one.change)}) > 1
    rows, before = [], None
    for one in sorted(own, key=lambda one: (_protocol(one), -one.accuracy)):
        kinds = ["quoted"] * bool(one.quoted) + ["first"] * (_protocol(one) != before)
        rows.append((" ".join(kinds), _cells(one, numbers[one.source.name], named)))
        before = _protocol(one)
    return rows


def _protocol(one: Result) -> tuple[Any, ...]:
    """Return what must agree for two results to be compared, in the order of the page."""
    flags = (one.external, one.transductive, one.supposes_balance)
    return one.n_way, one.n_shot, *_spread_place(one), *(2 if flag is None else int(flag) for flag in flags)


def _spread_place(one: Result) -> tuple[int, str]:
    return (0 if one.query_classes == BALANCED else 1), str(one.query_classes)


def _cells(one: Result, number: int, named: bool) -> list[Cell]:
    badge = "quoted" if one.quoted else one.by and f"by {one.by}"
    against = one.against if named and not np.isnan(one.change) else ""
    return [
        Cell(text=one.method, badge=badge, note=one.quoted or one.note, note_kind="" if one.quoted else "bad"),
        Cell(text=one.backbone or "not stated", kind="" if one.backbone else "no"),
        Cell(text=setting(one.n_way, one.n_shot, BALANCED), sort=1e6 * one.n_way + one.n_shot),
        _queries(one),
        Cell(text=_accuracy(one), sort=one.accuracy, kind="accuracy"),
        Cell(text=percent(one.change, one.change_ci95, "+", 2), note=against and f"from {against}"),
        *map(_flag, (one.external, one.transductive, one.supposes_balance)),
        _episodes(one),
        Cell(text=f"[{number}]", href=f"#file-{number}", sort=number),
    ]


def _queries(one: Result) -> Cell:
    spread = _SPREADS.get(one.query_classes) or f"of {counted(int(one.query_classes), 'class')}"
    single = one.query_classes == SINGLE
    count = f"{one.n_query} a class" if one.query_classes == BALANCED else f"{one.n_query * one.n_way} in all"
    return Cell(text=spread, note=count if one.n_query and not single else "", value=spread)


def _flag(value: bool | None) -> Cell:
    return Cell(text="not stated" if value is None else "yes" if value else "no", kind="" if value else "no")


def _episodes(one: Result) -> Cell:
    """Return the number of episodes, and whether they are frozen."""
    said = {True: "frozen", False: "do not match", None: "quoted" if one.quoted else "own draw"}[one.frozen]
    kind = {True: "ok", False: "bad", None: ""}[one.frozen]
    text = f"{one.n_episodes:,}" if one.n_episodes else "not stated"
    note = f"{said}, {one.n_seeds} seeds" if one.n_seeds > 1 else said
    return Cell(text=text, note=note, note_kind=kind, value=said, kind="" if one.n_episodes else "no")


def _accuracy(one: Result) -> str:
    """Return an accuracy in %, a quoted one in the digits of its source."""
    if not one.quoted:
        return percent(one.accuracy, one.ci95, digits=2)
    value, ci95 = (f"{100 * number:.2f}".removesuffix("0") for number in (one.accuracy, one.ci95))
    return value if np.isnan(one.ci95) else f"{value} ± {ci95}"


def _file(source: Source, number: int, n_results: int, n_tables: int) -> NamedFile:
    versions = source.manifest.get("versions", {})
    facts = {name: value for name, value in source.manifest.items() if name != "versions"}
    counts = ", ".join(counted(n, what) for n, what in ((n_results, "result"), (n_tables, "table")) if n)
    return NamedFile(
        anchor=f"file-{number}",
        title=f"[{number}] {source.name}",
        text=f"{counts or 'Frozen episodes'}.",
        path=f"{FILES}/{source.name}",
        command=source.command,
        facts={**facts, **(versions if isinstance(versions, dict) else {})},
    )
