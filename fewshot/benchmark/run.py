"""Run a grid: embed once, answer every cell on the same episodes, go on where it was interrupted."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewshot.benchmark.frozen import check_frozen, freeze, write_frozen
from fewshot.benchmark.grid import OWN, PIXELS, Backbone, Grid
from fewshot.benchmark.page import write_report
from fewshot.benchmark.sources import Measured, measured
from fewshot.benchmark.table import Row, pooled, tidy, to_markdown
from fewshot.benchmark.tasks import (
    Part,
    Unit,
    answer,
    backbone_key,
    describe,
    describe_method,
    embed_part,
    key_of,
    make_learner,
)
from fewshot.benchmark.trained import is_external, refuse_seen, train_backbone
from fewshot.executors import Executor, Failure, make_executor
from fewshot.files import replacing, sync, write_text
from fewshot.manifest import manifest
from fewshot.progress import progress_bar

#: Images that are embedded at a time: what an interruption costs at most.
PART = 1024
#: Files of a folder of results.
RESULTS, MARKDOWN, REPORT, EPISODES, FACTS = "results.csv", "results.md", "report.html", "episodes.json", "results.json"


def run_benchmark(
    grid: Grid | str | Path,
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
    grid : Grid or path
        What is compared; a TOML file, see ``fewshot bench --help``.
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
    LeakError
        If a class or an image that is measured on was trained on, or chosen by.
    ValueError
        If something in the grid cannot be meant, or the episodes are others.

    Examples
    --------
    >>> from fewshot.benchmark.grid import Grid
    >>> grid = Grid.from_dict({
    ...     "datasets": [{"source": "digits"}], "backbones": [{"backbone": "pixels"}],
    ...     "learners": [{"learner": "prototypical"}, {"learner": "matching"}], "shot": [1], "episodes": 20,
    ... })
    >>> frame = run_benchmark(grid, executor="serial", progress=False)
    >>> frame["learner"].tolist(), bool((frame["accuracy"] > 0.5).all())
    (['prototypical', 'matching'], True)
    """
    grid = grid if isinstance(grid, Grid) else Grid.from_toml(grid)
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}; expected at least 1")
    with _folder(out) as folder:
        return _Run(grid, folder, cache, progress).go(executor, jobs or os.cpu_count() or 1, episodes)


