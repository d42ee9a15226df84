"""Annotating a folder of any size: shard after shard, each written whole, so that a run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot.data.scan import list_images
from fewshot.errors import StoreError
from fewshot.images.model import FewShotModel
from fewshot.persistence.artifact import MANIFEST
from fewshot.persistence.files import PARTIAL, is_special, leftovers, refuse_irregular, sync, write_text
from fewshot.persistence.suffixes import check_suffix
from fewshot.persistence.writers import BRIEF, LOCK, locked
from fewshot.retrieval.annotate import annotate
from fewshot.retrieval.table import annotation_schema, annotations_to_arrow, read_table, write_table
from fewshot.utils.executors import Executor, Failure, make_executor
from fewshot.utils.progress import progress_bar
from fewshot.utils.text import as_unicode

if TYPE_CHECKING:
    import pyarrow

#: Images of a shard.
SHARD = 1024
PLAN = "plan.json"
#: What a run leaves in its folder of shards: the plan, the shards, and parts of either where it was killed.
_FILES = r"plan\.json|\d{6,}\.parquet"
_OURS = re.compile(rf"{_FILES}|\.({_FILES}){PARTIAL}")


def annotate_folder(
    folder: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    shard: int = SHARD,
    executor: str = "serial",
    jobs: int | None = None,
    device: str = "auto",
    progress: bool = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Annotate all images below a folder into one Parquet file.

    Shards lie beside it in ``OUT.shards`` until all are there; a run that was interrupted, killed or lost machines goes
    on with those that are missing. Ids are paths below `folder`. One run at a time writes a table.

    Parameters
    ----------
    folder : path
        Images, in folders of any depth.
    model : path
        A saved classifier; workers load it once each.
    out : path
        The file.
    shard : int, default=1024
        Images of a shard.
    executor : {"serial", "joblib", "ray"}, default="serial"
        This process, processes of this machine, or a cluster, which sees `folder` and `model` under the same paths.
    jobs : int, optional
        Processes; one a core by default.
    device : str, default="auto"
        Where to embed.
    progress : bool, default=True
        Whether a bar over images is shown.
    overwrite : bool, default=False
        Whether to replace a file that is there. A run that was interrupted may be repeated in any case.

    Returns
    -------
    dict
        ``images``, ``unreadable``, ``resumed`` (shards that were there).

    Raises
    ------
    InUseError
        If another run is writing the same table.
    StoreError
        If shards of other work, or files that are none, lie in ``OUT.shards``, or a shard failed; those that are done
        are kept.
    ArtifactError
        If `model` is no saved classifier.
    ValueError
        If there is no image, `out` is a folder or, unless `overwrite`, a file that is there, or it ends like a file of
        another format than Parquet.
    """
    check_suffix(out, "Parquet")
    if Path(out).is_dir():
        raise ValueError(f"out is {os.fspath(out)!r}, a folder; expected the name of a file, such as all.parquet")
    # Workers may be in another folder, or on another machine.
    out, folder, model = Path(out), Path(folder).absolute(), Path(model).absolute()
    paths = list_images(folder)
    if not paths:
        raise ValueError(f"there is no image in {folder}")
    digest = _digest(model)
    schema = _schema(_model(str(model), digest, device))
    parts = [paths[start : start + shard] for start in range(0, len(paths), shard)]
    # Beside a pipe or a device there is no place for shards, nor any use: its content cannot be read again.
    shards = Path(tempfile.mkdtemp(prefix="fewshot-")) if is_special(out) else out.with_name(f"{out.name}.shards")
    with _only_run(shards):
        _refuse_finished(out, shards, overwrite)
        target = Path(os.path.realpath(out))
        for left in leftovers(target.parent, [target.name]):
            left.unlink(missing_ok=True)
        _begin(shards, paths, shard, digest)
        missing = [i for i, part in enumerate(parts) if not _is_done(_file(shards, i), _ids(part, folder), schema)]
        runner = make_executor(executor, jobs or os.cpu_count() or 1)
        try:
            tasks = [(str(model), digest, str(folder), parts[i], device) for i in missing]
            with progress_bar(len(paths), "image", show=progress, desc="annotating") as bar:
                bar.update(len(paths) - sum(len(task[3]) for task in tasks))
                for i, table in _done(runner, tasks, missing):
                    write_table(_file(shards, i), [table], schema)
                    bar.update(table.num_rows)
        finally:
            runner.close()
        unreadable = 0

        def tables() -> Iterator[pyarrow.Table]:
            nonlocal unreadable
            for i in range(len(parts)):
                table = read_table(_file(shards, i))
                unreadable += sum(map(bool, table.column("error").to_pylist()))
                yield table

        write_table(out, tables(), schema)
        sync(out.absolute().parent)
        _clear(shards)
        return {"images": len(paths), "unreadable": unreadable, "resumed": len(parts) - len(missing)}


