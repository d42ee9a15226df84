"""`retrieve`: find the records of a store that are similar to an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot.data.opening import describe
from fewshot.errors import ImageDecodeError
from fewshot.images.model import FewShotModel
from fewshot.retrieval.remote import MOST_CLASSES, RemoteModel
from fewshot.retrieval.stores.base import Store
from fewshot.retrieval.stores.records import Match, accepts, check_where
from fewshot.utils.labels import unicode_forms
from fewshot.utils.text import as_unicode


@dataclass(frozen=True)
class Retrieved(Match):
    """A record that was retrieved for an image.

    Attributes
    ----------
    probability : float or None
        The model's probability that the image has the record's label; None if the model does not know the label. Of a
        `RemoteModel`, that of the 1000 likeliest classes.
    """

    probability: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which JSON can hold; `probability` is called ``query_probability``, as in `facts`."""
        found = super().to_dict()
        return {**found, "query_probability": found.pop("probability")}

    def facts(self) -> dict[str, Any]:
        """Return everything but the id as the metadata of a document.

        `probability`, which is of the query, is called ``query_probability``: the payload may hold the record's own.
        ``label``, ``similarity`` and it take precedence over values of the same names in the payload.
        """
        own = {"label": self.label, "similarity": self.similarity, "query_probability": self.probability}
        return {**self.payload, **own}


def retrieve(
    model: FewShotModel | RemoteModel,
    store: Store,
    items: Any,
    k: int = 10,
    *,
    where: Mapping[str, Any] | None = None,
    by_label: bool = False,
) -> list[list[Retrieved]]:
    """Return the nearest records of each image.

    Parameters
    ----------
    model : FewShotModel or RemoteModel
        Its embedder must have computed the vectors of the store.
    store : Store
        Where to search.
    items : collection of n images
        Queries.
    k : int, default=10
        Records per query.
    where : mapping, optional
        Only records with these values; see `Store.search`.
    by_label : bool, default=False
        Whether to classify each query first and search only its class; an unknown query searches all. A label in
        `where` must match as well. A class that was learned after the store was filled is found after `reclassify`.

    Returns
    -------
    list of n lists
        Nearest first; empty for an image that could not be read, unless the model has ``on_error="raise"`` or is a
        `RemoteModel`.

    Raises
    ------
    StoreError
        If another embedder computed the vectors of the store, or the store cannot be reached.
    ServiceError
        If a service cannot be reached, or refuses.
    ImageDecodeError
        If an image cannot be read and the model has ``on_error="raise"`` or is a `RemoteModel`.

    Examples
    --------
    >>> from fewshot import Embedder, FaissStore, FewShotImageClassifier, annotate, digits, retrieve
    >>> data, embedder = digits(), Embedder("conv4", weights="random", img_size=28)
    >>> model = FewShotImageClassifier(embedder).fit(data.images[:50], data.labels[:50])
    >>> store = FaissStore("cosine", embedder.fingerprint, d=64)
    >>> store.add(found.record() for found in annotate(model, data.images[50:80]))
    30
    >>> retrieve(model, store, data.images[55:56], k=2)[0][0].id
    '5'
    """
    _, found, _ = classify_and_retrieve(model, store, items, k, where, by_label)
    return found


class _Asked(NamedTuple):
    """What a model says of n queries, of which m could be read."""

    #: Answers to all n.
    labels: list[Any]
    errors: list[ImageDecodeError]
    #: Places of those that could be read, their embeddings (m, d), their classes or None, and all probabilities.
    read: list[int]
    x: NDArray[np.float32]
    classes: list[Any]
    shares: Callable[[int], dict[Any, float]]


def classify_and_retrieve(
    model: FewShotModel | RemoteModel,
    store: Store,
    items: Any,
    k: int,
    where: Mapping[str, Any] | None,
    by_label: bool,
) -> tuple[list[Any], list[list[Retrieved]], list[ImageDecodeError]]:
    """Return the answers of `predict` and `retrieve`, embedding each image once, and the errors of unreadable ones."""
    conditions = check_where(where)
    asked = _ask_there(model, store, items) if isinstance(model, RemoteModel) else _ask(model, store, items)
    found: list[list[Retrieved]] = [[] for _ in asked.labels]
    searches: dict[Any, list[int]] = {}
    for place, label in enumerate(asked.classes):
        searches.setdefault(label if by_label else None, []).append(place)
    for label, places in searches.items():  # one search per class, not per query
        # Empty if `where` asks for other labels.
        both = [label] if accepts(conditions.get("label", [label]), "label", label) else []
        only = conditions if label is None else {**conditions, "label": both}
        for place, matches in zip(places, store.search(asked.x[places], k, only), strict=True):
            known = asked.shares(place)
            found[asked.read[place]] = [
                Retrieved(m.id, m.label, m.similarity, m.payload, _share_of(m.label, known)) for m in matches
            ]
    return asked.labels, found, asked.errors


def _share_of(label: Any, shares: Mapping[Any, float]) -> float | None:
    """Return the probability of the class that a label names, in any Unicode form; None if there is none."""
    forms = unicode_forms(label) if isinstance(label, str) else [label]
    return next((shares[form] for form in forms if form in shares), None)


def _ask(model: FewShotModel, store: Store, items: Any) -> _Asked:
    now = model.snapshot()
    classifier, embedder = now.classifier, now.embedder
    store.check_embedder(embedder.fingerprint)
    items = embedder.as_items(items)
    embedded = now.embed(items)
    unread = {error.index for error in embedded.errors}
    read = [i for i in range(len(items)) if i not in unread]
    labels = classifier.predict(embedded.embeddings).tolist()
    x, classes = embedded.embeddings[read], list(map(as_unicode, classifier.classes_.tolist()))  # as tables have them
    shares, known = classifier.predict_proba(x).tolist(), set(classes)
    own = [label if (label := as_unicode(labels[i])) in known else None for i in read]
    return _Asked(labels, embedded.errors, read, x, own, lambda place: dict(zip(classes, shares[place], strict=True)))


def _ask_there(model: RemoteModel, store: Store, items: Any) -> _Asked:
    answers = model.answers(items, MOST_CLASSES)
    for i, one in enumerate(answers):
        if one.vector is None:
            raise ImageDecodeError(describe(items[i]), one.error, i)
    for fingerprint in {one.embedder for one in answers}:
        store.check_embedder(fingerprint)
    own = [None if one.unknown else as_unicode(one.label) for one in answers]
    shares = [{as_unicode(label): share for label, share in one.shares.items()} for one in answers]
    x = np.stack([one.vector for one in answers if one.vector is not None]) if answers else np.empty((0, store.d or 0))
    read = list(range(len(answers)))
    return _Asked([one.label for one in answers], [], read, x.astype(np.float32), own, shares.__getitem__)
