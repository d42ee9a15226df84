"""Run a grid: embed once, answer every cell on the same episodes, go on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from fewshot.benchmark.embeddings import EmbeddedDataset, Embeddings
from fewshot.benchmark.frozen import check_frozen, freeze, write_frozen
from fewshot.benchmark.grid import OWN, Backbone, Grid
from fewshot.benchmark.methods import describe_method, has_own, make_learner, script_of
from fewshot.benchmark.page import write_report
from fewshot.benchmark.sources import Measured, measured
from fewshot.benchmark.table import Row, list_failures, pooled, tidy, to_markdown
from fewshot.benchmark.tasks import Unit, answer, backbone_key, describe_backbone
from fewshot.benchmark.trained import check_trainable, is_external, refuse_seen, train_backbone
from fewshot.persistence.files import leftovers, refuse_irregular, write_text
from fewshot.persistence.provenance import command_line, manifest
from fewshot.persistence.writers import BRIEF, locked
from fewshot.utils.executors import Executor, Failure, make_executor
from fewshot.utils.progress import progress_bar

#: Files of a folder of results.
FOLDERS = ("embeddings", "units")
RESULTS, MARKDOWN, REPORT, EPISODES, FACTS = "results.csv", "results.md", "report.html", "episodes.json", "results.json"
WRITTEN = (RESULTS, MARKDOWN, REPORT, EPISODES, FACTS)


def run_benchmark(
    grid: Grid | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    executor: str = "joblib",
    jobs: int | None = None,
    episodes: str | Path | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Compare learners on data sets and backbones, all on the same episodes.

    Parameters
    ----------
    grid : Grid, mapping or path
        What is compared; a TOML file, see ``fewshot bench --help``, or what stands in one.
    out : path, optional
        A folder for ``results.csv``, ``results.md``, ``report.html``, ``results.json`` with the manifest, and the
        frozen ``episodes.json``; what is there already is not done again. By default nothing is kept.
    executor : {"joblib", "serial", "ray"}, default="joblib"
        Where the work is done; the table is the same, times aside.
    jobs : int, optional
        Processes; by default one a core.
    episodes : path, optional
        Frozen episodes of another run, which these must be.
    cache : path, optional
        A folder of embeddings that other runs, classifiers and `Embedder` share; see there.
    progress : bool, default=True
        Whether to show progress bars.

    Returns
    -------
    DataFrame
        A row for each data set, backbone, learner, way, shot and seed; see `fewshot.benchmark.table.tidy`.

    Raises
    ------
    InUseError
        If another run is writing to `out`.
    LeakError
        If a class or an image that is measured on was trained on, or chosen by.
    ValueError
        If something in the grid cannot be meant, or the episodes are others.

    Examples
    --------
    >>> grid = {
    ...     "datasets": [{"source": "digits"}], "backbones": [{"backbone": "pixels"}],
    ...     "learners": [{"learner": "prototypical"}, {"learner": "matching"}], "shot": [1], "episodes": 20,
    ... }
    >>> frame = run_benchmark(grid, executor="serial", progress=False)
    >>> frame["learner"].tolist(), bool((frame["accuracy"] > 0.5).all())
    (['prototypical', 'matching'], True)
    """
    if not isinstance(grid, Grid):
        grid = Grid.from_dict(grid) if isinstance(grid, Mapping) else Grid.from_toml(grid)
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}; expected at least 1")
    with _folder(out) as folder:
        return _Run(grid, folder, cache, progress).go(executor, jobs or os.cpu_count() or 1, episodes)


