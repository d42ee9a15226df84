"""Annotations and records as Parquet files, which pandas, DuckDB, polars and LanceDB can read and rewrite."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fewshot.errors import StoreError, missing
from fewshot.persistence.files import open_regular, replacing, sync
from fewshot.persistence.sealed import seal, seal_fits
from fewshot.persistence.suffixes import check_suffix
from fewshot.retrieval.annotation import Annotation
from fewshot.retrieval.stores.base import BATCH, Store
from fewshot.retrieval.stores.records import Record
from fewshot.utils.text import as_unicode

if TYPE_CHECKING:
    import pyarrow

#: Key of the file metadata that holds the embedder's fingerprint and the metric.
ABOUT = b"fewshot"
#: Columns of every table.
COLUMNS = ("id", "label", "vector")
#: The column with the embedder's fingerprint, which survives if other software drops the file metadata.
EMBEDDER = "embedder"
_NOT_PAYLOAD = {*COLUMNS, EMBEDDER, "payload", "error"}
_CURE = "make it again with fewshot annotate"


def pyarrow_module() -> Any:
    """Import ``pyarrow``.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing("Arrow and Parquet need pyarrow", "parquet") from None
    return pyarrow


def annotation_schema(d: int, fingerprint: str, metric: str, classes: Sequence[Any]) -> pyarrow.Schema:
    """Return the schema of annotations with embeddings of length `d` and labels of the type of the classes.

    Vectors are fixed-size lists, which LanceDB requires.
    """
    pa = pyarrow_module()
    label = pa.array(list(map(as_unicode, classes))).type
    columns = [
        ("id", pa.string()),
        ("label", label),
        ("vector", pa.list_(pa.float32(), d)),
        ("likeliest", label),
        ("probability", pa.float32()),
        ("unknown", pa.bool_()),
        ("nearest", label),
        ("similarity", pa.float32()),
        ("error", pa.string()),
    ]
    return _schema(columns, fingerprint, metric)


def _schema(columns: list[tuple[str, Any]], fingerprint: str, metric: str) -> pyarrow.Schema:
    """Return the schema of a table with these columns, whose vectors are of this embedder."""
    pa = pyarrow_module()
    about = json.dumps({"fingerprint": fingerprint, "metric": metric}).encode()
    return pa.schema([*columns, (EMBEDDER, pa.string())], {ABOUT: about})


def annotations_to_arrow(found: Iterable[Annotation], schema: pyarrow.Schema) -> pyarrow.Table:
    """Convert annotations to a table of one row per image.

    An unreadable image has an error and a vector of zeros, because LanceDB refuses null and NaN, and pyarrow before 26
    cannot read null vectors. The label of an unknown image is null if its type differs from that of the classes. Bytes
    of a path or class that are not UTF-8 are escaped.
    """
    pa = pyarrow_module()
    kind = schema.field("label").type
    zeros = [0.0] * schema.field("vector").type.list_size
    rows = [
        {
            **{name: as_unicode(getattr(one, name)) for name in schema.names},
            "label": _of_type(as_unicode(one.label), kind) if one.unknown else as_unicode(one.label),
            "vector": zeros if one.vector is None else one.vector.tolist(),
            "similarity": None if np.isnan(one.similarity) else one.similarity,
        }
        for one in found
    ]
    return pa.Table.from_pylist(rows, schema)


def _of_type(label: Any, kind: pyarrow.DataType) -> Any:
    pa = pyarrow_module()
    try:
        found = pa.scalar(label, kind).as_py()
    except (pa.ArrowException, OverflowError):
        return None
    return found if type(found) is type(label) else None


def write_table(path: str | Path, batches: Iterable[pyarrow.Table], schema: pyarrow.Schema) -> None:
    """Write tables one after another into one sealed Parquet file, atomically."""
    pa = pyarrow_module()
    with replacing(path) as partial:
        # Opened here, because pyarrow accepts only UTF-8 paths.
        with partial.open("wb") as file, pa.parquet.ParquetWriter(file, schema) as writer:
            for table in batches:
                writer.write_table(table)
        with partial.open("rb") as written:
            tail = _footer(written)
        seal(partial, tail)
        sync(partial)


