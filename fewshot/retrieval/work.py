"""Annotate a folder of any size in shards, so that an interrupted run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from fewshot.data.scan import list_images
from fewshot.data.zipped import unpacked_folder
from fewshot.errors import StoreError
from fewshot.images.model import FewShotModel
from fewshot.persistence.files import PARTIAL, is_special, leftovers, refuse_irregular, sync, write_text
from fewshot.persistence.locking import BRIEF, LOCK, locked_new
from fewshot.persistence.manifest import MANIFEST
from fewshot.persistence.suffixes import check_suffix
from fewshot.retrieval.annotate import annotate
from fewshot.retrieval.remote import RemoteModel
from fewshot.retrieval.shards import CsvTable, ParquetTable, Table
from fewshot.utils.executors import Executor, ExecutorName, Failure, make_executor
from fewshot.utils.progress import progress_bar
from fewshot.utils.spreadsheet import CsvForm
from fewshot.utils.text import counted

#: Images in a shard.
_log = logging.getLogger(__name__)
SHARD = 1024
PLAN = "plan.json"
#: Files of a run: the plan and the shards, and their temporary files if the run was killed.
_FILES = r"plan\.json|\d{6,}\.(?:parquet|json)"
_OURS = re.compile(rf"{_FILES}|\.({_FILES}){PARTIAL}")


def annotate_folder(
    folder: str | Path,
    model: str | Path | RemoteModel,
    out: str | Path,
    *,
    shard: int = SHARD,
    executor: ExecutorName = "serial",
    jobs: int | None = None,
    device: str = "auto",
    progress: bool = True,
    overwrite: bool = False,
    form: CsvForm | None = None,
) -> dict[str, Any]:
    """Annotate all images below a folder into one Parquet file, or a CSV file without the vectors.

    Shards are kept in ``OUT.shards`` until all are done; a repeated run computes only those that are missing after an
    interrupt, a crash or the loss of machines. Ids are paths relative to `folder`. Only one run at a time may write a
    table.

    Parameters
    ----------
    folder : path
        Images, in subfolders of any depth; or a ``.zip`` of it, which is unpacked beside itself.
    model : path or RemoteModel
        A saved model, which each worker loads once, or the classifier of a running service.
    out : path
        The file. One that ends in ``.csv`` is for people and spreadsheets: it has no vectors, so that nothing can be
        searched in it, and needs no pyarrow.
    shard : int, default=1024
        Images in a shard.
    executor : {"serial", "joblib", "ray"}, default="serial"
        This process, processes on this machine, or a cluster in which `folder` and `model` have the same paths.
    jobs : int, optional
        Processes; by default one per core.
    device : str, default="auto"
        Where to embed.
    progress : bool, default=True
        Whether to show a progress bar.
    overwrite : bool, default=False
        Whether to replace an existing file. An interrupted run may be repeated in any case.
    form : CsvForm, optional
        How a CSV file is written.

    Returns
    -------
    dict
        ``images``, ``unreadable``, ``resumed`` (shards that were done already).

    Raises
    ------
    InUseError
        If another run is writing the same table.
    MissingExtraError
        If `out` is a Parquet file, and pyarrow is missing.
    StoreError
        If ``OUT.shards`` holds shards of another run or other files, or a shard failed; finished shards are kept.
    ArtifactError
        If `model` is not a saved model.
    ServiceError
        If the service cannot be reached, or refuses.
    ValueError
        If there is no image, or `out` is a folder, has the suffix of another format, or exists and `overwrite` is
        False.
    """
    is_csv = Path(out).suffix.lower() == ".csv"
    check_suffix(out, "CSV" if is_csv else "Parquet", or_else=None if is_csv else "CSV")
    if Path(out).is_dir():
        raise ValueError(f"out is {os.fspath(out)!r}, a folder; expected the name of a file, such as all.parquet")
    # Absolute paths, because workers may run in another folder or on another machine.
    out, folder = Path(out), unpacked_folder(folder).absolute()
    model = model if isinstance(model, RemoteModel) else str(Path(model).absolute())
    paths = list_images(folder)
    if not paths:
        raise ValueError(f"there is no image in {folder}")
    digest = _digest(model)
    opened = _opened(model, digest, device)
    table: Table = CsvTable(form or CsvForm()) if is_csv else ParquetTable.of(opened)
    parts = [paths[start : start + shard] for start in range(0, len(paths), shard)]
    # For a pipe or a device, use a temporary folder: such a run cannot be resumed.
    shards = Path(tempfile.mkdtemp(prefix="fewshot-")) if is_special(out) else out.with_name(f"{out.name}.shards")
    with locked_new(shards, BRIEF):
        _refuse_finished(out, shards, overwrite)
        target = Path(os.path.realpath(out))
        _sweep(target.parent, [target.name])
        _begin(shards, paths, shard, digest)
        files = [shards / f"{i:06d}.{table.suffix}" for i in range(len(parts))]
        missing = [i for i, part in enumerate(parts) if not table.is_done(files[i], _ids(part, folder))]
        if len(missing) < len(parts):
            _log.info("an earlier run has left %d of %d shards in %s", len(parts) - len(missing), len(parts), shards)
        tasks = [(model, digest, str(folder), parts[i], device, is_csv) for i in missing]
        with (
            closing(make_executor(executor, jobs or os.cpu_count() or 1)) as runner,
            progress_bar(len(paths), "image", show=progress, desc="annotating") as bar,
        ):
            bar.update(len(paths) - sum(len(parts[i]) for i in missing))
            for n in _make(runner, tasks, [files[i] for i in missing], table):
                bar.update(n)
        unreadable = table.join(files, out)
        sync(out.absolute().parent)
        _clear(shards)
        return {"images": len(paths), "unreadable": unreadable, "resumed": len(parts) - len(missing)}


def _refuse_finished(out: Path, shards: Path, overwrite: bool) -> None:
    """Raise if the file exists, unless an interrupted run was about to replace it."""
    if out.exists() and not (overwrite or is_special(out) or (shards / PLAN).exists()):
        raise ValueError(f"{out} already exists; give overwrite=True to replace it, or another name")


def annotate_shard(
    model: str | RemoteModel, digest: str, folder: str, paths: Sequence[str], device: str, is_csv: bool
) -> Any:
    """Annotate some images below a folder; runs on a worker, which loads the model once."""
    opened = _opened(model, digest, device)
    table: Table = CsvTable() if is_csv else ParquetTable.of(opened)
    found = zip(_ids(paths, folder), annotate(opened, paths), strict=True)
    return table.part(replace(one, id=id) for id, one in found)


def _ids(paths: Sequence[str], folder: str | Path) -> list[str]:
    return [Path(os.path.relpath(path, folder)).as_posix() for path in paths]


def _make(runner: Executor, tasks: list[tuple[Any, ...]], files: list[Path], table: Table) -> Iterator[int]:
    """Write the file of each shard as it is done; yield its number of images; failures are raised at the end."""
    failures = []
    for place, outcome in runner.map(annotate_shard, tasks):
        if isinstance(outcome, Failure):
            failures.append(f"shard {int(files[place].stem)}: {outcome.error}")
        else:
            yield table.write(files[place], outcome)
    if failures:
        raise StoreError(
            f"{len(failures)} of {counted(len(tasks), 'shard')} failed, first {failures[0]}; "
            "the others are kept: run it again"
        )


def _begin(shards: Path, paths: Sequence[str], shard: int, model: str) -> None:
    """Write the plan into the folder of shards, or continue there if its plan is the same."""
    listed = hashlib.sha256()
    for path in paths:
        status = os.stat(path)
        listed.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    facts = {"images": len(paths), "sha256": listed.hexdigest(), "shard": shard, "model": model}
    plan = json.dumps(facts, indent=1) + "\n"
    there = shards / PLAN
    names = sorted(entry.name for entry in shards.iterdir())
    refuse_irregular(shards, filter(_OURS.fullmatch, names))  # opening a pipe would block
    if there.exists() and there.read_text(encoding="utf-8") != plan:
        raise StoreError(
            f"{shards} holds shards of a different run (other images, classifier or shard size); remove it, or choose "
            "another --out"
        )
    if others := [name for name in names if name != LOCK and not _OURS.fullmatch(name)]:
        raise StoreError(f"{shards} holds {others[0]!r}, which is not a shard; move it away, or choose another --out")
    _sweep(shards)
    if not there.exists():
        # Shards without a plan were left by a run that was killed while removing them.
        _clear(shards)
        write_text(there, plan)


def _clear(shards: Path) -> None:
    """Remove the files of a run, the plan last, so that a killed run can be repeated."""
    for entry in sorted(shards.iterdir(), key=lambda entry: entry.name == PLAN):
        if re.fullmatch(_FILES, entry.name):
            entry.unlink()
    _sweep(shards)


def _sweep(folder: Path, names: Sequence[str] | None = None) -> None:
    """Remove temporary files of killed processes."""
    for left in leftovers(folder, names):
        left.unlink(missing_ok=True)


def _digest(model: str | RemoteModel) -> str:
    """Return a digest that changes with the saved model."""
    if isinstance(model, RemoteModel):
        return str(model.about()["version"])
    manifest = Path(model) / MANIFEST
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else ""


def _opened(model: str | RemoteModel, digest: str, device: str) -> FewShotModel | RemoteModel:
    return replace(model, version=digest) if isinstance(model, RemoteModel) else _model(model, digest, device)


@lru_cache(maxsize=1)
def _model(path: str, digest: str, device: str) -> FewShotModel:
    model = FewShotModel.load(path, device=device)
    if _digest(path) != digest:
        raise StoreError(f"the classifier in {path} was changed meanwhile; restore it, or start the annotation again")
    model.embedder_.set_params(progress=False)
    return model
