"""The classes of a saved model: those of a large one that keeps class sums as arrays. Without torch."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from fewshot.persistence.arrays import map_arrays
from fewshot.persistence.content import is_whole, labels_from_arrays, labels_from_json, labels_to_arrays
from fewshot.persistence.manifest import PLAIN
from fewshot.utils.labels import as_labels

#: Name of the largest file of a large model, and beginning of the names of the arrays of labels that a change removes.
BASE, GONE = "memory", "gone."
#: Names of its arrays besides labels, each with a row for each class.
ROW = ("n_support", "count", "sums")


def is_segmented(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is of a large model that keeps class sums alone; see `fewshot.images.segments`."""
    return bool(manifest["format"] > PLAIN and "changes" in manifest)


def name_of(number: int) -> str:
    """Return the name of a file of changes of a large model, from 1; see `fewshot.images.segments`."""
    return f"changes {number}"


def changes_in(manifest: Mapping[str, Any], paths: Mapping[str, Path]) -> Iterator[tuple[bytes, bool]]:
    """Yield the changes of a large model in order, as bytes, and whether they are in the manifest."""
    number = 1
    while (path := paths.get(name_of(number))) is not None:
        yield path.read_bytes(), False
        number += 1
    for text in manifest["changes"]:
        yield b64decode(text, validate=True), True


def change_to_arrays(
    gone: list[Any], classes: NDArray[Any], n_support: Any = None, count: Any = None, sums: Any = None
) -> dict[str, NDArray[Any]]:
    """Return a change of a large model as arrays: labels that are gone, and what is known of new or other classes."""
    kind = classes.dtype.kind
    labels = np.array(gone, object if kind in "UO" else classes.dtype)
    arrays = {f"{GONE}{name}": value for name, value in labels_to_arrays(labels).items()}
    rows = (np.empty(0, np.int64), np.empty(0), np.empty((0, 1))) if n_support is None else (n_support, count, sums)
    return arrays | labels_to_arrays(classes) | dict(zip(ROW, rows, strict=True))


def gone_in(change: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the labels that are gone after a change, as arrays."""
    return {name.removeprefix(GONE): value for name, value in change.items() if name.startswith(GONE)}


def classes_in(manifest: Mapping[str, Any], paths: Mapping[str, Path]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted labels and the number of support items of each class of a large model."""
    known: dict[Any, int] = {}

    def learn(arrays: Mapping[str, NDArray[Any]]) -> None:
        known.update(zip(labels_from_arrays(arrays).tolist(), arrays["n_support"].tolist(), strict=True))

    learn(map_arrays(paths[BASE]))
    for raw, _ in changes_in(manifest, paths):
        change = load(raw)
        for label in labels_from_arrays(gone_in(change)).tolist():
            del known[label]
        learn(change)
    labels = sorted(known)
    return as_labels(labels), np.array([known[label] for label in labels], np.int64)


def read_classes(said: Any, n_support: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted labels and the number of support items of each class, from a manifest.

    Raises
    ------
    ValueError
        If labels are unsorted or repeated, or a count is missing or negative.
    """
    classes = labels_from_json(said)
    names = classes.tolist()
    is_nan = classes.dtype.kind == "f" and bool(np.isnan(classes).any())
    if not names or is_nan or any(one >= other for one, other in pairwise(names)):
        raise ValueError("its classes must be sorted labels without repeats")
    if not isinstance(n_support, list) or len(n_support) != len(names) or not all(map(is_whole, n_support)):
        raise ValueError(f"its n_support must be a count for each of {len(names)} classes")
    return classes, np.array(n_support, dtype=np.int64)
