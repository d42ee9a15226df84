"""Labels from and for the tools that people label with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from fewshot.data.images import LabeledImages
from fewshot.data.scan import list_images
from fewshot.data.typed_labels import clean_label
from fewshot.errors import brief
from fewshot.persistence.files import check_file
from fewshot.utils.text import counted, listed

if TYPE_CHECKING:  # it loads torch
    from fewshot.images.model import FewShotModel

#: Beginnings of addresses that name no file of this machine.
_REMOTE = ("http://", "https://", "s3://", "gs://", "azure-blob://", "data:")
#: Addresses of Label Studio: files of a folder that it serves, and uploaded ones, whose names begin with a digest.
LOCAL, UPLOAD = "/data/local-files/", "/data/upload/"


@dataclass(frozen=True)
class Task:
    """An image to label, or to check.

    Attributes
    ----------
    path : str
        The image.
    label : object
        Its label; None if it has none.
    answer : object
        What a model answers; None if it was not asked, or did not know.
    probability : float
        Probability of that answer.
    is_file : bool
        Whether `path` is a file, rather than the name of an image that was learned from elsewhere.
    """

    path: str
    label: Any = None
    answer: Any = None
    probability: float = 0.0
    is_file: bool = True


@dataclass(frozen=True, eq=False)
class ImportedLabels:
    """What people have labelled; each image is in one of the three lists.

    Attributes
    ----------
    labelled : list of (path, label)
        Images with one label; labels are text.
    unlabelled : list of str
        Images without a label, or skipped by all who saw them.
    problems : list of (image, reason)
        Images that cannot be used: several labels, disagreement, no such file.
    """

    labelled: list[tuple[str, str]] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def __repr__(self) -> str:
        return (
            f"ImportedLabels({len(self.labelled)} labelled, {len(self.unlabelled)} not, {len(self.problems)} problems)"
        )

    @property
    def data(self) -> LabeledImages:
        """The labelled images, for `fit` and `partial_fit`.

        Raises
        ------
        ValueError
            If there are none.
        """
        if not self.labelled:
            raise ValueError("no image has a usable label; label some first")
        paths, labels = np.array(self.labelled, dtype=object).T
        return LabeledImages(paths, labels)


def answered(model: FewShotModel, tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks with the answers of a model; an image that cannot be read has none."""
    now = model.snapshot("unknown")
    x = now.embed([task.path for task in tasks]).embeddings
    answers, shares = now.classifier.predict(x).tolist(), now.classifier.predict_proba(x).max(1).tolist()
    known = set(now.classifier.classes_.tolist())
    return [
        Task(task.path, task.label, answer, share) if answer in known else Task(task.path, task.label)
        for task, answer, share in zip(tasks, answers, shares, strict=True)
    ]


def taught(model: FewShotModel) -> list[Task]:
    """Return the kept support of a model with its labels; what is no file, as seen from the working directory, says so.

    Raises
    ------
    ValueError
        If support was not kept.
    """
    if model.support_ is None:
        raise ValueError("support was not kept, so there are no labels to export; give images")
    named = zip(model.support_.ids, model.support_.labels.tolist(), strict=True)
    return [Task(name, label, is_file=os.path.isfile(name)) for name, label in named]


def require_files(tasks: Sequence[Task], cure: str) -> None:
    """Raise if images are no files here.

    Parameters
    ----------
    tasks : sequence of Task
        The images.
    cure : str
        The end of the sentence: what to do if they cannot be found again, as those that were taught on a page.

    Raises
    ------
    ValueError
        If an image is no file.
    """
    if gone := [task.path for task in tasks if not task.is_file]:
        raise ValueError(
            f"{brief(gone[0])} was learned, but is not a file here ({len(gone)} of {counted(len(tasks), 'image')} are "
            f"not); work in the folder where they were learned, or {cure}"
        )


