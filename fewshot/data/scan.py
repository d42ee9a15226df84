"""Find images in folders of class folders and in tables of paths, without opening them."""

from __future__ import annotations

import errno
import os
import unicodedata
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.boxes import COLUMNS, boxed, has_boxes, read_marked
from fewshot.data.frames import IMAGE_COLUMNS, LABEL_COLUMNS, usual_column
from fewshot.data.left_out import LeftOut
from fewshot.data.table_path import table_paths
from fewshot.data.typed_labels import clean_labels, look_alikes
from fewshot.errors import brief
from fewshot.persistence.artifact import is_artifact
from fewshot.persistence.files import check_file
from fewshot.persistence.suffixes import refuse_spreadsheet
from fewshot.utils.labels import as_labels
from fewshot.utils.spreadsheet import unguarded
from fewshot.utils.text import counted, listed
from fewshot.utils.warning import warn

if TYPE_CHECKING:
    import pandas as pd

#: Names of split folders, in lower case.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
#: Usual names of the column of paths in a table, and the column that only tables of answers have.
PATH_COLUMNS = ("path", *IMAGE_COLUMNS)
LIKELIEST = "likeliest"
#: First bytes of image files.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*")


@cache
def image_suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of files that Pillow decodes itself."""
    from PIL import Image

    from fewshot.data.opening import is_decoded_here, register_heif

    register_heif()
    kinds = Image.registered_extensions()
    return frozenset(ext for ext, kind in kinds.items() if kind in Image.OPEN and is_decoded_here(kind))


def list_images(folder: str | Path) -> list[str]:
    """Return the sorted paths of all images below a folder.

    A file is an image if its suffix is that of an image or, without a suffix, if its first bytes are. Hidden files and
    folders and irregular files are skipped. Symbolic links are followed, but each folder is visited once.

    Parameters
    ----------
    folder : path
        The folder.

    Raises
    ------
    ValueError
        If the folder does not exist.

    Warns
    -----
    UserWarning
        If files of other kinds, such as HEIC, RAW, DICOM or documents, are left out.

    Examples
    --------
    >>> import tempfile
    >>> list_images(tempfile.mkdtemp())
    []
    """
    root = _check_folder(folder, "a folder of images")
    left = LeftOut()
    found = sorted(_walk(root, set(), left))
    _warn_of_left_out(left, root)
    return found


def scan_folder(root: str | Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return paths and labels of a folder of class folders; the label is the name of the class folder.

    Names are brought to one Unicode form (NFC), because file systems store ä as one character or as two.

    Raises
    ------
    ValueError
        If the folder does not exist, or contains splits instead of classes, or no images.

    Warns
    -----
    UserWarning
        If files or folders are left out, names of classes look like mistakes, or all images of a class folder are in
        several folders within it, which may be the classes instead.
    """
    root = _check_folder(root, "a folder of class folders")
    if splits := split_folders(root):
        raise ValueError(
            f"{root} holds the splits {', '.join(splits)}, not classes; name one, such as split={next(iter(splits))!r}"
        )
    left = LeftOut()
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    # One set for all classes: otherwise a link to a sibling class would put its images into two classes.
    seen = {_identity(root)}
    folders = sorted((entry for entry in entries if entry.is_dir()), key=Path.is_symlink)  # links come last
    by_class: dict[str, list[str]] = {}
    for entry in folders:
        label = unicodedata.normalize("NFC", entry.name)
        if label in by_class:
            warn(f"two class folders in {root} are called {label!r}, in two Unicode forms; they are one class")
        by_class.setdefault(label, []).extend(sorted(_walk(entry, seen, left)))
    found = {label: by_class[label] for label in sorted(by_class) if by_class[label]}
    for entry in entries:
        if _is_image(entry):
            left.loose += 1
        elif entry.is_file():
            left.note(entry.name)
    if not found:
        reason = f"holds {counted(left.loose, 'image')} but no class folders" if left.loose else "holds no images"
        if is_artifact(root):
            reason = "is a saved classifier"
        left.loose = 0
        text = f" ({text})" if (text := left.summary()) else ""
        raise ValueError(f"{root} {reason}{text}; expected one folder of images per class, named after the class")
    _warn_of_left_out(left, root)
    _warn_of_names(list(found), [label for label in by_class if label not in found], root)
    _warn_of_folders_within(found, root)
    paths = [path for paths in found.values() for path in paths]
    return np.array(paths, dtype=object), np.repeat(list(found), [len(paths) for paths in found.values()])


