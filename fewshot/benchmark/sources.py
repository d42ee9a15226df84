"""The images to measure on, free of duplicates and of leaks from other splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.benchmark.given import GivenEmbeddings, read_given
from fewshot.benchmark.grid_file import Backbone, Dataset, is_given
from fewshot.data.digest import hash_contents
from fewshot.data.digits import digits
from fewshot.data.glyphs import glyphs
from fewshot.data.images import LabeledImages, list_splits
from fewshot.data.opening import reading
from fewshot.errors import ImageDecodeError, LeakError
from fewshot.utils.text import counted

#: Data sets that need no file, and their splits.
BUILT_IN: dict[str, tuple[Callable[..., LabeledImages], tuple[str, ...]]] = {
    "digits": (lambda split: digits(), ()),
    "glyphs": (glyphs, ("train", "val", "test")),
}
#: How many leaked classes or images a message names.
EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class Measured:
    """Images to measure on.

    Attributes
    ----------
    dataset : Dataset
        Their source.
    data : LabeledImages
        The images of its split, without duplicates.
    contents : frozenset of str
        The SHA-256 of each image.
    digest : str
        SHA-256 of all contents and labels, in order.
    dropped : tuple of str
        Images left out because an equal one comes earlier.
    base : LabeledImages or None
        The images of the base split.
    base_digest : str
        The `digest` of the base split; empty without one.
    """

    dataset: Dataset
    data: LabeledImages
    contents: frozenset[str]
    digest: str
    dropped: tuple[str, ...]
    base: LabeledImages | None
    base_digest: str = ""

    @property
    def is_given(self) -> bool:
        """Whether the data are embeddings, not images."""
        return isinstance(self.data, GivenEmbeddings)


def measured(dataset: Dataset, wants_base: bool) -> Measured:
    """Open the images of a data set, drop duplicates, and compare the rest with its other splits.

    Raises
    ------
    LeakError
        If a class or an image of the split is also in another split.
    ValueError
        If the split does not exist, or a base split is wanted and there is none.
    """
    splits = splits_of(dataset.source)
    split = dataset.split if splits else None
    found = open_images(dataset.source, split)
    hashes = contents_of(found)
    first: dict[str, int] = {}
    keep = np.array([first.setdefault(content, i) == i for i, content in enumerate(hashes)])
    data = found if keep.all() else found.select(keep)
    contents = frozenset(first)
    for other in splits:
        if other != split:
            seen, where = open_images(dataset.source, other), f"the split {other!r} of {dataset.name}"
            refuse_shared(dataset.name, data.classes.tolist(), contents, seen, contents_of(seen), where)
    dropped = tuple(_name(found, i) for i in np.flatnonzero(~keep).tolist())
    digest, base, base_digest = _digest(list(first), data), None, ""
    if wants_base:
        if dataset.base not in splits or dataset.base == split:
            needs = f"center = 'base' needs a split {dataset.base!r} of {dataset.name}"
            if not splits:
                raise ValueError(f"{needs}, which has no splits; leave that learner out")
            raise ValueError(f"{needs} apart from {split!r}; name one with base = ..., or leave that learner out")
        base = open_images(dataset.source, dataset.base)
        base_digest = _digest(contents_of(base), base)
    return Measured(dataset, data, contents, digest, dropped, base, base_digest)


def refuse_shared(
    name: str, classes: Sequence[Any], contents: frozenset[str], other: LabeledImages, hashes: Sequence[str], where: str
) -> None:
    """Raise if `other`, whose images have these `hashes`, shares a class or an image with the data to measure on.

    Raises
    ------
    LeakError
        The message names examples.
    """
    if shared := sorted(set(classes) & set(other.classes.tolist()), key=str):
        raise LeakError(
            f"found {counted(len(shared), 'class')} of {name} also in {where}, "
            f"e.g. {', '.join(map(str, shared[:EXAMPLES]))}; "
            "split by class, so that the benchmark measures how new classes are learned"
        )
    twice = [i for i, content in enumerate(hashes) if content in contents]
    if twice:
        raise LeakError(
            f"found {counted(len(twice), 'image')} of {name} also in {where}, "
            f"e.g. {', '.join(_name(other, i) for i in twice[:EXAMPLES])}; "
            "remove them from one of the two, as fewshot data does"
        )


def given_backbones(data: Sequence[Measured]) -> list[Backbone]:
    """Return what stands for the networks of the data that are embeddings."""
    return [one.data.backbone for one in data if isinstance(one.data, GivenEmbeddings)]


def splits_of(source: str) -> list[str]:
    """Return the splits of a source; none if it is measured as a whole."""
    if is_given(source):
        return []
    return list(BUILT_IN[source][1]) if source in BUILT_IN else list_splits(source)


def open_images(source: str, split: str | None) -> LabeledImages:
    """Return the images of a split, or the embeddings of a file."""
    if is_given(source):
        return read_given(source)
    opened = BUILT_IN[source][0] if source in BUILT_IN else partial(LabeledImages.open, source)
    return opened(split)


def contents_of(data: LabeledImages) -> list[str]:
    """Return the SHA-256 of each image: of its pixels if decoded, else of its file."""
    return hash_contents(image.tobytes() if data.is_decoded else _read(Path(str(image))) for image in data.images)


def _digest(contents: Sequence[str], data: LabeledImages) -> str:
    lines = (f"{content} {label!r}\n" for content, label in zip(contents, data.labels.tolist(), strict=True))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _read(path: Path) -> bytes:
    try:
        with reading(str(path)):
            return path.read_bytes()
    except ImageDecodeError as error:
        reason = error.reason.removeprefix("cannot be decoded: ")
        raise ImageDecodeError(path, f"{reason}; restore the file, or remove it from the data") from None


def _name(data: LabeledImages, i: int) -> str:
    return f"image {i} (of {data.labels[i]!s})" if data.is_decoded else str(data.images[i])
