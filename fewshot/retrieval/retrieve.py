"""`retrieve`: the records of a store that are like an image, with what the classifier thinks of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewshot.errors import ImageDecodeError
from fewshot.images.model import FewShotModel
from fewshot.retrieval.stores.base import Store
from fewshot.retrieval.stores.records import Match
from fewshot.retrieval.stores.values import check_where, token
from fewshot.utils.text import as_unicode


@dataclass(frozen=True)
class Retrieved(Match):
    """A record that was found for an image.

    Attributes
    ----------
    probability : float or None
        That the image is of the record's class, as the classifier thinks; None where it does not know that class.
    """

    probability: float | None = None

    def facts(self) -> dict[str, Any]:
        """Return all but the id by name, as other systems keep it beside a document.

        Label, similarity and probability are those of the query, whatever the payload calls so.
        """
        own = {"label": self.label, "similarity": self.similarity, "probability": self.probability}
        return {**self.payload, **own}


def retrieve(
    model: FewShotModel,
    store: Store,
    items: Any,
    k: int = 10,
    *,
    where: Mapping[str, Any] | None = None,
    by_label: bool = False,
) -> list[list[Retrieved]]:
    """Return the records of a store that are nearest to each image.

    Parameters
    ----------
    model : FewShotModel
        Whose embedder made the vectors of the store.
    store : Store
        What is searched.
    items : collection of n images
        Queries.
    k : int, default=10
        Records a query.
    where : mapping, optional
        Only records with these values; see `Store.search`.
    by_label : bool, default=False
        Whether a query is classified first and only records of its class are found: of an unknown one, all. A label
        in `where` has to fit as well.

    Returns
    -------
    list of n lists
        Nearest first; empty for an image that could not be read, unless the classifier has ``on_error="raise"``.

    Raises
    ------
    StoreError
        If the vectors of the store come from another embedder, or it cannot be reached.
    ImageDecodeError
        If an image cannot be read and the classifier has ``on_error="raise"``.

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


def classify_and_retrieve(
    model: FewShotModel, store: Store, items: Any, k: int, where: Mapping[str, Any] | None, by_label: bool
) -> tuple[list[Any], list[list[Retrieved]], list[ImageDecodeError]]:
    """Return what `predict` and what `retrieve` answer, of images that are embedded once, and why some are not read."""
    model = copy.copy(model)  # of this moment, whatever is learned while images are embedded
    store.check_embedder(model.embedder_.fingerprint)
    items, conditions = model.embedder_.as_items(items), check_where(where)
    classifier, embedded = model.answering(), model.embed_queries(items)
    unread = {error.index for error in embedded.errors}
    read = [i for i in range(len(items)) if i not in unread]
    found: list[list[Retrieved]] = [[] for _ in items]
    labels = classifier.predict(embedded.embeddings).tolist() if len(items) else []
    if not read:
        return labels, found, embedded.errors
    # As they are written into tables.
    x, classes = embedded.embeddings[read], list(map(as_unicode, classifier.classes_.tolist()))
    shares = classifier.predict_proba(x).tolist()
    asked: dict[Any, list[int]] = {}
    for place, i in enumerate(read):
        label = as_unicode(labels[i])
        asked.setdefault(label if by_label and label in classes else None, []).append(place)
    wanted = {token("label", label) for label in conditions.get("label", [])}
    for label, places in asked.items():  # one search a class, not one a query
        if label is not None and "label" in conditions and token("label", label) not in wanted:
            continue
        only = conditions if label is None else {**conditions, "label": [label]}
        for place, matches in zip(places, store.search(x[places], k, only), strict=True):
            chances = dict(zip(classes, shares[place], strict=True))
            found[read[place]] = [
                Retrieved(m.id, m.label, m.similarity, m.payload, chances.get(m.label)) for m in matches
            ]
    return labels, found, embedded.errors
