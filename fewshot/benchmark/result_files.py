"""Read files of results: those of a grid, of ``fewshot evaluate --json`` and of others, with frozen episodes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.benchmark.frozen import MOST_BYTES, frozen_cells
from fewshot.benchmark.others_file import results_of_others
from fewshot.benchmark.plain_table import PlainTable, tables_beside
from fewshot.benchmark.result import Result, Source
from fewshot.episodes.query_draws import BALANCED
from fewshot.errors import UnknownNameError
from fewshot.learners.registry import learner_class
from fewshot.persistence.content import json_object
from fewshot.persistence.files import read_regular
from fewshot.utils.text import counted

#: What a run of a grid writes, of which nothing else in its folder is read.
RUN, RUN_EPISODES = "results.json", "episodes.json"


@dataclass(eq=False)
class ResultFiles:
    """What files of results hold.

    Attributes
    ----------
    results : list of Result
        All results.
    cells : list of dict
        All frozen sets of episodes; see `frozen_cells`.
    tables : list of PlainTable
        Tables that are no accuracies on episodes.
    sources : list of Source
        The files that were read, also those of frozen episodes.
    left_out : list of str
        Files in a folder that hold neither accuracies on episodes nor tables.
    read : set of Path
        The files that were read.
    """

    results: list[Result] = field(default_factory=list)
    cells: list[dict[str, Any]] = field(default_factory=list)
    tables: list[PlainTable] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    read: set[Path] = field(default_factory=set)


def read_results(paths: Iterable[str | Path]) -> ResultFiles:
    """Read files of results; of a folder, those that hold accuracies on episodes, or tables.

    Parameters
    ----------
    paths : iterable of paths
        JSON files, folders of them, and folders of ``fewshot bench``.

    Raises
    ------
    ValueError
        If a path does not exist, a named file holds neither accuracies on episodes nor tables, or one is invalid.
    """
    found = ResultFiles()
    for path in map(Path, paths):
        if path.is_dir():
            _read_folder(path, found)
        elif not _read_file(path, found):
            raise ValueError(
                f"{path} holds no accuracies on episodes, and no tables lie beside it; expected results.json or "
                "episodes.json of fewshot bench, the --json of fewshot evaluate, or a file in the schema of "
                "benchmarks/README.md"
            )
    if not (found.results or found.tables):
        raise ValueError("no results are given; name files of results, or folders of them")
    return found


def _read_folder(folder: Path, found: ResultFiles) -> None:
    names = [folder / RUN_EPISODES, folder / RUN] if (folder / RUN).is_file() else sorted(folder.glob("*.json"))
    if not names:
        raise ValueError(f"{folder} holds no JSON file; expected results of fewshot bench or evaluate")
    found.left_out += [path.name for path in names if path.is_file() and not _read_file(path, found)]


def _read_file(path: Path, found: ResultFiles) -> bool:
    """Add what a file holds, once; return whether it is of a known kind."""
    if path.resolve() in found.read:
        return True
    try:
        text = read_regular(path, MOST_BYTES, follow=True).decode()
        content = json_object(text)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); expected a JSON file of results") from None
    except ValueError as error:
        cure = "; run the grid first, without --site" if path.suffix == ".toml" else "; give the folder of the run"
        cure = cure if path.suffix in (".toml", ".csv", ".md", ".html") else f": {error}"
        raise ValueError(f"{path} is not a JSON file of results{cure}") from None
    source = _source(path, text, content, {one.name for one in found.sources})
    try:
        if "datasets" in content and "grid" not in content:
            found.cells += frozen_cells(content, source.name)
        elif "schema" in content:
            found.results += results_of_others(content, source)
        elif "grid" in content:
            found.results += _of_grid(content, source, path)
        elif "fingerprint" in content and "results" in content:
            found.results += [_of_evaluate(row, content, source) for row in content["results"]]
        elif tables := tables_beside(path, source):
            found.tables += tables
        else:
            return False
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is damaged ({reason}); write it again") from None
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from None
    found.sources.append(source)
    found.read.add(path.resolve())
    return True


def _source(path: Path, text: str, content: Mapping[str, Any], taken: set[str]) -> Source:
    """Describe a file; two of one name, such as results.json of two runs, have those of their folders before it."""
    name = path.name
    if name in (RUN, RUN_EPISODES) or name in taken:
        name = f"{path.absolute().parent.name}_{path.name}"
    if name in taken:
        raise ValueError(f"{path} has the name of another file, also with its folder; rename one of them")
    manifest = content.get("manifest")
    manifest = dict(manifest) if isinstance(manifest, Mapping) else {}
    return Source(name, text, str(manifest.pop("command", "")), manifest)


def _of_grid(content: Mapping[str, Any], source: Source, path: Path) -> list[Result]:
    """Return the results of a grid, with the episodes of all seeds pooled, as in its own table."""
    grid, baseline = content["grid"], content["baseline"]
    datasets = {one["name"]: one for one in grid["datasets"]}
    made = []
    for row, n_seeds in _pooled(content["results"]):
        spread, data = row.get("query_classes", BALANCED), datasets[row["dataset"]]
        made.append(
            Result(
                dataset=row["dataset"],
                split=data["split"] or "",
                method=row["learner"],
                backbone=row["backbone"],
                n_way=row["n_way"],
                n_shot=row["n_shot"],
                n_query=(data["n_query"] or grid["n_query"]) if row["n_way"] else 0,
                query_classes=int(spread) if str(spread).isdigit() else spread,
                n_episodes=row["n_episodes"],
                n_seeds=n_seeds,
                accuracy=row["accuracy"],
                ci95=_number(row["ci95"]),
                external=row["external"],
                transductive=row["transductive"],
                supposes_balance=_supposes_balance(content["learners"].get(row["learner"], {})),
                source=source,
                against=baseline if row["learner"] != baseline else "",
                change=_number(row["change"]) if row["learner"] != baseline else np.nan,
                change_ci95=_number(row["change_ci95"]),
                accuracies=_unit(path.parent / "units" / f"{row['key']}.json") if n_seeds == 1 else None,
            )
        )
    return made


def _pooled(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], int]]:
    """Return a row for each place of a grid, and of how many seeds; none if a seed has failed."""
    places: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        where = (row["dataset"], row["backbone"], row["learner"], row["n_way"], row["n_shot"])
        places.setdefault((*where, row.get("query_classes", BALANCED)), []).append(row)
    made: list[tuple[Mapping[str, Any], int]] = []
    for own in places.values():
        if any(row["error"] or row["accuracy"] is None for row in own):
            continue
        values: dict[str, Any] = {"n_episodes": sum(row["n_episodes"] for row in own)}
        for name, ci95 in (("accuracy", "ci95"), ("change", "change_ci95")):
            counted = [(row["n_episodes"], _number(row[name]), _number(row[ci95])) for row in own]
            values |= dict(zip((name, ci95), _mean_and_ci95(counted), strict=True))
        made.append((own[0] if len(own) == 1 else {**own[0], **values}, len(own)))
    return made


def _mean_and_ci95(parts: Sequence[tuple[int, float, float]]) -> tuple[float, float]:
    """Return mean and interval of all episodes, from their number, mean and interval for each seed."""
    n, means, ci95 = map(np.array, zip(*parts, strict=True))
    mean = float(np.average(means, weights=n))
    squares = (n - 1) * n * (ci95 / 1.96) ** 2 + n * (means - mean) ** 2
    return mean, float(1.96 * np.sqrt(squares.sum() / (n.sum() - 1) / n.sum())) if n.sum() > 1 else np.nan


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _unit(path: Path) -> Any:
    """Return the accuracy of each episode of a unit, if the folder of the run still has it."""
    try:
        return np.array(json.loads(path.read_text(encoding="utf-8"))["found"]["accuracies"], np.float64)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _supposes_balance(described: Mapping[str, Any]) -> bool | None:
    """Whether a learner of a grid supposes balanced queries; None if it is no longer known."""
    if isinstance(said := described.get("supposes_balance"), bool):
        return said
    try:
        kind = learner_class(described["name"])
        return kind(**described["params"]).supposes_balance
    except (KeyError, TypeError, ValueError, UnknownNameError):
        return False if described.get("name") in ("linear-probe", "scikit-learn") else None


def _of_evaluate(row: Mapping[str, Any], content: Mapping[str, Any], source: Source) -> Result:
    """Return a row of ``fewshot evaluate --json``."""
    if "data" not in content:
        raise ValueError("an earlier version wrote it, which did not name data and backbone; run its command again")
    if seen := content.get("seen_classes"):
        raise ValueError(
            f"its network was trained or selected on {counted(len(seen), 'class')} of the data, e.g. {seen[0]!r:.60}; "
            "measure on others"
        )
    return Result(
        dataset=content["data"],
        split=content["split"] or "",
        method=row["learner"],
        backbone=content["backbone"],
        n_way=row["way"],
        n_shot=row["shot"],
        n_query=row["queries per class"],
        query_classes=row.get("query classes", BALANCED),
        n_episodes=row["episodes"],
        accuracy=row["accuracy %"] / 100,
        ci95=_number(row["ci95 %"]) / 100,
        external=content["external"],
        transductive=content["transductive"],
        supposes_balance=content["supposes_balance"],
        source=source,
    )
