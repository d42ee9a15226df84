"""An embedder of one's own: whatever turns a list of things into vectors, for text, sound or other images."""

from __future__ import annotations

import hashlib
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from fewshot.data.decode import describe
from fewshot.embedding.batches import Embedded
from fewshot.embedding.items import as_items, check_on_error
from fewshot.errors import ImageDecodeError


class OwnEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Let anything embed that has ``encode`` or ``transform``, or is called with a list.

    Classifiers, `annotate` and `retrieve` then work on what it takes: sentences, recordings, images of other kinds.

    Parameters
    ----------
    backbone : object
        ``backbone.encode(items)``, ``backbone.transform(items)`` or ``backbone(items)`` gives vectors (n, d).
    name : str
        What stands for it and its weights: vectors of embedders of one name are taken for comparable. Name the version.
    on_error : {"raise", "nan"}, default="raise"
        Whether vectors that are not finite are an error, or answered as what could not be read.
    progress : bool, default=True
        Taken for the sake of `Embedder`; there is no bar here.

    Attributes
    ----------
    fingerprint : str
        SHA-256 of the name.

    Raises
    ------
    TypeError
        At the first use, if `backbone` has nothing to call.
    ValueError
        If the name is empty, or what comes back is not one vector for each item.

    Examples
    --------
    >>> from fewshot import FewShotImageClassifier, OwnEmbedder
    >>> def letters(texts):
    ...     return [[text.count(letter) for letter in "aeiou"] for text in texts]
    >>> model = FewShotImageClassifier(OwnEmbedder(letters, "vowels 1"))
    >>> model.fit(["banana", "kiwi"], ["a", "i"]).predict(["papaya", "pippin"]).tolist()
    ['a', 'i']
    """

    def __init__(self, backbone: Any, name: str, *, on_error: str = "raise", progress: bool = True) -> None:
        self.backbone = backbone
        self.name = name
        self.on_error = on_error
        self.progress = progress

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Check the parameters; there is nothing to learn."""
        self._call()
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the vectors (n, d) of a collection of n items."""
        return self.embed(X).embeddings

    def embed(self, X: Any, *, thumbnails: bool = False, on_error: str | None = None) -> Embedded:
        """Return the vectors of a collection of items; there are no pictures of them.

        `on_error` counts for this call alone, in place of the parameter.
        """
        stop = check_on_error(on_error or self.on_error) == "raise"
        call, items = self._call(), list(as_items(X))
        if not items:
            return Embedded(np.empty((0, self._n_features_out), np.float32), [])
        made = call(items)
        vectors = np.array(made.toarray() if hasattr(made, "toarray") else made, np.float32)  # sparse ones, of text
        if vectors.ndim != 2 or len(vectors) != len(items):
            shape, n = vectors.shape, len(items)
            raise ValueError(f"{self.name} gave an array of shape {shape} for {n} items; expected ({n}, d)")
        self._n_out = vectors.shape[1]
        bad = np.flatnonzero(~np.isfinite(vectors).all(1)).tolist()
        if stop and bad:
            raise ValueError(f"{self.name} gave NaN or infinity for item {bad[0]}; leave that one out")
        vectors[bad] = np.nan
        errors = [ImageDecodeError(describe(items[i]), f"{self.name} gave NaN or infinity", i) for i in bad]
        return Embedded(vectors, errors, [b""] * len(items) if thumbnails else [])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the name."""
        if not self.name:
            raise ValueError("name is empty; give one that tells this embedder and its weights from others")
        return hashlib.sha256(f"own embedder {self.name}".encode()).hexdigest()

    @property
    def network(self) -> Any:
        """What embeds."""
        return self.backbone

    @property
    def _n_features_out(self) -> int:
        return int(getattr(self, "_n_out", 0))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> OwnEmbedder:
        # What embeds is shared: it may be large, and clones do not change it.
        return type(self)(**self.get_params(deep=False))

    def _call(self) -> Any:
        for method in ("encode", "transform"):
            if callable(found := getattr(self.backbone, method, None)):
                return found
        if not callable(self.backbone):
            kind = type(self.backbone).__name__
            raise TypeError(f"backbone is a {kind}; expected something with encode or transform, or a function")
        return self.backbone