class _Run:
    """One run of a grid in a folder."""

    def __init__(self, grid: Grid, folder: Path, cache: str | Path | None, progress: bool) -> None:
        self.grid, self.folder, self.progress = grid, folder, progress
        self.cache = None if cache is None else str(cache)
        self.failed: dict[str, Failure] = {}  # embeddings that there are not, by their key
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
        write_frozen(frozen, own)
        for backbone in self.grid.backbones:
            refuse_seen(backbone, data)
        backbones = [train_backbone(one, self.folder, self.progress) for one in self.grid.backbones]
        self._check_learners(backbones)
        workers = make_executor(executor, jobs)
        try:
            embedded = self._embed(workers, data, backbones)
            rows = self._answer(workers, data, embedded)
        finally:
            workers.close()
        return self._write(rows, data, backbones, executor)

    def _check_learners(self, backbones: Sequence[Backbone]) -> None:
        """Build every learner once, so that a mistake is an error now."""
        for method in self.grid.learners:
            for backbone in backbones:
                if method.learner != OWN or _has_own(backbone):
                    make_learner(method, backbone, (0.0,))

    def _embed(
        self, workers: Executor, data: Sequence[Measured], backbones: Sequence[Backbone]
    ) -> list[tuple[Measured, Backbone, str, str]]:
        """Embed what is not embedded yet; return the keys of the embeddings of data and of their base."""
        found, parts = [], []
        for backbone in backbones:
            own = backbone_key(backbone)
            for one in data:
                keys = [key_of("embeddings", own, one.digest), ""]
                wanted = [(keys[0], one.data.images)]
                if one.base is not None:
                    keys[1] = key_of("embeddings", own, one.digest, one.dataset.base)
                    wanted.append((keys[1], one.base.images))
                for key, images in wanted:
                    if not self._embeddings(key).exists():
                        starts = range(0, len(images), PART)
                        parts += [
                            Part(key, start, backbone, images[start : start + PART], self.cache) for start in starts
                        ]
                found.append((one, backbone, keys[0], keys[1]))
        missing = [part for part in parts if not self._part(part).exists()]
        for i, outcome in self._watch(
            "embedding", workers.map(embed_part, [(part,) for part in missing]), len(missing)
        ):
            if isinstance(outcome, Failure):
                self.failed[missing[i].key] = replace(outcome, error=f"embedding failed: {outcome.error}")
            else:
                _save(self._part(missing[i]), outcome)
        for key in dict.fromkeys(part.key for part in parts if part.key not in self.failed):
            own_parts = [self._part(part) for part in parts if part.key == key]
            _save(self._embeddings(key), np.concatenate([np.load(path) for path in own_parts]))
            for path in own_parts:
                path.unlink()
        return found

    def _answer(
        self, workers: Executor, data: Sequence[Measured], embedded: Sequence[tuple[Measured, Backbone, str, str]]
    ) -> list[Row]:
        units = list(self._units(embedded))
        labels = {one.dataset.name: one.data.labels for one in data}
        outcomes: dict[int, Any] = {i: found for i, unit in enumerate(units) if (found := self._done(unit))}
        for i, unit in enumerate(units):
            if unit.embedded in self.failed:
                outcomes.setdefault(i, self.failed[unit.embedded])
        missing = [i for i in range(len(units)) if i not in outcomes]
        shared = {
            key: workers.share(self._embeddings(key)) for key in dict.fromkeys(units[i].embedded for i in missing)
        }
        tasks = [(units[i], shared[units[i].embedded], labels[units[i].dataset]) for i in missing]
        for place, outcome in self._watch("answering", workers.map(answer, tasks), len(tasks)):
            i = missing[place]
            outcomes[i] = outcome
            if not isinstance(outcome, Failure):
                text = json.dumps({"key": units[i].key, "found": outcome})
                write_text(self._result(units[i]), text)
        return [self._row(unit, outcomes[i]) for i, unit in enumerate(units)]

    def _units(self, embedded: Sequence[tuple[Measured, Backbone, str, str]]) -> Iterator[Unit]:
        centers: dict[str, tuple[float, ...] | None] = {"": None}
        for one, backbone, key, base in embedded:
            if base not in centers and base not in self.failed:
                centers[base] = tuple(np.load(self._embeddings(base)).mean(0, dtype=np.float64).tolist())
            for method in self.grid.learners:
                if method.learner == OWN and not _has_own(backbone):
                    continue
                for way, shot, seed in self.grid.cells:
                    yield Unit(
                        one.dataset.name,
                        backbone,
                        method,
                        key,
                        way,
                        shot,
                        seed,
                        one.dataset.query or self.grid.query,
                        self.grid.episodes,
                        centers.get(base) if method.needs_base else None,
                    )

    def _row(self, unit: Unit, outcome: Any) -> Row:
        external = self.external[unit.backbone.name]
        if isinstance(outcome, Failure):
            return Row(unit, {}, outcome.error, external, outcome.trace)
        return Row(unit, outcome, "", external)

    def _done(self, unit: Unit) -> dict[str, Any] | None:
        """Return what was found earlier, if it is there and whole."""
        try:
            stored = json.loads(self._result(unit).read_text(encoding="utf-8"))
            return stored["found"] if stored["key"] == unit.key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(
        self, rows: list[Row], data: Sequence[Measured], backbones: Sequence[Backbone], executor: str
    ) -> pd.DataFrame:
        frame, summary = tidy(rows, self.grid.baseline), pooled(rows, self.grid.baseline)
        facts = {
            "manifest": manifest(" ".join(["fewshot", *sys.argv[1:]]), self.grid.seeds[0]),
            "executor": executor,
            "baseline": self.grid.baseline,
            "backbones": {one.name: describe(one) for one in self.grid.backbones},
            "learners": {one.name: describe_method(one, backbones[0]) for one in self.grid.learners},
            "traces": {row.unit.key: row.trace for row in rows if row.trace},
            "dropped": {one.dataset.name: len(one.dropped) for one in data},
            "results": json.loads(frame.to_json(orient="records")),
        }
        write_text(self.folder / RESULTS, frame.to_csv(index=False))
        write_text(self.folder / MARKDOWN, to_markdown(summary, self.grid.baseline))
        write_text(self.folder / FACTS, json.dumps(facts, indent=1) + "\n")
        write_report(self.folder / REPORT, rows, frame, summary, data, facts)
        return frame

    def _watch(self, what: str, outcomes: Iterator[tuple[int, Any]], total: int) -> Iterator[tuple[int, Any]]:
        with progress_bar(total, "part" if what == "embedding" else "unit", show=self.progress, desc=what) as bar:
            for outcome in outcomes:
                yield outcome
                bar.update()

    def _embeddings(self, key: str) -> Path:
        return self.folder / "embeddings" / f"{key}.npy"

    def _part(self, part: Part) -> Path:
        return self.folder / "embeddings" / f"{part.key}-{part.start}.npy"

    def _result(self, unit: Unit) -> Path:
        return self.folder / "units" / f"{unit.key}.json"


def _has_own(backbone: Backbone) -> bool:
    return backbone.backbone != PIXELS and Path(backbone.backbone).is_file()


def _save(path: Path, array: NDArray[Any]) -> None:
    with replacing(path) as partial:
        with partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        sync(partial)


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    make: Callable[[], Any] = tempfile.TemporaryDirectory
    if out is None:
        with make() as name:
            yield _prepared(Path(name))
    else:
        yield _prepared(Path(out))


def _prepared(folder: Path) -> Path:
    for name in ("embeddings", "units"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder
