"""`annotate`: turn a stream of images into embeddings and labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Set, Sized
from dataclasses import replace
from itertools import count, islice, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.opening import as_sequence, is_data_url
from fewshot.images.learned import Learned
from fewshot.images.model import FewShotModel
from fewshot.retrieval.annotation import Annotation
from fewshot.retrieval.remote import RemoteModel
from fewshot.utils.labels import plain_label

#: Images embedded at a time: enough to keep decoders and network busy.
CHUNK = 256


def annotate(
    model: FewShotModel | RemoteModel, items: Iterable[Any], *, ids: Iterable[str] | None = None, chunk: int = CHUNK
) -> Iterator[Annotation]:
    """Yield embedding and label of each image, in order; an image that cannot be read gets an error instead.

    The stream is consumed `chunk` images at a time, so memory does not grow with its length.

    Parameters
    ----------
    model : FewShotModel or RemoteModel
        A fitted model, or the classifier of a running service.
    items : iterable of images
        Paths, bytes, PIL images or arrays, as `Embedder.transform` takes them; may be a generator.
    ids : iterable of str, optional
        Names of the images; by default paths, or numbers in the stream.
    chunk : int, default=256
        Images at a time.

    Raises
    ------
    ValueError
        If `chunk` is below 1, or the numbers of ids and images differ.
    ServiceError
        If a service cannot be reached, or refuses.
    TypeError
        If `items` is a single image, or not a collection of images.

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
    as_items = as_sequence if isinstance(model, RemoteModel) else model.embedder_.as_items
    # A generator, or anything else without a length, cannot be checked before it is consumed.
    if not isinstance(items, Iterable) or (isinstance(items, Sized) and not isinstance(items, Set)):
        items = as_items(items)
    stream = map(_numbered, count(), items) if ids is None else _paired(ids, items)
    while part := list(islice(stream, chunk)):
        names, some = [id for id, _ in part], [item for _, item in part]
        if isinstance(model, RemoteModel):
            yield from _annotate_there(model, names, some)
        else:
            yield from _annotate(model, names, some)


def _paired(ids: Iterable[str], items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    missing: Any = object()
    for id, item in zip_longest(ids, items, fillvalue=missing):
        if id is missing or item is missing:
            raise ValueError("there are not as many ids as images; give one for each, or none")
        if not isinstance(name := plain_label(id), str):
            raise TypeError(f"the id {id!r} is a {type(id).__name__}; expected text")
        yield name, item


def _numbered(number: int, item: Any) -> tuple[str, Any]:
    is_named = isinstance(item, (str, os.PathLike)) and not is_data_url(item)
    return os.fspath(item) if is_named else str(number), item


def _annotate_there(model: RemoteModel, names: list[str], items: list[Any]) -> Iterator[Annotation]:
    for name, one in zip(names, model.answers(items), strict=True):
        yield replace(one, id=name)


def _annotate(model: FewShotModel, names: list[str], items: list[Any]) -> Iterator[Annotation]:
    now = model.snapshot("unknown")
    embedded, fingerprint = now.embed(items), now.embedder.fingerprint
    reasons = {error.index: error.reason for error in embedded.errors}
    read = [i for i in range(len(names)) if i not in reasons]
    answers = annotate_vectors(now, [names[i] for i in read], embedded.embeddings[read])
    for i, name in enumerate(names):
        if i in reasons:
            yield Annotation(name, None, None, 0.0, False, None, np.nan, reasons[i], fingerprint)
        else:
            yield next(answers)


def annotate_vectors(now: Learned, names: Sequence[str], x: NDArray[np.float32]) -> Iterator[Annotation]:
    """Yield what a learned state says of embeddings (n, d) of its embedder."""
    classifier, fingerprint = now.classifier, now.embedder.fingerprint
    known, (best, shares) = set(classifier.classes_.tolist()), classifier.predict_top(x, 1)
    nearest, similarity = [None] * len(x), [np.nan] * len(x)
    if len(x) and classifier.model_.snapshot is not None:
        nearest, similarity = (column[:, 0].tolist() for column in classifier.nearest(x, 1))
    columns = classifier.predict(x).tolist(), best[:, 0].tolist(), shares[:, 0].tolist(), nearest, similarity
    for name, vector, label, likeliest, share, key, close in zip(names, x, *columns, strict=True):
        is_unknown = label not in known
        yield Annotation(name, vector, label, share, is_unknown, key, close, "", fingerprint, likeliest)
