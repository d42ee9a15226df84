"""Run a grid: embed once, answer every cell on the same episodes, and resume after an interruption."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain, product
from pathlib import Path
from typing import Any

import pandas as pd

from fewshot.benchmark.backbones import backbone_key, is_external, refuse_unfit, train_backbone
from fewshot.benchmark.embeddings import EmbeddedDataset, Embeddings
from fewshot.benchmark.frozen import check_frozen, freeze
from fewshot.benchmark.grid_file import OWN, Grid
from fewshot.benchmark.methods import applies, describe_method, has_own, identify, is_local, make_learner, script_class
from fewshot.benchmark.page import write_report
from fewshot.benchmark.sources import Measured, given_backbones, measured
from fewshot.benchmark.table import Row, list_failures, pooled, tidy, to_markdown
from fewshot.benchmark.tasks import Unit, answer
from fewshot.persistence.files import leftovers, refuse_irregular, refuse_other_files, write_text
from fewshot.persistence.locking import BRIEF, locked_new
from fewshot.persistence.provenance import command_line, manifest
from fewshot.utils.executors import Executor, ExecutorName, Failure, make_executor
from fewshot.utils.progress import progress_bar

_log = logging.getLogger(__name__)
#: What a results folder holds.
FOLDERS = ("embeddings", "units")
RESULTS, MARKDOWN, REPORT, EPISODES, FACTS = "results.csv", "results.md", "report.html", "episodes.json", "results.json"
WRITTEN = (RESULTS, MARKDOWN, REPORT, EPISODES, FACTS)


def run_benchmark(
    grid: Grid | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    executor: ExecutorName = "joblib",
    jobs: int | None = None,
    episodes: str | Path | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Compare learners on data sets and backbones, all on the same episodes.

    Parameters
    ----------
    grid : Grid, mapping or path
        What to compare: a TOML file, see ``fewshot bench --help``, or its content.
    out : path, optional
        A folder for ``results.csv``, ``results.md``, ``report.html``, ``results.json`` with the manifest, and the
        frozen ``episodes.json``. Units that it holds already are not answered again. By default nothing is kept.
    executor : {"joblib", "serial", "ray"}, default="joblib"
        Where the work runs; the results do not depend on it, except for times.
    jobs : int, optional
        Number of processes; by default one per core.
    episodes : path, optional
        Frozen episodes of another run; raise unless the episodes are the same.
    cache : path, optional
        A folder of embeddings to share with other runs, classifiers and `Embedder`.
    progress : bool, default=True
        Whether to show progress bars.

    Returns
    -------
    DataFrame
        A row for each data set, backbone, learner, n_way, n_shot and seed; see `fewshot.benchmark.table.tidy`.

    Raises
    ------
    InUseError
        If another run is writing to `out`.
    LeakError
        If a backbone was trained or selected on a class or an image to measure on.
    ValueError
        If a setting of the grid is invalid, or the episodes differ from the frozen ones.

    Examples
    --------
    >>> grid = {
    ...     "datasets": [{"source": "digits"}], "backbones": [{"backbone": "pixels"}],
    ...     "learners": [{"learner": "prototypical"}, {"learner": "matching"}], "n_shot": [1], "n_episodes": 20,
    ... }
    >>> frame = run_benchmark(grid, executor="serial", progress=False)
    >>> frame["learner"].tolist(), bool((frame["accuracy"] > 0.5).all())
    (['prototypical', 'matching'], True)
    """
    if not isinstance(grid, Grid):
        grid = Grid.from_dict(grid) if isinstance(grid, Mapping) else Grid.from_toml(grid)
    with _results_folder(out) as folder:
        return _Run(grid, folder, cache, progress).go(executor, os.cpu_count() or 1 if jobs is None else jobs, episodes)


