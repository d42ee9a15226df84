"""Annotations and records as Arrow tables, which Parquet, DuckDB, LanceDB and pandas open directly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fewshot.annotation.annotate import Annotation
from fewshot.errors import MissingExtraError, StoreError
from fewshot.files import replacing, sync
from fewshot.stores.base import BATCH, Store
from fewshot.stores.records import Record

if TYPE_CHECKING:
    import pyarrow

#: Where a table says whose vectors it holds, and in which metric they are compared.
ABOUT = b"fewshot"
#: What every such table has.
COLUMNS = ("id", "label", "vector")


def pyarrow_module() -> Any:
    """Return the module ``pyarrow``.

    Raises
    ------
    MissingExtraError
        If it is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("Arrow and Parquet need pyarrow; run: pip install 'fewshot[parquet]'") from None
    return pyarrow


def annotation_schema(d: int, fingerprint: str, metric: str, classes: Sequence[Any]) -> pyarrow.Schema:
    """Return the columns of annotations of embeddings of length `d`; labels are of the type of the classes."""
    pa = pyarrow_module()
    label = pa.array(list(map(as_unicode, classes))).type
    columns = [
        ("id", pa.string()),
        ("label", label),
        ("vector", pa.list_(pa.float32(), d)),
        ("probability", pa.float32()),
        ("unknown", pa.bool_()),
        ("nearest", label),
        ("similarity", pa.float32()),
        ("error", pa.string()),
    ]
    return pa.schema(columns, {ABOUT: json.dumps({"fingerprint": fingerprint, "metric": metric}).encode()})


def annotations_to_arrow(found: Iterable[Annotation], schema: pyarrow.Schema) -> pyarrow.Table:
    """Return annotations as a table, a row an image.

    The label of an unknown image is null where it is of another type than the classes; bytes of a path or class that
    are no UTF-8 are written out.
    """
    pa = pyarrow_module()
    kind = schema.field("label").type
    rows = [
        {
            **{name: as_unicode(getattr(one, name)) for name in schema.names},
            "label": _of_type(as_unicode(one.label), kind) if one.unknown else as_unicode(one.label),
            "vector": None if one.vector is None else one.vector.tolist(),
            "similarity": None if np.isnan(one.similarity) else one.similarity,
        }
        for one in found
    ]
    return pa.Table.from_pylist(rows, schema)


def as_unicode(value: Any) -> Any:
    """Return text with the bytes written out that are no UTF-8, and other values as they are."""
    if not isinstance(value, str):
        return value
    return value.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _of_type(label: Any, kind: pyarrow.DataType) -> Any:
    pa = pyarrow_module()
    try:
        found = pa.scalar(label, kind).as_py()
    except (pa.ArrowException, OverflowError):
        return None
    return found if type(found) is type(label) else None


def write_table(path: str | Path, batches: Iterable[pyarrow.Table], schema: pyarrow.Schema) -> None:
    """Write tables one after another into one Parquet file, which is there as a whole or not at all."""
    pa = pyarrow_module()
    with replacing(path) as partial:
        # Opened here: pyarrow takes no path that is not UTF-8.
        with partial.open("wb") as file, pa.parquet.ParquetWriter(file, schema) as writer:
            for table in batches:
                writer.write_table(table)
        sync(partial)


def export_store(store: Store, path: str | Path) -> int:
    """Write the records of a store to a Parquet file: ``id, label, vector, payload``; return how many.

    Labels and payloads are JSON, so that text, numbers and booleans stay what they are.

    Raises
    ------
    MissingExtraError
        If pyarrow is missing.
    """
    pa = pyarrow_module()
    about = {"fingerprint": store.fingerprint, "metric": store.metric}
    columns = [("id", pa.string()), ("label", pa.string()), ("vector", pa.list_(pa.float32(), store.d))]
    schema = pa.schema([*columns, ("payload", pa.string())], {ABOUT: json.dumps(about).encode()})
    records = store.snapshot()

    def tables() -> Iterator[pyarrow.Table]:
        for start in range(0, len(records), BATCH):
            rows = [
                {
                    "id": record.id,
                    "label": json.dumps(record.label, ensure_ascii=False),
                    "vector": record.vector.tolist(),
                    "payload": json.dumps(dict(record.payload), ensure_ascii=False),
                }
                for record in records[start : start + BATCH]
            ]
            yield pa.Table.from_pylist(rows, schema)

    write_table(path, tables(), schema)
    return len(records)


