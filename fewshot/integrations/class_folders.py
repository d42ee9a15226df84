"""Class folders: people label by moving links from folder to folder."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from fewshot.data.scan import list_images
from fewshot.errors import brief
from fewshot.integrations.labels import ImportedLabels, Task

#: The folder of images without a label; as in FiftyOne's directory trees.
UNLABELLED = "_unlabeled"
#: Longest name of a folder, in bytes.
LONGEST = 255


def write_class_folders(tasks: Sequence[Task], folder: str | Path, copy: bool = False) -> None:
    """Write a folder for each class, with a link to each image, or a copy.

    An image without a label lies in the folder of the model's answer, or else in ``_unlabeled``.

    Raises
    ------
    ValueError
        If a label cannot be the name of a folder, or the folder is not empty.
    """
    if os.path.isdir(folder) and os.listdir(folder):
        raise ValueError(f"{brief(folder)} is not empty; choose another folder")
    names = [_folder_of(task) for task in tasks]  # raises before anything is written
    for task, name in zip(tasks, names, strict=True):
        place = Path(folder) / name
        place.mkdir(parents=True, exist_ok=True)
        target = _free(place, os.path.basename(task.path))
        if copy:
            shutil.copyfile(task.path, target)
        else:
            target.symlink_to(os.path.abspath(task.path))


def _folder_of(task: Task) -> str:
    label = task.answer if task.label is None else task.label
    name = UNLABELLED if label is None else str(label)
    bad = set(name) & {"/", "\\", "\0"} or name != name.strip() or name.startswith(".") or not name
    if bad or len(os.fsencode(name)) > LONGEST:
        raise ValueError(f"the label {brief(repr(name))} cannot be the name of a folder; write a table instead")
    return name


def _free(place: Path, name: str) -> Path:
    """Return a path of this name that is not taken."""
    stem, suffix = os.path.splitext(name)
    target, n = place / name, 1
    while os.path.lexists(target):
        n += 1
        target = place / f"{stem}-{n}{suffix}"
    return target


def read_class_folders(folder: str | Path) -> ImportedLabels:
    """Return the labels of images in class folders; a link stands for the image that it leads to."""
    found = ImportedLabels()
    for path in list_images(folder):
        label = unicodedata.normalize("NFC", Path(path).relative_to(folder).parts[0])  # as in scan_folder
        image = os.path.realpath(path) if os.path.islink(path) else path
        if label == UNLABELLED or Path(path).parent == Path(folder):
            found.unlabelled.append(image)
        else:
            found.labelled.append((image, label))
    return found
