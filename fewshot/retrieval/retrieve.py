"""`retrieve`: find the records of a store that are similar to an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewshot.errors import ImageDecodeError
from fewshot.images.model import FewShotModel
from fewshot.retrieval.stores.base import Store
from fewshot.retrieval.stores.records import Match, check_where, token
from fewshot.utils.text import as_unicode


@dataclass(frozen=True)
class Retrieved(Match):
    """A record that was retrieved for an image.

    Attributes
    ----------
    probability : float or None
        The model's probability that the image has the record's label; None if the model does not know the label.
    """

    probability: float | None = None

    def facts(self) -> dict[str, Any]:
        """Return everything but the id as the metadata of a document.

        ``label``, ``similarity`` and ``probability`` take precedence over values of the same names in the payload.
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
    """Return the nearest records of each image.

    Parameters
    ----------
    model : FewShotModel
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
        `where` must match as well.

    Returns
    -------
    list of n lists
        Nearest first; empty for an image that could not be read, unless the model has ``on_error="raise"``.

    Raises
    ------
    StoreError
        If another embedder computed the vectors of the store, or the store cannot be reached.
    ImageDecodeError
        If an image cannot be read and the model has ``on_error="raise"``.

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
    """Return the answers of `predict` and `retrieve`, embedding each image once, and the errors of unreadable ones."""
    now = model.snapshot()
    classifier, embedder = now.classifier, now.embedder
    store.check_embedder(embedder.fingerprint)
    items, conditions = embedder.as_items(items), check_where(where)
    embedded = now.embed(items)
    unread = {error.index for error in embedded.errors}
    read = [i for i in range(len(items)) if i not in unread]
    found: list[list[Retrieved]] = [[] for _ in items]
    labels = classifier.predict(embedded.embeddings).tolist()
    x, classes = embedded.embeddings[read], list(map(as_unicode, classifier.classes_.tolist()))  # as tables have them
    shares = classifier.predict_proba(x).tolist()
    asked: dict[Any, list[int]] = {}
    for place, i in enumerate(read):
        label = as_unicode(labels[i])
        asked.setdefault(label if by_label and label in classes else None, []).append(place)
    for label, places in asked.items():  # one search per class, not per query
        # Empty if `where` asks for other labels.
        both = [other for other in conditions.get("label", [label]) if token("label", other) == token("label", label)]
        only = conditions if label is None else {**conditions, "label": both}
        for place, matches in zip(places, store.search(x[places], k, only), strict=True):
            known = dict(zip(classes, shares[place], strict=True))
            found[read[place]] = [
                Retrieved(m.id, m.label, m.similarity, m.payload, known.get(m.label)) for m in matches
            ]
    return labels, found, embedded.errors
