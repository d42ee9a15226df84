"""Meta-learning in closed form: adapt embeddings to a domain, given other classes of it."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from sklearn.base import clone

from fewshot.data.images import LabeledImages, as_labeled
from fewshot.embedding.base import BaseEmbedder
from fewshot.embedding.domain import Domain
from fewshot.embedding.embedder import Embedder
from fewshot.embedding.network import Embedded
from fewshot.embedding.own import OwnEmbedder
from fewshot.errors import brief
from fewshot.images.learned import Prepared, labelled
from fewshot.images.model import FewShotModel

T = TypeVar("T", Embedder, OwnEmbedder, FewShotModel)


def adapt(target: T, X: Any, y: Any = None, *, shrinkage: float | None = None) -> T:
    """Return a copy of an embedder or a model whose embeddings are adapted to a domain, in seconds, with no gradient.

    Whoever has images of other classes of the domain, as few as five, can say by them which differences do not matter:
    those within the classes. `Domain` has the formula. The classes may also be some of the model's own, but then
    accuracy on them says less about new ones; likewise, calibrate on classes that were not adapted to.

    Adapted embeddings have both signs, so take ``power=1.0`` where you give them to a `DiscriminantLearner` or a
    `DiscriminantClassifier` yourself; models do.

    Parameters
    ----------
    target : Embedder, OwnEmbedder or FewShotModel
        Is not changed. A fitted model learns its kept support again; a domain of an embedder is replaced.
    X : collection of n items, or LabeledImages
        Items of the domain; those that cannot be read are left out unless the embedder's ``on_error="raise"``. Images
        may also be a folder, a table, a data frame or a data set, which hold the labels too, as for `FewShotModel.fit`.
    y : array-like of shape (n,), optional
        Their labels. Without them, items are whitened by their total covariance, which helps less.
    shrinkage : float, optional
        From 0.001 to 1; by default chosen by leaving classes out.

    Raises
    ------
    TypeError
        If `target` is something else.
    ValueError
        If no class has two different items, or a fitted model has kept no support or is adapted already.
    ImageDecodeError
        If an item cannot be read.

    Examples
    --------
    >>> from fewshot import Embedder, FewShotModel, adapt, digits
    >>> data = digits()
    >>> known, new = data.labels < 5, data.labels >= 5
    >>> embedder = Embedder("conv4", weights="random", img_size=28, progress=False)
    >>> embedder = adapt(embedder, data.images[known][:100], data.labels[known][:100])
    >>> model = FewShotModel(embedder).fit(data.images[new][:20], data.labels[new][:20])
    >>> model.score(data.images[new][20:200], data.labels[new][20:200]) > 0.5
    True
    """
    if isinstance(target, (Embedder, OwnEmbedder)):
        adapted = target.__sklearn_clone__()
        return adapted.set_params(domain=_domain_of(target.unadapted, X, y, shrinkage))
    if not isinstance(target, FewShotModel):
        raise TypeError(f"cannot adapt {brief(repr(target))}; expected an Embedder, an OwnEmbedder or a FewShotModel")
    return _adapted_model(target, X, y, shrinkage)


def _domain_of(embedder: Any, X: Any, y: Any, shrinkage: float | None) -> Domain:
    if y is None and isinstance(embedder, Embedder) and not isinstance(X, LabeledImages):
        X = X if (opened := as_labeled(X)) is None else opened
    is_labelled = y is not None or isinstance(X, LabeledImages)
    items, labels = labelled(X, y, embedder.as_items) if is_labelled else (embedder.as_items(X), None)
    embedded = embedder.embed(items)
    embeddings = embedded.embeddings
    if embedded.errors and len(embedded.errors) == len(items):
        raise embedded.errors[0]
    read = np.isfinite(embeddings).all(1)
    labels = None if labels is None else np.asarray(labels)[read]
    return Domain.fit(embeddings[read], labels, embedder=embedder.fingerprint, shrinkage=shrinkage)


def _adapted_model(model: Any, X: Any, y: Any, shrinkage: float | None) -> Any:
    now = model.snapshot() if model.__sklearn_is_fitted__() else None
    if now is not None and (now.support is None or now.embedder.find_domain() is not None):
        why = "has kept no support" if now.support is None else "is adapted already"
        raise ValueError(f"the model {why}, so it cannot learn again; adapt its embedder, then fit it again")
    embedder = model.make_embedder() if now is None else clone(now.embedder)
    domain = _domain_of(embedder.unadapted, X, y, shrinkage)
    owners = [name for name in ("embedder", "backbone") if isinstance(getattr(model, name, None), BaseEmbedder)]
    adapted = clone(model).set_params(**{"__".join([*owners, "domain"]): domain})
    if now is None:
        return adapted
    embedded = Embedded(domain(now.support.embeddings), [], list(now.support.thumbnails))
    embedder.set_params(domain=domain)
    return adapted.fit(Prepared(now.support.ids, False, now.support.labels, embedded, embedder))
