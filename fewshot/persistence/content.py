"""The content of files that anyone may have written: JSON within bounds, labels, and errors that name the file."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import ArtifactError, DownloadError, MissingExtraError, UnknownNameError
from fewshot.utils.heap import TooLargeError
from fewshot.utils.labels import LONGEST, as_labels

#: Most numbers in a list of a file, and most characters of a word.
MOST_NUMBERS, MOST_CHARACTERS = 1 << 20, 64
#: Kind of array -> Python types of its labels.
_TYPES: dict[str, type | tuple[type, ...]] = {"b": bool, "i": int, "u": int, "f": (int, float), "U": str, "O": str}
#: Matches the dtypes of labels: the kind of array, and the width of text.
_DTYPE = re.compile(r"[<>|=]?(?:(?=b1|[iu][1248]|f[248])([biuf])\d|([UO])(\d{0,9}))")


def json_object(raw: bytes | str) -> dict[str, Any]:
    """Return the JSON object in the content of a file.

    Raises
    ------
    ValueError
        If it holds anything else, or is nested deeper than Python can read.

    Examples
    --------
    >>> json_object("[" * 100_000)
    Traceback (most recent call last):
    ValueError: its JSON is nested too deeply
    """
    try:
        found = json.loads(raw)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"it holds {type(found).__name__} instead of a JSON object")
    return found


@contextmanager
def errors_of_file(path: str | Path, cure: str) -> Iterator[None]:
    """Turn errors about the content of a file into `ArtifactError`, which names the file and the cure.

    Raises
    ------
    ArtifactError
        Instead of any error except those of the system, of too little memory, and of missing packages or downloads.

    Examples
    --------
    >>> with errors_of_file("preprocess.json", "export it again"):
    ...     {}["width"]
    Traceback (most recent call last):
    fewshot.errors.ArtifactError: preprocess.json cannot be used: 'width' is missing; export it again
    """
    try:
        yield
    except (ArtifactError, MissingExtraError, DownloadError, OSError, TooLargeError):
        raise
    except Exception as error:  # JSON, zip, torch, onnxruntime and Python have no other class in common
        text = f"{error} is missing" if isinstance(error, KeyError) else str(error) or repr(error)
        reason = "".join(c if c.isprintable() else " " for c in text.strip().partition("\n")[0])
        if not (isinstance(error, UnknownNameError) and error.says_cure):  # what is missing is not in the file
            reason = f"{reason:.400}; {cure}"
        raise ArtifactError(f"{path} cannot be used: {reason:.600}") from error


def is_whole(value: object, least: int = 0, most: int = 2**53) -> bool:
    """Whether a JSON value is a whole number in a range; True and False are not.

    Examples
    --------
    >>> is_whole(3), is_whole(True), is_whole(-1), is_whole(1.0)
    (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether a JSON value is a finite number in a range."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and abs(value) <= sys.float_info.max and least <= value <= most  # type: ignore[arg-type, operator]


def is_word(value: object) -> bool:
    """Whether a JSON value is a short text that cannot be an address or a path.

    Examples
    --------
    >>> is_word("sqeuclidean"), is_word("../x"), is_word("hf-hub:x"), is_word("a" * 100)
    (True, False, False, False)
    """
    return isinstance(value, str) and len(value) <= MOST_CHARACTERS and value.replace("-", "_").isidentifier()


def labels_to_json(labels: NDArray[Any]) -> dict[str, Any]:
    """Return labels and their type as values that JSON can hold.

    Raises
    ------
    ValueError
        If JSON cannot hold labels of this type.

    Examples
    --------
    >>> labels_from_json(labels_to_json(np.array(["ant", "bee"])))
    array(['ant', 'bee'], dtype='<U3')
    """
    if labels.dtype.kind not in "biufUO":
        raise ValueError(f"labels are {labels.dtype}, which JSON cannot hold; use text or integers to save")
    values, dtype = labels.tolist(), labels.dtype.str
    if labels.dtype.kind == "U":  # a longer label may have been removed
        dtype = f"{dtype[:2]}{max(map(len, values), default=1) or 1}"
    return {"dtype": dtype, "values": values}


def labels_to_arrays(labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return labels as an array of numbers, from which a million are read in no time: text by its code points.

    Examples
    --------
    >>> labels_to_arrays(np.array(["ant", "bee"]))["labels"].tolist()
    [[97, 110, 116], [98, 101, 101]]
    >>> labels_from_arrays(labels_to_arrays(np.array(["ant", "bee"])))
    array(['ant', 'bee'], dtype='<U3')
    """
    if labels.dtype.kind == "U" and len(labels):
        width = max(map(len, labels.tolist())) or 1
        return {"labels": np.ascontiguousarray(labels.astype(f"<U{width}")).view("<i4").reshape(len(labels), width)}
    if labels.dtype in (np.int64, np.bool_, np.float64):
        return {"labels": labels}
    return {"labels_json": np.frombuffer(json.dumps(labels_to_json(labels)).encode(), np.uint8)}


def labels_from_arrays(saved: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the labels that `labels_to_arrays` wrote, without trusting them.

    Raises
    ------
    ValueError
        If they are no labels.
    """
    if "labels_json" in saved:
        return labels_from_json(json_object(saved["labels_json"].tobytes()))
    labels = saved["labels"]
    if labels.dtype == np.int32 and labels.ndim == 2 and 1 <= labels.shape[1] <= LONGEST:
        if labels.min(initial=0) < 0 or labels.max(initial=0) > sys.maxunicode:
            raise ValueError("its labels are not text")
        return np.ascontiguousarray(labels).view(f"<U{labels.shape[1]}")[:, 0]
    if labels.ndim == 1 and labels.dtype in (np.int64, np.bool_, np.float64):
        return labels
    raise ValueError(f"its labels are {labels.dtype} {labels.shape}; expected text, integers or booleans")


def labels_from_json(saved: Any) -> NDArray[Any]:
    """Return the labels that `labels_to_json` wrote, without trusting them.

    Raises
    ------
    ValueError
        If they do not have their declared type.

    Examples
    --------
    >>> labels_from_json({"dtype": "<U10", "values": ["ant"]})
    array(['ant'], dtype='<U3')
    >>> labels_from_json({"dtype": "<i8", "values": [0.5]})
    Traceback (most recent call last):
    ValueError: labels do not have their declared type, int64; expected text, integers or booleans
    """
    if not isinstance(saved, Mapping) or not isinstance(saved.get("values"), list):
        raise ValueError(f"labels are {saved!r:.60}; expected their dtype and values")
    dtype, values = saved.get("dtype"), saved["values"]
    found = _DTYPE.fullmatch(dtype) if isinstance(dtype, str) else None
    if found is None:
        raise ValueError(f"labels are {dtype!r:.60}; expected text, integers or booleans")
    kind, width = found[1] or found[2], int(found[3] or 0)
    fits = all(isinstance(v, _TYPES[kind]) and (kind == "b") == isinstance(v, bool) for v in values)
    if fits and (kind == "O" or (kind == "U" and max(map(len, values), default=0) <= width <= LONGEST)):
        # The width may be smaller than declared: older files declare a little more.
        labels = as_labels(values, name="the list of labels") if values else np.array([], dtype=str)
        return labels.astype(object) if kind == "O" else labels
    try:
        if fits and kind != "U":
            return np.array(values, dtype=np.dtype(dtype))
    except OverflowError:
        pass
    shown = dtype if kind in "UO" else np.dtype(dtype)
    raise ValueError(f"labels do not have their declared type, {shown}; expected text, integers or booleans")
