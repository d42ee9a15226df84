"""Splits of classes: published ones, read from the forms they come in, and those of data at hand."""

from __future__ import annotations

import json
from pathlib import Path

from fewshot.data.duplicates import SPLITS
from fewshot.data.packed import TABLE, is_packed
from fewshot.data.scan import read_csv, split_folders


def read_splits(source: str | Path) -> dict[str, list[str]]:
    """Return the classes of train, val and test.

    Parameters
    ----------
    source : path
        A JSON file of three lists, or a folder of ``train.txt``, ``val.txt`` and ``test.txt`` with a class a line.

    Raises
    ------
    ValueError
        If it is neither, or a class is in two splits.
    """
    path = Path(source)
    try:
        if path.is_dir():
            splits = {s: _lines(path / f"{s}.txt") for s in SPLITS}
        else:
            loaded = json.loads(path.read_text(encoding="utf-8"))
            splits = {s: _names(s, loaded[s]) for s in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as splits ({error}); expected a JSON file with the lists train, val and test, or a "
            "folder of train.txt, val.txt and test.txt"
        ) from None
    seen: dict[str, str] = {}
    for split, classes in splits.items():
        for name in classes:
            if name in seen:
                raise ValueError(f"{path} has the class {name!r} in {seen[name]} and in {split}; give each class once")
            seen[name] = split
    return splits


def _lines(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _names(split: str, given: object) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{split} is no list of class names")
    return given


def check_total(what: str, found: int, expected: int) -> None:
    """Refuse data that are not all there, or more.

    Raises
    ------
    ValueError
        If the numbers differ.
    """
    if found != expected:
        raise ValueError(f"found {found} {what}, expected {expected}; the archive is not the published one")


def list_splits(source: str | Path) -> list[str]:
    """Return the splits of what `LabeledImages.open` takes; none where there is no such thing.

    Examples
    --------
    >>> import tempfile
    >>> list_splits(tempfile.mkdtemp())
    []
    """
    path = Path(source)
    if path.is_dir() and not is_packed(path):
        return list(split_folders(path))
    table = path / TABLE if path.is_dir() else path
    if table.suffix.lower() != ".csv" or not table.is_file():
        return []
    frame = read_csv(table)
    return list(frame["split"].unique()) if "split" in frame.columns else []