class _Run:
    """One run of a grid in a folder."""

    def __init__(self, grid: Grid, folder: Path, cache: str | Path | None, progress: bool) -> None:
        self.grid, self.folder, self.progress = grid, folder, progress
        self.embeddings = Embeddings(folder / "embeddings", cache)
        self.external = {backbone.name: is_external(backbone) for backbone in grid.backbones}

    def go(self, executor: str, jobs: int, episodes: str | Path | None) -> pd.DataFrame:
        wants_base = any(method.needs_base for method in self.grid.learners)
        data = [measured(dataset, wants_base) for dataset in self.grid.datasets]
        frozen = freeze(self.grid, data)
        own = self.folder / EPISODES
        if own.exists():  # of a grid that may have grown since
            check_frozen(frozen, own, all_of_them=False)
        if episodes is not None:
            check_frozen(frozen, episodes)
        for backbone in self.grid.backbones:
            refuse_seen(backbone, data)
        self._check()
        workers = make_executor(executor, jobs)
        try:
            for name in FOLDERS:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            left = [leftovers(self.folder, WRITTEN), *(leftovers(self.folder / name) for name in FOLDERS)]
            for path in chain.from_iterable(left):  # by processes that were killed
                path.unlink(missing_ok=True)
            backbones = [train_backbone(one, self.folder, self.progress) for one in self.grid.backbones]
            write_frozen(frozen, own)  # what refuses a run leaves that of the one before
            embedded = self.embeddings.make(workers, data, backbones, self._watch)
            rows = self._answer(workers, embedded)
        finally:
            workers.close()
        return self._write(rows, data, backbones, executor)

    def _check(self) -> None:
        """Build every learner and every backbone once, so that a mistake is an error before anything is trained."""
        for backbone in self.grid.backbones:
            if backbone.train_on:
                check_trainable(backbone)
            else:
                backbone_key(backbone)
        if any(m.learner == OWN for m in self.grid.learners) and not any(map(has_own, self.grid.backbones)):
            raise ValueError(
                f"the learner {OWN!r} is that of a checkpoint, and no backbone is one; name the file of a checkpoint "
                "as a backbone, or train one with train_on = ..."
            )
        for method in self.grid.learners:
            describe_method(method, self.grid.backbones[0])
            for backbone in self.grid.backbones:
                if method.learner == OWN and has_own(backbone) and not backbone.train_on:
                    make_learner(method, backbone, None)

    def _answer(self, workers: Executor, embedded: Sequence[EmbeddedDataset]) -> list[Row]:
        units: list[Unit] = []
        outcomes: dict[int, Any] = {}
        for unit, failure in self._units(embedded):
            outcome = self._done(unit) or failure
            if outcome:
                outcomes[len(units)] = outcome
            units.append(unit)
        labels = {one.data.dataset.name: one.data.data.labels for one in embedded}
        missing = [i for i in range(len(units)) if i not in outcomes]
        keys = dict.fromkeys(units[i].embedded for i in missing)
        shared = {key: workers.share(self.embeddings.path(key)) for key in keys}
        tasks = [(units[i], shared[units[i].embedded], labels[units[i].dataset]) for i in missing]
        for place, outcome in self._watch("answering", workers.map(answer, tasks), len(tasks)):
            i = missing[place]
            outcomes[i] = outcome
            if not isinstance(outcome, Failure):
                found = {"key": units[i].key, "found": outcome}
                write_text(self._result(units[i]), json.dumps({**found, "sha256": _digest(found)}))
        return [self._row(unit, outcomes[i]) for i, unit in enumerate(units)]

    def _units(self, embedded: Sequence[EmbeddedDataset]) -> Iterator[tuple[Unit, Failure | None]]:
        """Yield every unit, and why it cannot be answered, if embeddings that it needs are not there."""
        centers: dict[str, tuple[float, ...]] = {}
        for one in embedded:
            for method in self.grid.learners:
                if method.learner == OWN and not has_own(one.backbone):
                    continue
                needed = [one.key, one.base] if method.needs_base else [one.key]
                failure = next((self.embeddings.failed[key] for key in needed if key in self.embeddings.failed), None)
                if method.needs_base and not failure and one.base not in centers:
                    centers[one.base] = self.embeddings.mean(one.base)
                center = centers.get(one.base) if method.needs_base else None
                query = one.data.dataset.query or self.grid.query
                for way, shot, seed in self.grid.cells:
                    sizes = way, shot, seed, query, self.grid.episodes
                    name, script = one.data.dataset.name, script_of(method)
                    yield Unit(name, one.backbone, method, one.key, *sizes, center, script), failure

    def _row(self, unit: Unit, outcome: Any) -> Row:
        external = self.external[unit.backbone.name]
        if isinstance(outcome, Failure):
            return Row(unit, {}, outcome.error, external, outcome.trace)
        return Row(unit, outcome, "", external)

    def _done(self, unit: Unit) -> dict[str, Any] | None:
        """Return what was found earlier, if it is there and whole."""
        try:
            stored = json.loads(self._result(unit).read_text(encoding="utf-8"))
            found = {"key": unit.key, "found": stored["found"]}
            # Earlier versions wrote no digest.
            is_whole = stored["key"] == unit.key and stored.get("sha256", _digest(found)) == _digest(found)
            return found["found"] if is_whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(
        self, rows: list[Row], data: Sequence[Measured], backbones: Sequence[Backbone], executor: str
    ) -> pd.DataFrame:
        frame, summary = tidy(rows, self.grid.baseline), pooled(rows, self.grid.baseline)
        facts = {
            "manifest": manifest(command_line(), self.grid.seeds[0]),
            "grid": asdict(self.grid),
            "executor": executor,
            "baseline": self.grid.baseline,
            "backbones": {one.name: describe_backbone(one) for one in self.grid.backbones},
            "learners": {one.name: describe_method(one, backbones[0]) for one in self.grid.learners},
            "traces": {row.unit.key: row.trace for row in rows if row.trace},
            "dropped": {one.dataset.name: len(one.dropped) for one in data},
            "results": json.loads(frame.to_json(orient="records")),
        }
        write_text(self.folder / RESULTS, frame.to_csv(index=False))
        write_text(self.folder / MARKDOWN, to_markdown(summary, self.grid.baseline) + list_failures(frame))
        write_text(self.folder / FACTS, json.dumps(facts, indent=1, default=dict) + "\n")
        write_report(self.folder / REPORT, rows, frame, summary, data, facts)
        return frame

    def _watch(self, what: str, outcomes: Iterator[tuple[int, Any]], total: int) -> Iterator[tuple[int, Any]]:
        with progress_bar(total, "part" if what == "embedding" else "unit", show=self.progress, desc=what) as bar:
            for outcome in outcomes:
                yield outcome
                bar.update()

    def _result(self, unit: Unit) -> Path:
        return self.folder / "units" / f"{unit.key}.json"


def _digest(found: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    make: Callable[[], Any] = tempfile.TemporaryDirectory
    if out is None:
        with make() as name:
            yield Path(name)
        return
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; expected a folder for the results")
    others = sorted(e.name for e in folder.iterdir() if not e.name.startswith(".")) if folder.exists() else []
    if EPISODES not in others and not set(others) <= {"trained", *FOLDERS}:
        raise ValueError(f"{folder} holds other files, such as {others[0]!r}; choose an empty folder, or a new one")
    refuse_irregular(folder, WRITTEN)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder, BRIEF):
            yield folder
    finally:
        with suppress(OSError):  # there are results
            folder.rmdir()
