"""The two kinds of tables that a folder is annotated into, and the files of their shards."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fewshot.errors import StoreError
from fewshot.images.model import FewShotModel
from fewshot.persistence.files import replacing, sync, write_text
from fewshot.retrieval.annotation import Annotation
from fewshot.retrieval.remote import RemoteModel
from fewshot.retrieval.table import annotation_schema, annotations_to_arrow, read_table, write_table
from fewshot.utils.spreadsheet import CsvForm
from fewshot.utils.text import as_unicode

if TYPE_CHECKING:
    import pyarrow


class Table(ABC):
    """What becomes of annotations: a part of them on a worker, a file for each part, and one table of all files."""

    #: Of the files of shards.
    suffix: str

    @abstractmethod
    def part(self, found: Iterable[Annotation]) -> Any:
        """Return annotations as a worker sends them."""

    @abstractmethod
    def write(self, file: Path, part: Any) -> int:
        """Write a part into the file of a shard, atomically; return its number of images."""

    @abstractmethod
    def ids(self, file: Path) -> list[str] | None:
        """Return the ids in the file of a shard; None if it is damaged or of another table."""

    @abstractmethod
    def join(self, files: Sequence[Path], out: Path) -> int:
        """Write the parts in these files into one table; return the number of unreadable images."""

    def is_done(self, file: Path, ids: Sequence[str]) -> bool:
        """Whether a shard exists and is intact and of these images; anything else under its name is deleted."""
        if not file.exists():
            return False
        if self.ids(file) == list(map(as_unicode, ids)):
            return True
        file.unlink()
        return False


@dataclass(frozen=True)
class ParquetTable(Table):
    """A table of labels and vectors, in which images can be searched.

    Attributes
    ----------
    schema : pyarrow.Schema
        Its columns, and the embedder of its vectors.
    """

    schema: pyarrow.Schema
    suffix = "parquet"

    @classmethod
    def of(cls, model: FewShotModel | RemoteModel) -> ParquetTable:
        """Return the table of the answers of a model."""
        if isinstance(model, RemoteModel):
            about = model.about()
            some = np.zeros(1, about["label_type"]).tolist()  # only their type matters
            return cls(annotation_schema(about["d"], about["fingerprint"], about["metric"], some))
        d, fingerprint = model.classifier_.n_features_in_, model.embedder_.fingerprint
        return cls(annotation_schema(d, fingerprint, model.learner_.item_metric, model.classes_.tolist()))

    def part(self, found: Iterable[Annotation]) -> pyarrow.Table:
        """Return annotations as a table in memory."""
        return annotations_to_arrow(found, self.schema)

    def write(self, file: Path, part: pyarrow.Table) -> int:
        """Write a sealed Parquet file."""
        write_table(file, [part], self.schema)
        return int(part.num_rows)

    def ids(self, file: Path) -> list[str] | None:
        """Return the ids in a Parquet file with the same columns of the same embedder."""
        with suppress(StoreError):
            table = read_table(file)
            if (table.schema, table.schema.metadata) == (self.schema, self.schema.metadata):
                found: list[str] = table.column("id").to_pylist()
                return found
        return None

    def join(self, files: Sequence[Path], out: Path) -> int:
        """Write one sealed Parquet file."""
        unreadable: list[int] = []

        def tables() -> Iterator[pyarrow.Table]:
            for file in files:
                table = read_table(file)
                unreadable.append(sum(map(bool, table.column("error").to_pylist())))
                yield table

        write_table(out, tables(), self.schema)
        return sum(unreadable)


#: Columns of a CSV table: those of `Annotation` that people can read.
_COLUMNS = ("id", "label", "likeliest", "probability", "unknown", "nearest", "similarity", "error")


@dataclass(frozen=True)
class CsvTable(Table):
    """A table of labels for people and spreadsheets, without vectors; it needs no package.

    Attributes
    ----------
    form : CsvForm
        How it is written.
    """

    form: CsvForm = field(default_factory=CsvForm)
    suffix = "json"

    def part(self, found: Iterable[Annotation]) -> list[list[Any]]:
        """Return annotations as rows."""
        return [[_plain(getattr(one, name)) for name in _COLUMNS] for one in found]

    def write(self, file: Path, part: list[list[Any]]) -> int:
        """Write rows as JSON, after their digest."""
        text = json.dumps(part)
        write_text(file, f"{_digest(text)}\n{text}")
        return len(part)

    def ids(self, file: Path) -> list[str] | None:
        """Return the first column of rows whose digest fits."""
        with suppress(StoreError):
            return [row[0] for row in _rows(file)]
        return None

    def join(self, files: Sequence[Path], out: Path) -> int:
        """Write one CSV file, atomically; None is an empty field."""
        unreadable = 0

        def rows() -> Iterator[list[Any]]:
            nonlocal unreadable
            for file in files:
                for row in _rows(file):
                    unreadable += bool(row[-1])
                    yield row

        with replacing(out) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            self.form.write(file, _COLUMNS, rows())
            file.flush()
            sync(partial)
        return unreadable


def _plain(value: Any) -> Any:
    """Return a value as JSON keeps it; numbers to six digits after the point, and None for NaN."""
    if isinstance(value, float):
        return None if value != value else round(value, 6)
    return as_unicode(value)


def _rows(file: Path) -> list[list[Any]]:
    sealed, _, text = file.read_text(encoding="utf-8", errors="replace").partition("\n")
    if sealed != _digest(text):
        raise StoreError(f"{file} is damaged: its SHA-256 does not match; delete it, and run the same command again")
    rows: list[list[Any]] = json.loads(text)
    return rows


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
