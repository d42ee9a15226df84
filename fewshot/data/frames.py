"""Images and labels in a data frame of any library: paths, bytes, data URLs, PIL images or arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.opening import is_data_url
from fewshot.data.typed_labels import clean_label, clean_labels
from fewshot.errors import brief
from fewshot.utils.containers import is_missing, own_index
from fewshot.utils.labels import as_labels
from fewshot.utils.text import listed

#: Names that columns usually have, in the order in which they are looked for.
IMAGE_COLUMNS = ("image", "path", "file", "filename", "file_name", "filepath", "file_path", "image_path", "img", "item")
LABEL_COLUMNS = ("label", "class", "target", "category", "y", "label_name", "class_name")


def is_frame(given: Any) -> bool:
    """Whether this is a data frame of pandas or polars, or a table of Arrow."""
    return (hasattr(given, "columns") or hasattr(given, "column_names")) and hasattr(given, "__dataframe__") | hasattr(
        given, "to_pandas"
    )


def columns_of(frame: Any) -> list[str]:
    """Return the names of the columns of a data frame."""
    return list(getattr(frame, "column_names", None) or frame.columns)


def read_frame(
    frame: Any, image: str | None = None, label: str | None = None, root: str | Path | None = None
) -> tuple[Any, NDArray[Any]]:
    """Return images and labels of a data frame; see `LabeledImages.from_frame`."""
    if not is_frame(frame):
        raise TypeError(f"frame is a {type(frame).__name__}; expected a data frame of pandas or polars")
    names = columns_of(frame)
    image = image_column(frame, image)
    label = _column(names, label, LABEL_COLUMNS, "label")
    images = values_of(column := frame[image])
    for i, one in enumerate(images):
        if is_missing(one):
            raise ValueError(
                f"the column {image!r} has no image in row {i}{own_index(column, i)}; drop the row (frame.dropna())"
            )
    labels = as_labels(frame[label], name=f"the column {label!r}", any_type=True)
    labels = clean_labels(labels, "the frame")
    if labels.dtype.kind in "UO" and len(empty := np.flatnonzero(labels == "")):
        at = own_index(frame[label], int(empty[0]))
        raise ValueError(f"the column {label!r} has an empty label in row {empty[0]}{at}; give every row a label")
    return [_located(one, root) for one in images], labels


def image_column(frame: Any, image: str | None = None) -> str:
    """Return the name of the column that holds the images."""
    return _column(columns_of(frame), image, IMAGE_COLUMNS, "image")


def _column(names: Iterable[str], asked: str | None, usual: tuple[str, ...], what: str) -> str:
    """Return the name of the column of images or labels."""
    names = list(names)
    if asked is not None:
        if asked not in names:
            raise ValueError(f"the frame has no column {brief(repr(asked))}; it has {listed(names)}")
        return asked
    found = usual_column(names, usual)
    if found is None:
        raise ValueError(
            f"no column of the frame looks like the {what}s; name it: LabeledImages.from_frame(frame, {what}=...) (it "
            f"has {listed(names)})"
        )
    return found


def usual_column(names: Sequence[Any], usual: Sequence[str]) -> Any:
    """Return the first name of `usual` that a column has, in any case, as the column spells it; None if none does.

    Examples
    --------
    >>> usual_column(["Label", "Image"], IMAGE_COLUMNS), usual_column(["Datei"], IMAGE_COLUMNS)
    ('Image', None)
    """
    by_name = {str(name).lower(): name for name in reversed(names)}
    return next((by_name[name] for name in usual if name in by_name), None)


def known_labels(frame: Any) -> list[Any] | None:
    """Return the column of labels of a frame, its text cleaned; None if none has a usual name."""
    name = usual_column(columns_of(frame), LABEL_COLUMNS)
    if name is None:
        return None
    return [clean_label(one) if isinstance(one, str) else one for one in values_of(frame[name])]


def values_of(column: Any) -> list[Any]:
    """Return a column as Python values; those of Arrow are converted."""
    for name in ("to_pylist", "to_list"):
        if hasattr(column, name):
            return list(getattr(column, name)())
    return list(column)


def _located(image: Any, root: str | Path | None) -> Any:
    """Return an image with `root` before a relative path; the bytes or the path of one that Hugging Face stored."""
    if isinstance(image, dict) and image.keys() >= {"bytes", "path"}:
        image = image["path"] if image["bytes"] is None else image["bytes"]
    if root is None or not isinstance(image, (str, os.PathLike)) or is_data_url(image):
        return image
    return os.path.join(root, image)
