"""`annotate`: from a stream of images to their vectors and labels."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Set, Sized
from dataclasses import dataclass
from itertools import count, islice, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from fewshot.classifiers.few_shot import FewShotClassifier
from fewshot.data.opening import is_data_url
from fewshot.embedding.batches import Embedded
from fewshot.images.model import FewShotModel
from fewshot.retrieval.stores.records import Record
from fewshot.utils.labels import plain_label

#: Images that are embedded at a time: as many as keep decoders and network busy.
CHUNK = 256


@dataclass(frozen=True, eq=False)
class Annotation:
    """What is known of an image.

    Attributes
    ----------
    id : str
        As it was given; else its path or text, or its number in the stream.
    vector : ndarray of shape (d,), float32, or None
        Its embedding; None where it could not be read.
    label : object
        Its class; the unknown label where it is too far from all, None where it could not be read.
    probability : float
        Of the likeliest class; 0 where it could not be read.
    unknown : bool
        Whether it is too far from every class; see `FewShotModel.calibrate`.
    nearest : object
        The class of the nearest key, such as a prototype; None for learners without.
    similarity : float
        To that key; NaN where there is none.
    error : str
        Why it could not be read; empty where it could.
    embedder : str
        Fingerprint of the embedder.
    """

    id: str
    vector: NDArray[np.float32] | None
    label: Any
    probability: float
    unknown: bool
    nearest: Any
    similarity: float
    error: str = ""
    embedder: str = ""

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
        return Record(self.id, self.vector, self.label, payload, self.embedder)


def annotate(
    model: FewShotModel, items: Iterable[Any], *, ids: Iterable[str] | None = None, chunk: int = CHUNK
) -> Iterator[Annotation]:
    """Yield vector and label of each image, in their order; an image that cannot be read is told and passed over.

    Images are taken from the stream `chunk` at a time, so memory does not grow with their number.

    Parameters
    ----------
    model : FewShotModel
        A fitted classifier.
    items : iterable of images
        Paths, bytes, PIL images or arrays, as `Embedder.transform` takes them; a generator will do.
    ids : iterable of str, optional
        What each is called; by default its path, or its number in the stream.
    chunk : int, default=256
        Images at a time.

    Raises
    ------
    ValueError
        If `chunk` is below 1, or there is not one id for each image.
    TypeError
        If `items` is one image, or nothing that holds images.

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
    check_is_fitted(model)
    # Of a generator, and whatever else has no length, nothing is known before it is taken.
    if not isinstance(items, Iterable) or (isinstance(items, Sized) and not isinstance(items, Set)):
        items = model.embedder_.as_items(items)
    stream = map(_named, count(), items) if ids is None else _paired(ids, items)
    while some := list(islice(stream, chunk)):
        yield from _annotate(model, [id for id, _ in some], [item for _, item in some])


def _paired(ids: Iterable[str], items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    missing: Any = object()
    for id, item in zip_longest(ids, items, fillvalue=missing):
        if id is missing or item is missing:
            raise ValueError("there are not as many ids as images; give one for each, or none")
        if not isinstance(name := plain_label(id), str):
            raise TypeError(f"the id {id!r} is a {type(id).__name__}; expected text")
        yield name, item


def _named(number: int, item: Any) -> tuple[str, Any]:
    is_named = isinstance(item, (str, os.PathLike)) and not is_data_url(item)
    return os.fspath(item) if is_named else str(number), item


def _annotate(model: FewShotModel, names: list[str], items: list[Any]) -> list[Annotation]:
    now = copy.copy(model)  # of this moment, whatever is learned while images are embedded
    embedded, classifier = now.embed_queries(items, "unknown"), now.answering("unknown")
    return list(_annotations(classifier, embedded, now.embedder_.fingerprint, names))


def _annotations(
    classifier: FewShotClassifier, embedded: Embedded, fingerprint: str, names: list[str]
) -> Iterator[Annotation]:
    reasons = {error.index: error.reason for error in embedded.errors}
    read = [i for i in range(len(names)) if i not in reasons]
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
            yield Annotation(name, None, None, 0.0, False, None, np.nan, reasons[i], fingerprint)
        else:
            label, share, key, close = found[i]
            vector = embedded.embeddings[i]
            yield Annotation(name, vector, label, share, label not in known, key, close, "", fingerprint)