def export_store(store: Store, path: str | Path) -> int:
    """Write the records of a store to a Parquet file: ``id, label, vector, payload, embedder``; return their number.

    Labels and payloads are JSON, which preserves the types of text, numbers and booleans.

    Raises
    ------
    MissingExtraError
        If pyarrow is missing.
    ValueError
        If `path` has the suffix of another format than Parquet.
    """
    pa = pyarrow_module()
    check_suffix(path, "Parquet", "path")
    text, vector = pa.string(), pa.list_(pa.float32(), store.d)
    columns = [("id", text), ("label", text), ("vector", vector), ("payload", text)]
    schema = _schema(columns, store.fingerprint, store.metric)
    rows = list(map(_row, store.snapshot()))
    parts = (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
    write_table(path, (pa.Table.from_pylist(part, schema) for part in parts), schema)
    return len(rows)


def _row(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "label": json.dumps(record.label, ensure_ascii=False),
        "vector": record.vector,
        "payload": json.dumps(dict(record.payload), ensure_ascii=False),
        EMBEDDER: record.embedder,
    }


def import_records(path: str | Path) -> Iterator[Record]:
    """Yield the records of a file written by `export_store` or ``fewshot annotate``, one batch in memory at a time.

    Other software, such as pandas, DuckDB or polars, may have filtered or rewritten the file. Images that could not be
    read are left out.

    Raises
    ------
    StoreError
        If it is not such a file, or is damaged.
    """
    with _reading(path) as file:
        facts, names = _facts(path, file), file.schema_arrow.names
        payload_columns = [c for c in names if c not in _NOT_PAYLOAD and not c.startswith("__index_level_")]
        exported = "payload" in names
        for batch in file.iter_batches(BATCH):
            vectors = batch.column("vector")
            for row, vector in zip(batch.drop_columns(["vector"]).to_pylist(), vectors, strict=True):
                if not vector.is_valid or row.get("error"):
                    continue
                x = vector.values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
                if len(x) != facts["d"]:
                    raise StoreError(f"the vectors of {path} have {facts['d']} and {len(x)} numbers; {_CURE}")
                label = json.loads(row["label"]) if exported else row["label"]
                payload = dict(json.loads(row["payload"])) if exported else {c: row[c] for c in payload_columns}
                yield Record(row["id"], x, label, payload, row.get(EMBEDDER) or facts["fingerprint"])


def table_facts(path: str | Path) -> dict[str, Any]:
    """Return ``fingerprint``, ``metric`` and ``d`` of the vectors of a file; see `import_records`.

    The metric is None if other software has rewritten the file without it.

    Raises
    ------
    StoreError
        If it is not such a file, or is damaged.
    """
    with _reading(path) as file:
        return _facts(path, file)


def read_table(path: str | Path) -> pyarrow.Table:
    """Read a table that `write_table` has written.

    Raises
    ------
    StoreError
        If it is not such a file, or is damaged.
    """
    with _reading(path) as file:
        table = file.read()
        table.validate(full=True)
        return table


@contextmanager
def _reading(path: str | Path) -> Iterator[Any]:
    """Open a table, translating errors into one sentence."""
    pa = pyarrow_module()
    try:
        with open_regular(path, follow=True) as file:  # pyarrow accepts only UTF-8 paths
            if seal_fits(file, _footer(file)) is False:
                raise StoreError(f"{path} is damaged: its SHA-256 does not match; restore it from a copy, or {_CURE}")
            file.seek(0)
            yield pa.parquet.ParquetFile(file)
    except FileNotFoundError:
        raise StoreError(f"{path} cannot be read as Parquet: there is no such file") from None
    except (OSError, pa.ArrowException, ValueError, TypeError, RecursionError) as error:
        said = str(error).partition("\n")[0]
        damaged = f"it is damaged, or another kind of file ({said}); {_CURE}"
        reason = getattr(error, "strerror", None) or damaged  # only errors of the system have one
        raise StoreError(f"{path} cannot be read as Parquet: {reason}") from None


def _footer(file: BinaryIO) -> int:
    """Return the number of bytes from a Parquet file's footer to its end."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    return min(size, int.from_bytes(file.read(4), "little") + 8)


def _facts(path: str | Path, file: Any) -> dict[str, Any]:
    """Return fingerprint, metric and length of the vectors of a table."""
    pa = pyarrow_module()
    schema = file.schema_arrow
    for name in COLUMNS:
        if (n := schema.names.count(name)) != 1:
            raise StoreError(f"{path} has {n or 'no'} columns {name!r}; expected one of this name: {_CURE}")
    kind, types = schema.field("vector").type, pa.types
    is_list = types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind)
    if not (is_list and types.is_floating(kind.value_type)):
        raise StoreError(f"the vectors of {path} are {kind}; expected lists of floats: {_CURE}")
    about = json.loads((schema.metadata or {}).get(ABOUT, b"{}"))
    about = about if isinstance(about, dict) else {}
    fingerprint, metric = about.get("fingerprint"), about.get("metric")
    if fingerprint is None and EMBEDDER in schema.names:
        fingerprint = _first(file, EMBEDDER)
    if not isinstance(fingerprint, str) or not isinstance(metric, str | None):
        raise StoreError(f"{path} does not say which embedder made its vectors; {_CURE}")
    d = kind.list_size if types.is_fixed_size_list(kind) else len(_first(file, "vector") or ())
    if not d:
        raise StoreError(f"{path} has no vectors; {_CURE}")
    return {"fingerprint": fingerprint, "metric": metric, "d": d}


def _first(file: Any, column: str) -> Any:
    """Return the first value of a column that is not null, or None."""
    for batch in file.iter_batches(BATCH, columns=[column]):
        for value in batch.column(0):
            if value.is_valid:
                return value.as_py()
    return None
