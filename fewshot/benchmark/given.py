"""Data sets that are embeddings already: sentences, sounds, or images that another program embedded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from fewshot.benchmark.grid_file import GIVEN, Backbone
from fewshot.data.images import LabeledImages
from fewshot.persistence.content import errors_of_file
from fewshot.persistence.files import open_regular
from fewshot.utils.labels import as_labels
from fewshot.utils.values import check_values

#: How such a file is written.
CURE = "write it by np.savez(path, embeddings=X, labels=y), X of shape (n, d) and y of n strings or integers"


@dataclass(frozen=True, eq=False)
class GivenEmbeddings(LabeledImages):
    """Embeddings in the place of images, each with its label.

    Parameters
    ----------
    images : array of shape (n, d)
        The embeddings; kept as float32.
    labels : array-like of shape (n,)
        The class of each.
    network : str
        What made them, for tables.

    Raises
    ------
    ValueError
        If the embeddings are not n rows of finite numbers, or the labels not one for each.

    Examples
    --------
    >>> data = GivenEmbeddings(np.eye(3), ["billing", "login", "billing"], network="all-MiniLM-L6-v2")
    >>> data.select([0, 2]).labels.tolist(), data.images.dtype.name
    (['billing', 'billing'], 'float32')
    """

    network: str = GIVEN

    def __post_init__(self) -> None:
        labels = as_labels(self.labels, name="the list of labels")
        object.__setattr__(self, "images", _as_embeddings(np.asarray(self.images), len(labels)))
        object.__setattr__(self, "labels", labels)

    @property
    def is_decoded(self) -> bool:
        """True: there is no file to read."""
        return True

    @property
    def backbone(self) -> Backbone:
        """What stands for their network in a grid."""
        return Backbone(GIVEN, self.network)


def read_given(path: str) -> GivenEmbeddings:
    """Read the arrays ``embeddings`` (n, d) and ``labels`` (n,) of a file; also ``network``, its name, if there is one.

    Raises
    ------
    ArtifactError
        If the file is damaged or not of NumPy, an array is missing or wrong, or one says which split each row is of:
        classes that something was trained on would be measured among the others.
    ValueError
        If there is no such file.
    OSError
        If it cannot be read.
    """
    if not Path(path).exists():
        raise ValueError(f"{path} does not exist; {CURE}")
    with errors_of_file(path, CURE), open_regular(path, follow=True) as file:
        if not is_zipfile(file):
            raise ValueError("it is no .npz file")
        file.seek(0)
        found = np.load(file, allow_pickle=False)
        if missing := [name for name in ("embeddings", "labels") if name not in found.files]:
            raise ValueError(f"it has no array {missing[0]!r}, but {', '.join(found.files)}")
        if split := next((name for name in found.files if name.lower() in ("split", "splits")), None):
            raise ValueError(
                f"it has an array {split!r}, but all rows of a file are measured; keep those of one split, "
                f"X[{split} == 'test'] and y[{split} == 'test']"
            )
        network = str(found["network"]) if "network" in found.files else GIVEN
        return GivenEmbeddings(_array(found, "embeddings"), _array(found, "labels"), network)


def _array(found: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    try:
        return found[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        kind = "float" if name == "embeddings" else "str"
        raise ValueError(
            f"the array {name!r} holds Python objects, as columns of pandas do; cast it with .astype({kind})"
        ) from error


def _as_embeddings(X: NDArray[np.generic], n: int) -> NDArray[np.float32]:
    if X.dtype.kind not in "fiu" or X.ndim != 2 or not X.size:
        raise ValueError(f"the embeddings have shape {X.shape} and dtype {X.dtype}; expected numbers (n, d)")
    if len(X) != n:
        raise ValueError(f"there are {len(X)} embeddings and {n} labels; expected one label for each")
    with np.errstate(over="ignore"):  # what overflows is refused as infinity
        X = X.astype(np.float32)
    return check_values(X, "the embeddings", "the array of embeddings")