def import_records(path: str | Path) -> Iterator[Record]:
    """Yield the records of a file that `export_store` or ``fewshot annotate`` has written, a batch in memory at a time.

    Images that could not be read are left out.

    Raises
    ------
    StoreError
        If it is no such file, or damaged.
    """
    with _reading(path) as file:
        fingerprint, names = _facts(path, file.schema_arrow)["fingerprint"], file.schema_arrow.names
        payload_columns = [c for c in names if c not in (*COLUMNS, "payload", "error")]
        exported = "payload" in names
        for batch in file.iter_batches(BATCH):
            vectors = batch.column("vector")
            for row, vector in zip(batch.drop_columns(["vector"]).to_pylist(), vectors, strict=True):
                if vector.is_valid:
                    x = vector.values.to_numpy(zero_copy_only=False)
                    label = json.loads(row["label"]) if exported else row["label"]
                    payload = dict(json.loads(row["payload"])) if exported else {c: row[c] for c in payload_columns}
                    yield Record(row["id"], x, label, payload, fingerprint)


def table_facts(path: str | Path) -> dict[str, Any]:
    """Return ``fingerprint``, ``metric`` and ``d`` of the vectors of such a file.

    Raises
    ------
    StoreError
        If it is no such file.
    """
    with _reading(path) as file:
        return _facts(path, file.schema_arrow)


def read_table(path: str | Path) -> pyarrow.Table:
    """Return what `write_table` has written.

    Raises
    ------
    StoreError
        If it is no such file, or damaged.
    """
    with _reading(path) as file:
        table = file.read()
        table.validate(full=True)
        return table


@contextmanager
def _reading(path: str | Path) -> Iterator[Any]:
    """Open a table; what cannot be read of it is told in a sentence."""
    pa = pyarrow_module()
    try:
        with Path(path).open("rb") as file:  # pyarrow takes no path that is not UTF-8
            yield pa.parquet.ParquetFile(file)
    except FileNotFoundError:
        raise StoreError(f"{path} cannot be read as Parquet: there is no such file") from None
    except (OSError, pa.ArrowException, ValueError, TypeError, RecursionError) as error:
        said = str(error).partition("\n")[0]
        damaged = f"it is damaged, or another kind of file ({said}); make it anew, such as with fewshot annotate"
        reason = getattr(error, "strerror", None) or damaged  # the system's own errors have one
        raise StoreError(f"{path} cannot be read as Parquet: {reason}") from None


def _facts(path: str | Path, schema: pyarrow.Schema) -> dict[str, Any]:
    """Return whose vectors a table holds, in which metric they are compared, and how long they are."""
    pa = pyarrow_module()
    cure = "make such a file with fewshot annotate"
    if ABOUT not in (schema.metadata or {}):
        raise StoreError(f"{path} holds no vectors of fewshot; {cure}")
    about = json.loads(schema.metadata[ABOUT])
    facts = {name: about.get(name) for name in ("fingerprint", "metric")} if isinstance(about, dict) else {}
    if not facts or not all(isinstance(fact, str) for fact in facts.values()):
        raise StoreError(f"{path} does not say whose vectors it holds, and in which metric; {cure}")
    for name in COLUMNS:
        if (n := schema.names.count(name)) != 1:
            raise StoreError(f"{path} has {n or 'no'} columns {name!r}; expected one of this name: {cure}")
    kind = schema.field("vector").type
    if not (pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)):
        raise StoreError(f"the vectors of {path} are {kind}; expected fixed_size_list<float>: {cure}")
    return {**facts, "d": kind.list_size}