@contextmanager
def _only_run(shards: Path) -> Iterator[None]:
    """Be the only run that writes into the folder of shards, which goes at the end if nothing is left in it."""
    try:
        with ExitStack() as lock:
            while True:
                shards.mkdir(parents=True, exist_ok=True)
                try:
                    lock.enter_context(locked(shards, BRIEF))
                    break
                except FileNotFoundError:
                    if shards.exists():
                        raise  # else the run that held it has ended, and removed it
            yield
    finally:
        with suppress(OSError):  # shards are left, or somebody has put something there
            shards.rmdir()


def _refuse_finished(out: Path, shards: Path, overwrite: bool) -> None:
    """Refuse to replace a file that is there, unless it is what an interrupted run was about to finish."""
    if out.exists() and not (overwrite or is_special(out) or (shards / PLAN).exists()):
        raise ValueError(f"{out} is there already; give overwrite=True to replace it, or another name")


def annotate_shard(model: str, digest: str, folder: str, paths: Sequence[str], device: str) -> pyarrow.Table:
    """Return the annotations of some images below a folder; on a worker, which loads a classifier once."""
    opened = _model(model, digest, device)
    found = zip(_ids(paths, folder), annotate(opened, paths), strict=True)
    return annotations_to_arrow((replace(one, id=id) for id, one in found), _schema(opened))


def _ids(paths: Sequence[str], folder: str | Path) -> list[str]:
    return [Path(os.path.relpath(path, folder)).as_posix() for path in paths]


def _is_done(file: Path, ids: Sequence[str], schema: pyarrow.Schema) -> bool:
    """Whether a shard is there, whole and of these images; what else is there under its name is removed."""
    if not file.exists():
        return False
    with suppress(StoreError):
        table = read_table(file)
        is_alike = (table.schema, table.schema.metadata) == (schema, schema.metadata)
        if is_alike and table.column("id").to_pylist() == list(map(as_unicode, ids)):
            return True
    file.unlink()
    return False


def _schema(model: FewShotModel) -> pyarrow.Schema:
    fitted = model.classifier_.model_
    d, fingerprint = model.classifier_.n_features_in_, model.embedder_.fingerprint
    return annotation_schema(d, fingerprint, fitted.learner.metric, model.classes_.tolist())


def _done(runner: Executor, tasks: list[tuple[Any, ...]], numbers: list[int]) -> Iterator[tuple[int, Any]]:
    """Yield the number and table of each shard as they come; one that failed is told when the others are there."""
    failures = []
    for place, outcome in runner.map(annotate_shard, tasks):
        if isinstance(outcome, Failure):
            failures.append(f"shard {numbers[place]}: {outcome.error}")
        else:
            yield numbers[place], outcome
    if failures:
        raise StoreError(
            f"{len(failures)} of {len(tasks)} shards failed, first {failures[0]}; the others are kept: run it again"
        )


def _begin(shards: Path, paths: Sequence[str], shard: int, model: str) -> None:
    """Make the folder of shards, or take the one that is there if it is of the same work."""
    listed = hashlib.sha256()
    for path in paths:
        status = os.stat(path)
        listed.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    facts = {"images": len(paths), "sha256": listed.hexdigest(), "shard": shard, "model": model}
    plan = json.dumps(facts, indent=1) + "\n"
    there = shards / PLAN
    if shards.is_dir():  # a pipe would keep the run waiting
        refuse_irregular(shards, [entry.name for entry in shards.iterdir() if _OURS.fullmatch(entry.name)])
    if there.exists() and there.read_text(encoding="utf-8") != plan:
        raise StoreError(
            f"{shards} holds shards of other work (other images, classifier or size of a shard); remove it, or choose "
            "another place with --out"
        )
    shards.mkdir(parents=True, exist_ok=True)
    if others := sorted(
        entry.name for entry in shards.iterdir() if entry.name != LOCK and not _OURS.fullmatch(entry.name)
    ):
        raise StoreError(f"{shards} holds {others[0]!r}, which is no shard; move it away, or choose another --out")
    _sweep(shards)
    if not there.exists():
        # Killed while it removed the shards of a table that is done, a run may have left some of those.
        _clear(shards)
        write_text(there, plan)


def _clear(shards: Path) -> None:
    """Remove what runs leave, the plan last: killed before that, the same command goes on."""
    ours = [entry for entry in shards.iterdir() if re.fullmatch(_FILES, entry.name)]
    for entry in sorted(ours, key=lambda entry: entry.name == PLAN):
        entry.unlink()
    _sweep(shards)


def _sweep(shards: Path) -> None:
    """Remove what processes that were killed have left half written."""
    for left in leftovers(shards):
        left.unlink(missing_ok=True)


def _file(shards: Path, i: int) -> Path:
    return shards / f"{i:06d}.parquet"


def _digest(model: str | Path) -> str:
    """Return what changes when a saved classifier does."""
    manifest = Path(model) / MANIFEST
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else ""


@lru_cache(maxsize=1)
def _model(path: str, digest: str, device: str) -> FewShotModel:
    model = FewShotModel.load(path, device=device)
    if _digest(path) != digest:
        raise StoreError(f"the classifier in {path} was changed meanwhile; put the former back, or annotate anew")
    model.embedder_.set_params(progress=False)
    return model
