"""`annotate`: from a stream of images to their vectors and labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.model.image_classifier import FewShotImageClassifier
from fewshot.stores.records import Record

#: Images that are embedded at a time: as many as keep decoders and network busy.
CHUNK = 256


@dataclass(frozen=True, eq=False)
class Annotation:
    """What is known of an image.

    Attributes
    ----------
    id : str
        Its path, or its number in the stream.
    vector : ndarray of shape (d,), float32, or None
        Its embedding; None where it could not be read.
    label : object
        Its class; the unknown label where it is too far from all, None where it could not be read.
    probability : float
        Of the likeliest class; 0 where it could not be read.
    unknown : bool
        Whether it is too far from every class; see `FewShotImageClassifier.calibrate`.
    nearest : object
        The class of the nearest key, such as a prototype; None for learners without.
    similarity : float
        To that key; NaN where there is none.
    error : str
        Why it could not be read; empty where it could.
    """

    id: str
    vector: NDArray[np.float32] | None
    label: Any
    probability: float
    unknown: bool
    nearest: Any
    similarity: float
    error: str = ""

    def record(self) -> Record:
        """Return what a `Store` keeps of it.

        Raises
        ------
        ValueError
            If the image could not be read.
        """
        if self.vector is None:
            raise ValueError(f"{self.id} could not be read ({self.error}), so there is nothing to store; leave it out")
        payload = {"probability": self.probability, "unknown": self.unknown, "nearest": self.nearest}
        return Record(self.id, self.vector, self.label, payload)


def annotate(model: FewShotImageClassifier, items: Iterable[Any], *, chunk: int = CHUNK) -> Iterator[Annotation]:
    """Yield vector and label of each image, in their order; an image that cannot be read is told and passed over.

    Images are taken from the stream `chunk` at a time, so memory does not grow with their number.

    Parameters
    ----------
    model : FewShotImageClassifier
        A fitted classifier.
    items : iterable of images
        Paths, bytes, PIL images or arrays, as `Embedder.transform` takes them; a generator will do.
    chunk : int, default=256
        Images at a time.

    Raises
    ------
    ValueError
        If `chunk` is below 1.

    Examples
    --------
    >>> from fewshot import Embedder, FewShotImageClassifier, annotate, digits
    >>> data = digits()
    >>> model = FewShotImageClassifier(Embedder("conv4", weights="random", img_size=28))
    >>> model = model.fit(data.images[:50], data.labels[:50])
    >>> [found.id for found in annotate(model, (image for image in data.images[50:53]))]
    ['0', '1', '2']
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; expected at least 1")
    stream, first = iter(items), 0
    while some := list(islice(stream, chunk)):
        yield from _annotate(model, some, first)
        first += len(some)


def _annotate(model: FewShotImageClassifier, items: list[Any], first: int) -> Iterator[Annotation]:
    names = [os.fspath(x) if isinstance(x, (str, os.PathLike)) else str(first + i) for i, x in enumerate(items)]
    classifier, embedded = model.answering("unknown"), model.embed_queries(items, "unknown")
    reasons = {error.index: error.reason for error in embedded.errors}
    read = [i for i in range(len(items)) if i not in reasons]
    x = embedded.embeddings[read]
    known = set(classifier.classes_.tolist())
    found = {}
    if read:
        labels, shares = classifier.predict(x).tolist(), classifier.predict_proba(x).max(1).tolist()
        nearest: list[Any] = [None] * len(read)
        similarity = [np.nan] * len(read)
        if classifier.model_.snapshot is not None:
            near, close = classifier.nearest(x, 1)
            nearest, similarity = near[:, 0].tolist(), close[:, 0].tolist()
        found = dict(zip(read, zip(labels, shares, nearest, similarity, strict=True), strict=True))
    for i, name in enumerate(names):
        if i in reasons:
            yield Annotation(name, None, None, 0.0, False, None, np.nan, reasons[i])
        else:
            label, share, key, close = found[i]
            yield Annotation(name, embedded.embeddings[i], label, share, label not in known, key, close)
