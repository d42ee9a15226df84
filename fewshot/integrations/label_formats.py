"""Write images for a labelling tool, and read what people have labelled, in any format."""

from __future__ import annotations

import io
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fewshot.data.frames import LABEL_COLUMNS, usual_column
from fewshot.data.scan import LIKELIEST, PATH_COLUMNS, read_csv
from fewshot.errors import brief
from fewshot.integrations.class_folders import read_class_folders, write_class_folders
from fewshot.integrations.fiftyone import LABELS, SAMPLES, read_fiftyone, write_fiftyone
from fewshot.integrations.label_studio import read_label_studio, write_label_studio
from fewshot.integrations.labels import ImportedLabels, Task, gathered, read_json, require_files
from fewshot.persistence.files import write_text
from fewshot.persistence.suffixes import refuse_spreadsheet
from fewshot.utils.spreadsheet import CsvForm
from fewshot.utils.text import counted
from fewshot.utils.values import check_name
from fewshot.utils.warning import warn

#: What the page of ``fewshot serve`` adds to the name of a picture that it learns.
_DIGEST = re.compile(r" [0-9a-f]{16}\b")
LabelFormat = Literal["label-studio", "fiftyone", "csv", "folders"]
WRITERS: dict[LabelFormat, Callable[..., None]] = {
    "label-studio": write_label_studio,
    "fiftyone": write_fiftyone,
    "csv": lambda tasks, path, **settings: write_label_table(tasks, path, **settings),
    "folders": write_class_folders,
}


def write_labels(tasks: Sequence[Task], path: str | Path, format: LabelFormat, **settings: Any) -> None:
    """Write images with their labels, and the answers of a model, for people to label or correct.

    Parameters
    ----------
    tasks : sequence of Task
        The images; `answered` adds the answers of a model.
    path : path
        A JSON file for Label Studio, a CSV file, or a folder.
    format : {"label-studio", "fiftyone", "csv", "folders"}
        The format.
    **settings
        ``root`` and ``classes`` for Label Studio, ``copy`` for folders, ``form`` for CSV; see `write_label_studio`,
        `write_class_folders` and `write_label_table`.

    Raises
    ------
    ValueError
        If there are no images, or the format cannot hold one of them: only a table holds names of images that are no
        files, such as those taught on the page of ``fewshot serve``.

    Warns
    -----
    UserWarning
        If a table names images that are no files.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (8, 8)).save(folder / "1.png")
    >>> write_labels([Task(str(folder / "1.png"), "owl")], folder / "labels.csv", "csv")
    >>> read_labels(folder / "labels.csv").labelled[0][1]
    'owl'
    """
    if not tasks:
        raise ValueError("there are no images to write; give some")
    write = WRITERS[check_name("format", format, WRITERS)]
    if format != "csv":
        require_files(tasks, "give format='csv', which writes their names and labels")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write(tasks, path, **settings)


def read_labels(
    path: str | Path,
    *,
    images: str | Path | None = None,
    field: str | None = None,
    path_column: str | None = None,
    unknown: str = "unknown",
) -> ImportedLabels:
    """Read what people have labelled; nothing is lost: each image is labelled, unlabelled, or a problem.

    Parameters
    ----------
    path : path
        An export of Label Studio (JSON, JSON-MIN or CSV); a data set of FiftyOne (its folder, ``samples.json`` or
        ``labels.json``); a table ``path,label`` (.csv); or a folder of class folders.
    images : path, optional
        Where relative names of images start, and where images that were uploaded to Label Studio lie; by default the
        folder of the file. Those of a table that are not there are looked for in the working directory.
    field : str, optional
        The field, or the column of a table, that holds the labels, if there are several or it has a name of its own.
    path_column : str, optional
        Column of a table that holds the paths; by default ``path``, ``image`` or another usual name.
    unknown : str, optional
        In a table of answers, which has a column ``likeliest``, the answer to images of no class: it is no label.

    Raises
    ------
    ValueError
        If the file is none of these, or has several fields with labels.
    """
    place = Path(path)
    if place.is_dir() and (dataset := next((place / n for n in (SAMPLES, LABELS) if (place / n).is_file()), None)):
        place = dataset
    if place.is_dir() and path_column is None:
        return read_class_folders(place)
    folder = place.parent if images is None else Path(images)
    if place.suffix.lower() == ".csv":
        rows = read_csv(place).to_dict("records")
        if path_column is None and not _is_table(rows):
            return read_label_studio(rows, folder, field)
        folders = [folder, Path()] if images is None else [folder]
        return read_label_table(rows, *folders, field=field, path_column=path_column, unknown=unknown)
    refuse_spreadsheet(place)
    if path_column is not None:
        raise ValueError(f"{brief(path)} is not a .csv table, and path_column is about tables; leave it out")
    if not os.path.exists(place):
        raise ValueError(f"{brief(path)} does not exist; expected an export of a labelling tool")
    content = read_json(place)
    if isinstance(content, Mapping):
        return read_fiftyone(content, folder, field)
    return read_label_studio(content, folder, field)


