"""Input of commands: labelled images, a split of them, and image files. Nothing here loads torch."""

from __future__ import annotations

import argparse
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any

from fewshot.cli.terminal import quoted, say
from fewshot.data.images import LabeledImages, list_splits
from fewshot.data.opening import check_paths
from fewshot.data.packed import is_packed
from fewshot.data.scan import list_images, list_marked
from fewshot.errors import ImageDecodeError
from fewshot.persistence.artifact import is_artifact, refuse_others
from fewshot.persistence.suffixes import refuse_spreadsheet
from fewshot.utils.labels import label_of_text, unknown_mark
from fewshot.utils.text import counted, fold

#: Blanks that a label is typed or pasted with; other characters that cannot be seen are shown as escapes.
_BLANKS = " \xa0"


def choose_split(source: str, given: str | None, wanted: str | None = None) -> str | None:
    """Return the split to read: the one given, else the one that the command wants, else None for all data.

    Raises
    ------
    ValueError
        If the data have splits but not the wanted one, or the folders are splits and the command wants none.
    """
    splits = list_splits(source)
    if given is not None or not splits:
        return given
    if wanted in splits:
        return wanted
    is_table = not Path(source).is_dir() or is_packed(source)
    if wanted is None and is_table:
        return None
    which = f"has no split {wanted}; it has {', '.join(splits)}" if wanted else f"has the splits {', '.join(splits)}"
    raise ValueError(f"{source} {which}: choose one, such as --split {splits[0]}")


def open_data(
    source: str, options: argparse.Namespace, wanted: str | None = None, about: str = ""
) -> tuple[LabeledImages, str | None]:
    """Return labelled images and their split, and print their number, followed by `about`."""
    split = choose_split(source, options.split, wanted)
    data = _opened(source, split, options)
    place = f"the split {split} of {source}" if split else source
    say(f"{place}: {counted(len(data), 'image')} of {counted(len(data.classes), 'class')}{about}")
    return data, split


def _opened(source: str, split: str | None, options: argparse.Namespace) -> LabeledImages:
    """Return labelled images, from the columns of a table that the options name."""
    names = {name: getattr(options, name, None) for name in ("path_column", "label_column", "root")}
    given = {name: value for name, value in names.items() if value is not None}
    if not given:
        return LabeledImages.open(source, split)
    if Path(source).is_dir():
        raise ValueError(
            f"{source} is a folder, and --path-column, --label-column and --root are about tables; leave them out"
        )
    return LabeledImages.from_table(source, split=split, **given)


def _images_in(name: str, root: str | None) -> list[Any]:
    if Path(name).is_dir():
        return list_images(name)
    refuse_spreadsheet(name)
    return list_marked(name, root) if Path(name).suffix.lower() in (".csv", ".json") else [name]


def list_paths(given: list[str], skip_unreadable: bool = False, root: str | None = None) -> list[Any]:
    """Return the given image files, and the images in given folders, tables (of paths below `root`) and files of boxes.

    Raise for a file that is given and missing, which is a slip. One that a table names is treated like a damaged image.
    """
    found = [_images_in(name, root) for name in given]
    paths = [path for images in found for path in images]
    if not paths:
        state = "is a saved classifier" if is_artifact(given[0]) else "holds no image"
        raise ValueError(f"{given[0]} {state}; give image files, or folders or .zip archives of them")
    for error in check_paths([name for name, images in zip(given, found, strict=True) if images == [name]]):
        if not (skip_unreadable and Path(str(error.source)).exists()):
            raise ImageDecodeError(error.source, error.reason)
    return paths


def refuse_existing(options: argparse.Namespace) -> None:
    """Raise if --out holds a classifier and --force is not given, or anything else in any case."""
    if options.out is not None and is_artifact(options.out) and not options.force:
        raise ValueError(f"{options.out} already holds a classifier; replace it with --force, or choose another --out")
    if options.out is not None:
        refuse_others(options.out, "classifier")


def refuse_absent_images(absent: list[str], is_labelled: bool) -> None:
    """Raise as a command would that opens images of these names, which are not there."""
    if not is_labelled:
        list_paths(absent)
    elif not absent[0].lower().endswith(".npz"):  # embeddings, of which the error says how to make them
        LabeledImages.open(absent[0])


def refuse_of_labelled(options: argparse.Namespace, given: list[str]) -> None:
    """Raise if --split, or without a table --root, is given for images without labels, where it would mean nothing."""
    if options.split is not None:
        raise ValueError("--split chooses among labelled images, and these have no labels; leave it out")
    if options.root is not None and not any(name.lower().endswith(".csv") for name in given):
        raise ValueError(f"{given[0]} is no table (.csv), and --root is about the paths in tables; leave it out")


def as_label(model: Any, text: str) -> Any:
    """Convert a label from the command line to the label type of the classifier, in the Unicode form of its class.

    Blanks around a label that is no class are left out: nobody sees them in an answer.

    Raises
    ------
    ValueError
        If it cannot be one, or is blank.
    """
    label = label_of_text(text, model.classes_)
    if not isinstance(label, str) or (label.isascii() and label == label.strip(_BLANKS)):
        return label
    if label in model.classes_.tolist():
        return label
    if not (seen := label.strip(_BLANKS)):
        raise ValueError("the label is blank; expected the name of a class")
    return label_of_text(unicodedata.normalize("NFC", seen), model.classes_)


def beside(label: Any, classes: Any) -> str:
    """Return ", beside" the class whose name differs from a label only in case, blanks or accents, or nothing.

    Examples
    --------
    >>> import numpy as np
    >>> beside("grey  heron", np.array(["Grey heron", "owl"])), beside("owl", np.array(["owl"]))
    (", beside 'Grey heron'", '')
    """
    if not isinstance(label, str):
        return ""
    folded = fold(label)
    twin = next((other for other in classes.tolist() if other != label and fold(other) == folded), None)
    return "" if twin is None else f", beside {quoted(twin)}"


def take_unknown_label(model: Any, options: argparse.Namespace) -> None:
    """Set the parameter of --unknown-label, if it is given."""
    if (chosen := getattr(options, "unknown_label", None)) is not None:
        with suppress(ValueError):  # a string may stand for unknown images among numbers
            chosen = as_label(model, chosen)
        model.set_params(unknown_label=unknown_mark(chosen, model.classes_))