class _Run:
    """One run of a grid in a folder."""

    def __init__(self, grid: Grid, folder: Path, cache: str | Path | None, progress: bool) -> None:
        self.grid, self.folder, self.progress = grid, folder, progress
        self.embeddings = Embeddings(folder / "embeddings", cache, progress)
        #: Whether a backbone saw other data; what made given embeddings may have.
        self.external: dict[str, bool] = {}
        #: Units whose answers an earlier run has left.
        self.n_resumed = 0

    def go(self, executor: ExecutorName, jobs: int, episodes: str | Path | None) -> pd.DataFrame:
        wants_base = any(method.needs_base for method in self.grid.learners)
        data = [measured(dataset, wants_base) for dataset in self.grid.datasets]
        frozen, own = freeze(self.grid, data), self.folder / EPISODES
        if own.exists():  # the grid may have grown since
            check_frozen(frozen, own, complete=False)
        if episodes is not None:
            check_frozen(frozen, episodes)
        learners = self._check(data)
        workers = make_executor(executor, jobs)
        try:
            self._prepare_folder()
            backbones = [train_backbone(one, self.folder, self.progress) for one in self.grid.backbones]
            self.external = {one.name: is_external(one) for one in backbones}
            # Only now: a run that is refused keeps the file of the run before.
            write_text(own, json.dumps(frozen, indent=1) + "\n")
            rows = self._answer(workers, self.embeddings.make(workers, data, backbones, self.grid.learners))
        finally:
            workers.close()
        frame = self._write(rows, data, {"executor": executor, "learners": learners})
        frame.attrs["resumed"] = self.n_resumed
        return frame

    def _check(self, data: Sequence[Measured]) -> dict[str, Any]:
        """Build every learner and backbone once, so that mistakes surface before training; describe the learners."""
        images = [one for one in data if not one.is_given]
        for backbone in self.grid.backbones:
            refuse_unfit(backbone, images)
            if not backbone.train_on:
                backbone_key(backbone)
        carriers = [backbone for backbone in self.grid.backbones if has_own(backbone)]
        own = [method for method in self.grid.learners if method.learner == OWN]
        if own and not carriers:
            raise ValueError(
                f"the learner {OWN!r} needs a checkpoint, and no backbone is one; name a checkpoint file as a "
                "backbone, or train one with train_on = ..."
            )
        backbones = [*self.grid.backbones, *given_backbones(data)]
        for method, backbone in product(self.grid.learners, backbones):
            if method.learner != OWN:
                is_local(method, backbone)
            elif has_own(backbone) and not backbone.train_on:
                make_learner(method, backbone, None)
        return {method.name: describe_method(method, backbones[0]) for method in self.grid.learners}

    def _prepare_folder(self) -> None:
        """Make the folders, and remove files that killed processes left half-written."""
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for path in chain(leftovers(self.folder, WRITTEN), *(leftovers(self.folder / name) for name in FOLDERS)):
            path.unlink(missing_ok=True)

    def _answer(self, workers: Executor, embedded: Sequence[EmbeddedDataset]) -> list[Row]:
        outcomes: dict[Unit, Any] = {
            unit: self._load_result(unit) or failure for unit, failure in self._units(embedded)
        }
        missing = [unit for unit, outcome in outcomes.items() if outcome is None]
        self.n_resumed = sum(outcome is not None and not isinstance(outcome, Failure) for outcome in outcomes.values())
        if self.n_resumed:
            _log.info("an earlier run has left %d of %d units in %s", self.n_resumed, len(outcomes), self.folder)
        labels = {one.data.dataset.name: one.data.data.labels for one in embedded}
        keys = dict.fromkeys(unit.embedded for unit in missing)
        shared = {key: workers.share(self.embeddings.path(key)) for key in keys}
        tasks = [(unit, shared[unit.embedded], labels[unit.dataset]) for unit in missing]
        answers = workers.map(answer, tasks)
        for i, outcome in progress_bar(len(tasks), "unit", show=self.progress, desc="answering", iterable=answers):
            outcomes[missing[i]] = outcome
            if not isinstance(outcome, Failure):
                found = {"key": missing[i].key, "found": outcome}
                write_text(self._result(missing[i]), json.dumps({**found, "sha256": _digest(found)}))
        return [
            Row(unit, {}, outcome.error, self.external.get(unit.backbone.name, True), outcome.trace)
            if isinstance(outcome, Failure)
            else Row(unit, outcome, "", self.external.get(unit.backbone.name, True))
            for unit, outcome in outcomes.items()
        ]

    def _units(self, embedded: Sequence[EmbeddedDataset]) -> Iterator[tuple[Unit, Failure | None]]:
        """Yield every unit, with the reason if embeddings that it needs are missing."""
        centers: dict[str, tuple[float, ...]] = {}
        for one, method in product(embedded, self.grid.learners):
            if not applies(method, one.backbone):
                continue
            key = one.maps if is_local(method, one.backbone) else one.key
            needed = [key, one.base] if method.needs_base else [key]
            failure = next((self.embeddings.failed[key] for key in needed if key in self.embeddings.failed), None)
            if method.needs_base and not failure and one.base not in centers:
                centers[one.base] = self.embeddings.mean(one.base)
            center = centers.get(one.base) if method.needs_base else None
            identity, script = identify(method, one.backbone), script_class(method)
            dataset = one.data.dataset
            for n_way, n_shot, spread, seed in self.grid.cells:
                sizes = n_way, n_shot, seed, dataset.n_query or self.grid.n_query, self.grid.n_episodes
                made_of = *sizes, identity, center, script, spread
                yield Unit(dataset.name, one.backbone, method, key, *made_of), failure

    def _load_result(self, unit: Unit) -> dict[str, Any] | None:
        """Return the stored result of a unit, unless it is missing or damaged."""
        try:
            stored = json.loads(self._result(unit).read_text(encoding="utf-8"))
            found = {"key": unit.key, "found": stored["found"]}
            # Earlier versions wrote no digest.
            is_whole = stored["key"] == unit.key and stored.get("sha256", _digest(found)) == _digest(found)
            return found["found"] if is_whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, rows: list[Row], data: Sequence[Measured], facts: dict[str, Any]) -> pd.DataFrame:
        baseline = self.grid.baseline
        frame, summary = tidy(rows, baseline), pooled(rows, baseline)
        facts = {
            "manifest": manifest(command_line(), self.grid.seeds[0]),
            "grid": asdict(self.grid),
            **facts,
            "baseline": baseline,
            "backbones": {one.name: one.describe() for one in (*given_backbones(data), *self.grid.backbones)},
            "traces": {row.unit.key: row.trace for row in rows if row.trace},
            "dropped": {one.dataset.name: len(one.dropped) for one in data},
            "results": json.loads(frame.to_json(orient="records")),
        }
        write_text(self.folder / RESULTS, frame.to_csv(index=False))
        write_text(self.folder / MARKDOWN, to_markdown(summary, baseline) + list_failures(frame))
        write_text(self.folder / FACTS, json.dumps(facts, indent=1, default=dict) + "\n")
        write_report(self.folder / REPORT, rows, frame, summary, data, facts)
        return frame

    def _result(self, unit: Unit) -> Path:
        return self.folder / "units" / f"{unit.key}.json"


def _digest(found: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


@contextmanager
def _results_folder(out: str | Path | None) -> Iterator[Path]:
    """Yield the folder of the results, locked against other runs; a temporary one by default."""
    if out is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    folder = Path(out)
    refuse_irregular(folder, WRITTEN)
    if not (folder / EPISODES).exists():
        refuse_other_files(folder, ("trained", *FOLDERS))
    with locked_new(folder, BRIEF):
        yield folder