def _check_folder(folder: str | Path, expected: str) -> Path:
    if not os.path.isdir(folder):
        state = "is a file" if os.path.exists(folder) else "does not exist"
        raise ValueError(f"{brief(Path(folder))} {state}; expected {expected}")
    return Path(folder)


def read_image_table(
    table: str | Path | pd.DataFrame,
    root: str | Path | None,
    split: str | None,
    allow_outside: bool,
    path_column: str | None = None,
    label_column: str | None = None,
    *,
    labelled: bool = True,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return paths and labels of a CSV file or data frame with columns ``path``, ``label`` and optionally ``split``.

    Columns that are not named may have another usual name, such as ``image`` and ``class``. If the images are not
    `labelled`, the labels are the paths.

    With columns ``x``, ``y``, ``w`` and ``h`` images are these boxes of the pictures; see `BoxedImage`. Relative paths
    start at `root`; by default, and if they lead to nothing there, at the folder of the CSV file, or the working
    directory. Labels are taken without blanks around them, and in one Unicode form (NFC). A backslash separates
    folders, as on Windows, unless a file has one in its name.

    Raises
    ------
    ValueError
        If a column, a value or the split is missing, the labels are answers of a classifier, or a path leads out of
        `root` and `allow_outside` is False.
    """
    import pandas as pd

    name = "the table" if isinstance(table, pd.DataFrame) else str(table)
    if isinstance(table, pd.DataFrame):
        frame, home = table, Path()
    else:
        frame, home = read_csv(Path(table)), Path(table).parent
    base = Path(root or home)
    columns = list(frame.columns)
    path_column = path_column or usual_column(columns, PATH_COLUMNS) or "path"
    if not labelled:
        label_column = path_column
    elif label_column is None:
        label_column = _label_column(columns, name)
    if missing := [column for column in (path_column, label_column) if column not in columns]:
        raise ValueError(
            f"{name} has no column {missing[0]!r}; expected path, label and optionally split, or names of the first "
            f"two as path_column and label_column of LabeledImages.from_table; it has {listed(columns)}"
        )
    frame = take_split(frame, split, name)
    for column in (path_column, label_column):
        empty = np.flatnonzero(frame[column].isna() | (frame[column].astype(str).str.strip() == ""))
        if len(empty):
            rows = f"row{'s' if len(empty) > 1 else ''} {listed(frame.index[empty].tolist())}"
            raise ValueError(f"{name} has no {column} in {rows}; give every row both")
    named = [str(path) for path in frame[path_column]]
    full = [_inside(base, path, name, allow_outside, home) for path in named]
    paths: list[Any] = list(table_paths(full, named, name, frame.index.tolist(), [base, home]))
    if has_boxes(columns):
        paths = boxed(paths, {column: frame[column].tolist() for column in COLUMNS})
    labels = as_labels(frame[label_column], name=f"the column {label_column} of {name}", any_type=True)
    return np.array(paths, dtype=object), clean_labels(labels, name)


def list_marked(path: str | Path, root: str | Path | None = None) -> list[Any]:
    """Return the images that a table names, or the boxes in it or in a JSON file, unlabelled."""
    if Path(path).suffix.lower() == ".json":
        return list(read_marked(path)[0])
    return list(read_image_table(path, root, None, False, labelled=False)[0])


def _label_column(columns: list[str], name: str) -> str:
    """Return the column of labels of a table that is called `name`.

    Raises
    ------
    ValueError
        If they are answers of a classifier, from which it would only learn what it takes them for.
    """
    if LIKELIEST in columns:
        raise ValueError(
            f"the labels of {name} are answers of a classifier (it has a column {LIKELIEST!r}); teach those that you "
            "have corrected with fewshot import-labels, or name the columns as path_column and label_column of "
            "LabeledImages.from_table"
        )
    usual = [column for column in LABEL_COLUMNS if not (has_boxes(columns) and column in COLUMNS)]
    return usual_column(columns, usual) or "label"


def take_split(frame: pd.DataFrame, split: str | None, name: str) -> pd.DataFrame:
    """Return the rows of a split, or all rows for None.

    Raises
    ------
    ValueError
        If there is no such split.
    """
    if split is None:
        return frame
    if "split" not in frame.columns:
        raise ValueError(f"{name} has no column 'split', so no split {split!r}; omit the split or add the column")
    rows = frame[frame["split"].astype(str) == split]
    if not len(rows):
        known = ", ".join(sorted(set(frame["split"].astype(str))))
        raise ValueError(f"{name} has no split {split!r}; it has {known}")
    return rows


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file with all values as strings; spreadsheets separate them by semicolons or tabs in some languages.

    A spreadsheet's file begins with a byte order mark, and may be in UTF-16, as "Unicode text" of Excel is. There an
    apostrophe before what begins like a formula is left out; see `CsvForm`.

    Rows without any value, which spreadsheets leave at the end, are skipped. The index counts rows as a spreadsheet
    does: the names of the columns are row 1.

    Raises
    ------
    ValueError
        If the file does not exist or is not a CSV file.
    """
    import pandas as pd

    check_file(path, "a CSV file")
    refuse_spreadsheet(path)
    encoding, is_marked = _encoding(path)
    separator, n_blank = _beginning(path, encoding)
    try:
        # Strings, so that 007 and NA are class names like any other.
        frame = pd.read_csv(
            path, dtype=str, keep_default_na=False, sep=separator, encoding=encoding, skip_blank_lines=False,
            header=n_blank,
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        cure = "; in a spreadsheet, save it as CSV UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise ValueError(
            f"{path} cannot be read as a CSV file in UTF-8: {' '.join(str(error).split())}{cure}"
        ) from None
    if not isinstance(frame.index, pd.RangeIndex):  # pandas uses extra values at the left as row names
        raise ValueError(f"{path} has more values in a row than names in its first line; name every column")
    frame.index = pd.RangeIndex(n_blank + 2, n_blank + 2 + len(frame))
    frame = frame.fillna("")  # a row may have fewer values than names
    if is_marked:
        frame = frame.map(unguarded)
    blank = frame.apply(lambda column: column.str.strip() == "").all(axis=1)
    return frame[~blank] if blank.any() else frame


def _encoding(path: Path) -> tuple[str, bool]:
    """Return the encoding of a text file, and whether it begins with a byte order mark."""
    with path.open("rb") as file:
        beginning = file.read(len(BOM_UTF8))
    is_wide = beginning.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    return "utf-16" if is_wide else "utf-8-sig", is_wide or beginning == BOM_UTF8


def _beginning(path: Path, encoding: str) -> tuple[str, int]:
    """Return what separates the names in the first line that is not blank, and the number of blank lines before it."""
    with path.open(encoding=encoding, errors="replace") as file:
        n_blank = 0
        while (line := file.readline(1 << 16)) and not line.strip():
            n_blank += 1
    return max(",;\t", key=line.count), n_blank


def _inside(base: Path, path: str, name: str, allow_outside: bool, home: Path) -> str:
    start, from_home = ("" if at == Path() else at for at in (base, home))  # no "./": answers are joined on the paths
    full = os.path.join(start, path)
    if not os.path.lexists(full) and os.path.lexists(os.path.join(from_home, path)):
        full = os.path.join(from_home, path)
    if "\\" in path and not os.path.lexists(full):  # a list that was made on Windows
        other = os.path.join(start, path.replace("\\", "/"))
        full = other if os.path.lexists(other) else full
    root = os.path.realpath(base)
    if not allow_outside and os.path.commonpath([root, os.path.realpath(full)]) != root:
        raise ValueError(
            f"{name} names {path!r}, which lies outside {base}; move it there, or give LabeledImages.from_table "
            "another root, or allow_outside=True"
        )
    return full


def split_folders(root: str | Path) -> dict[str, Path]:
    """Return the split folders by ``train``, ``val`` and ``test``; empty if the subfolders are classes.

    Subfolders are splits if their names say so (in any case; also training, valid, validation, dev, testing), they
    contain folders themselves, and there are at least two of them or no other folder contains an image.

    Examples
    --------
    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("Train/cat", "valid/owl"):
    ...     (root / name).mkdir(parents=True)
    >>> [(split, folder.name) for split, folder in split_folders(root).items()]
    [('train', 'Train'), ('val', 'valid')]
    """
    folders = sorted(e for e in Path(root).iterdir() if not e.name.startswith(".") and e.is_dir())
    named = [e for e in folders if _split_of(e.name) and any(s.is_dir() for s in e.iterdir() if s.name[0] != ".")]
    if not named:
        return {}
    if len(named) == 1:
        others = (image for e in folders if e not in named for image in _walk(e, set(), LeftOut()))
        if next(others, None) is not None:
            return {}
    found: dict[str, Path] = {}
    for folder in sorted(named, key=lambda e: list(SPLIT_NAMES).index(_split_of(e.name))):
        split = _split_of(folder.name)
        found[folder.name if split in found else split] = folder
    return found


def _split_of(name: str) -> str:
    """Return the split that a folder name denotes; empty if it denotes none."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), "")


def _walk(folder: Path, seen: set[tuple[int, int]], left: LeftOut) -> Iterator[str]:
    """Yield the images below a folder; visit each folder once, despite links and loops."""
    waiting = [os.fspath(folder)]  # not recursive, since folders may be nested a thousand levels deep
    while waiting:
        current = waiting.pop()
        if (identity := _identity(current)) in seen:
            continue
        seen.add(identity)
        with os.scandir(current) as entries:
            visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        waiting += [entry.path for entry in reversed(visible) if _is_folder(entry)]
        for entry in visible:
            if _is_image(Path(entry.path)):
                yield entry.path
            elif os.path.isfile(entry.path):
                left.note(entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link to itself
            raise
        return False


def _is_image(path: Path) -> bool:
    # is_file is False for pipes, devices and broken links, so they are never opened.
    named = path.suffix.lower() in image_suffixes() or not path.suffix
    return named and path.is_file() and (path.suffix != "" or _begins_like_an_image(path))


def _warn_of_left_out(left: LeftOut, root: Path) -> None:
    if text := left.summary():
        warn(f"{root}: {text}")


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _warn_of_names(labels: list[str], empty: list[str], root: Path) -> None:
    """Warn of empty class folders, and of names that look like mistakes."""
    if empty:
        warn(f"skipped {counted(len(empty), 'folder')} without an image in {root}: {listed(empty)}")
    for twin, label in look_alikes(labels):
        warn(
            f"the class folders {twin!r} and {label!r} in {root} differ only in case, blanks or accents; they remain "
            "two classes, but if they are one, give them one name"
        )
    if len(labels) > 1 and all(_split_of(label) for label in labels):
        named = " and ".join(map(repr, labels))
        warn(f"the classes of {root} are called {named}; if these are splits, put a folder for each class into them")


def _warn_of_folders_within(found: dict[str, list[str]], root: Path) -> None:
    """Warn of class folders whose images are all in several folders within: these may be the classes instead."""
    within = {label: list(dict.fromkeys(map(os.path.dirname, paths))) for label, paths in found.items()}
    grouped = {
        label: places
        for label, places in within.items()
        if len(places) > 1 and not any(os.path.samefile(Path(place).parent, root) for place in places)
    }
    if grouped:
        label, places = next(iter(grouped.items()))
        cure = f"give {os.path.commonpath(places)}" if len(found) == 1 else "bring them together in one folder"
        others = f", and so are {len(grouped) - 1} more" if len(grouped) > 1 else ""
        named = listed([os.path.basename(place) for place in places])
        warn(
            f"{root}: {label!r} is one class, of {len(places)} folders ({named}){others}; "
            f"if these folders are the classes, {cure}"
        )


def _begins_like_an_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            beginning = file.read(12)
    except OSError:
        return False
    return beginning.startswith(_BEGINNINGS) or (beginning[:4], beginning[8:]) == (b"RIFF", b"WEBP")