def gathered(rows: Iterable[tuple[Sequence[str], Sequence[str], str]], *folders: Path) -> ImportedLabels:
    """Return the labels of rows, without blanks around them and in one Unicode form.

    Parameters
    ----------
    rows : iterable of (addresses, labels, problem)
        The names under which an image may be found, the best first; its labels; and why it cannot be used, or "".
        Rows of one image are brought together.
    *folders : path
        Where relative addresses start, the best first.
    """
    found, finder = ImportedLabels(), Finder(*folders)
    by_image: dict[str, tuple[Sequence[str], set[str], list[str]]] = {}
    for addresses, labels, problem in rows:
        if not any(addresses):
            found.problems.append(("a row", "it names no image"))
            continue
        _, known, problems = by_image.setdefault(next(filter(None, addresses)), (addresses, set(), []))
        known.update(filter(None, map(clean_label, labels)))
        problems += [problem] if problem else []
    for name, (addresses, known, problems) in by_image.items():
        if len(known) > 1:
            problems.append(f"it has several labels: {listed(sorted(known))}")
        if problems:
            found.problems.append((name, problems[0]))
        elif not known:
            found.unlabelled.append(name)
        else:
            try:
                found.labelled.append((finder.find(addresses), known.pop()))
            except ValueError as error:
                found.problems.append((name, str(error)))
    return found


class Finder:
    """Find the files that labelling tools name.

    Parameters
    ----------
    folder : path
        Where relative names start, and where uploaded images are looked for.
    *others : path
        Where relative names start if there is no such file in `folder`.
    """

    def __init__(self, folder: Path, *others: Path) -> None:
        self.folder, self.folders = folder, (folder, *others)
        self._by_name: dict[str, list[str]] | None = None

    def find(self, addresses: Sequence[str]) -> str:
        """Return the path of the first address that is a file; raise ValueError if none is."""
        for address in filter(None, addresses):
            for path in self._candidates(address):
                if os.path.isfile(path):
                    return path
        name = next(filter(None, addresses))
        if name.startswith(_REMOTE):
            raise ValueError("it is not a file of this machine; download the images, and name their folder")
        if name.startswith(UPLOAD):
            raise ValueError(f"no image below {_shown(self.folder)}, or several, have its name; give another folder")
        if os.path.isabs(name) and not name.startswith(LOCAL):
            raise ValueError("there is no such file; restore it, or correct its path")
        places = " or ".join(dict.fromkeys(map(_shown, self.folders)))
        raise ValueError(
            f"there is no such file in {places}; give the folder where its path begins as images=FOLDER, or work there"
        )

    def _candidates(self, address: str) -> Iterator[str]:
        if address.startswith(_REMOTE) and not (address := urlsplit(address)._replace(scheme="", netloc="").geturl()):
            return
        if address.startswith(LOCAL):
            path = parse_qs(urlsplit(address).query).get("d", [""])[0]
            yield os.path.join(self.folder, path)
            yield os.path.join(os.sep, path)
        elif address.startswith(UPLOAD):
            name = os.path.basename(unquote(address))
            digest, _, rest = name.partition("-")
            same = [*self._named(name), *(self._named(rest) if len(digest) == 8 else [])]
            yield from same if len(same) == 1 else []
        else:
            names = dict.fromkeys((address, address.replace("\\", "/")))  # the second of a list made on Windows
            yield from (os.fspath(folder / name) for name in names for folder in self.folders)

    def _named(self, name: str) -> list[str]:
        if self._by_name is None:
            self._by_name = {}
            for path in list_images(self.folder) if self.folder.is_dir() else []:
                self._by_name.setdefault(os.path.basename(path), []).append(path)
        return self._by_name.get(name, [])


def _shown(folder: Path) -> str:
    return "the working directory" if folder == Path() else str(folder)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError
        If the file does not exist or is not JSON.
    """
    check_file(path, "a JSON file")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{brief(path)} cannot be read as JSON: {' '.join(str(error).split())}") from None


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping, or an empty one for anything else: files come from strangers."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Any]:
    """Return a list, or an empty one for anything else."""
    return value if isinstance(value, list) else []