def _is_table(rows: list[dict[str, Any]]) -> bool:
    """Whether these are the rows of a table ``path,label`` rather than of Label Studio."""
    return not rows or not {"annotation_id", "annotator", "lead_time"} & rows[0].keys()


def read_label_table(
    rows: list[dict[str, Any]],
    *folders: Path,
    field: str | None = None,
    path_column: str | None = None,
    unknown: str = "unknown",
) -> ImportedLabels:
    """Return the labels of the rows of a table with columns ``path`` and ``label``, or of other names.

    Relative paths start in the first of the folders that has such a file. In a table of answers that was corrected,
    `unknown` is no label.
    """
    names = list(rows[0]) if rows else []
    column = field or usual_column(names, LABEL_COLUMNS) or "label"
    is_answered = LIKELIEST in names
    usual = (*PATH_COLUMNS, "id") if is_answered else PATH_COLUMNS  # a table of `annotate` holds records
    path_column = path_column or usual_column(names, usual) or "path"
    if rows and not {path_column, column} <= set(names):
        raise ValueError(
            f"the table has the columns {', '.join(rows[0])}; expected {path_column} and {column}, or other names, "
            "given as path_column=NAME and field=NAME"
        )
    no_labels = {"", unknown} if is_answered else {""}
    if n := is_answered and sum(row[column].strip() == row[LIKELIEST].strip() for row in rows):
        warn(
            f"{n} of {counted(len(rows), 'label')} left as the classifier gave them; what you have not looked at is "
            "learned as if it were right, so take out those rows"
        )
    given = (([row[path_column]], [] if row[column].strip() in no_labels else [row[column]], "") for row in rows)
    return gathered(given, *folders)


def write_label_table(tasks: Sequence[Task], path: str | Path, form: CsvForm | None = None) -> None:
    """Write a table ``path,label,answer,probability``; a path below the table is relative to it.

    An image that is no file is named as it was called when it was taught. `form` is how CSV is written, for a
    spreadsheet or for programs.
    """
    buffer = io.StringIO(newline="")
    rows = (
        (
            name,
            None if task.label is None else str(task.label),
            None if task.answer is None else str(task.answer),
            None if math.isnan(task.probability) else float(task.probability),
        )
        for task, name in zip(tasks, _names(tasks, os.path.abspath(Path(path).parent)), strict=True)
    )
    (form or CsvForm()).write(buffer, ("path", "label", "answer", "probability"), rows)
    write_text(path, buffer.getvalue())
    if n_gone := sum(not task.is_file for task in tasks):
        warn(f"{n_gone} of {counted(len(tasks), 'image')} are no files here; the table has their names")


def _names(tasks: Sequence[Task], folder: str) -> list[str]:
    """Return the paths of files as seen from a folder, and names of other images; a digest tells equal names apart."""
    names = [_beside(task.path, folder) if task.is_file else _DIGEST.sub("", task.path) for task in tasks]
    n_called = Counter(names)
    return [name if task.is_file or n_called[name] == 1 else task.path for task, name in zip(tasks, names, strict=True)]


def _beside(path: str, folder: str) -> str:
    relative = os.path.relpath(path, folder)
    return os.path.abspath(path) if relative.startswith(os.pardir) else relative
