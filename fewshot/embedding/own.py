"""A custom embedder: whatever turns a list of things into vectors, for text, sound or other images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import InputTags, Tags

from fewshot.data.collection import as_rows
from fewshot.data.images import LabeledImages, as_items
from fewshot.data.opening import describe
from fewshot.embedding.batches import Embedded
from fewshot.errors import ImageDecodeError, brief
from fewshot.utils.containers import is_missing, to_numpy
from fewshot.utils.unreadable import check_on_error


class OwnEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Let anything embed that has ``encode`` or ``transform``, or is called with a list.

    Classifiers, `annotate` and `retrieve` then work on what it takes: sentences, recordings, images of other kinds. Of
    an array, each row is one item, and the array goes to the backbone as it is.

    Parameters
    ----------
    backbone : object
        ``backbone.encode(items)``, ``backbone.transform(items)`` or ``backbone(items)`` gives vectors (n, d).
    name : str
        What stands for it and its weights: vectors of embedders of one name are taken for comparable. Name the version.
    on_error : {"raise", "skip", "unknown"}, default="raise"
        Whether an item that is missing (None, NaN), or whose vector is not finite, is an error, or answered as an image
        that could not be read.
    progress : bool, default=True
        Taken for the sake of `Embedder`; there is no bar here.

    Attributes
    ----------
    fingerprint : str
        SHA-256 of the name.

    Raises
    ------
    TypeError
        At the first use, if `backbone` has nothing to call, or is a name or a class instead of an object.
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
        call, items = self._call(), self.as_items(X)
        missing = [i for i in range(len(items)) if is_missing(items[i])]
        errors = dict.fromkeys(missing, "there is no item; leave the row out")
        if missing and stop:
            raise ImageDecodeError(f"<{items[missing[0]]}>", errors[missing[0]], missing[0])
        there = [i for i in range(len(items)) if i not in errors]
        vectors = self._vectors(call, items, there)
        bad = np.flatnonzero(~np.isfinite(vectors).all(1)).tolist()
        if stop and bad:
            raise ValueError(f"{brief(self.name)} gave NaN or infinity for item {bad[0]}; leave that one out")
        vectors[bad] = np.nan
        errors = {i: f"{brief(self.name)} gave NaN or infinity" for i in bad} | errors
        told = [ImageDecodeError(describe(items[i]), reason, i) for i, reason in sorted(errors.items())]
        return Embedded(vectors, told, [b""] * len(items) if thumbnails else [])

    def as_items(self, X: Any) -> Sequence[Any]:
        """Return a collection as a sequence of items: of an array, each row is one.

        Raises
        ------
        TypeError
            If it is one item, or has no length.
        """
        return as_items(X) if isinstance(X, LabeledImages) else as_rows(X)

    def _vectors(self, call: Any, items: Sequence[Any], there: list[int]) -> NDArray[np.float32]:
        """Return a vector for each item, NaN for those that are not there."""
        if not there:
            return np.full((len(items), self._n_features_out), np.nan, np.float32)
        is_rows = len(getattr(items, "shape", ())) > 1
        made = _to_array(call(items if is_rows else [items[i] for i in there]))
        if made.ndim != 2 or len(made) != len(there):
            name, n = brief(self.name), len(there)
            raise ValueError(f"{name} gave an array of shape {made.shape} for {n} items; expected ({n}, d)")
        self._n_out = made.shape[1]
        vectors = np.full((len(items), self._n_out), np.nan, np.float32)
        vectors[there] = made
        return vectors

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

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        inner = self.backbone.__sklearn_tags__().input_tags if hasattr(self.backbone, "__sklearn_tags__") else None
        # What a function takes is not known: text, recordings, rows of numbers.
        tags.input_tags = InputTags(two_d_array=False, one_d_array=True, string=True) if inner is None else inner
        return tags

    def _call(self) -> Any:
        backbone = self.backbone
        if isinstance(backbone, (str, bytes, os.PathLike)):
            raise TypeError(
                f"backbone is the name {brief(repr(backbone))}; pass the model itself, e.g. "
                f"SentenceTransformer({brief(repr(backbone))})"
            )
        if isinstance(backbone, type):
            raise TypeError(f"backbone is the class {backbone.__name__}; pass an object of it")
        for method in ("encode", "transform"):
            if callable(found := getattr(backbone, method, None)):
                return found
        if not callable(backbone):
            kind = type(backbone).__name__
            raise TypeError(f"backbone is a {kind}; expected something with encode or transform, or a function")
        return backbone


def _to_array(made: Any) -> NDArray[Any]:
    """Return the vectors that were given as an array: also sparse ones, and tensors with gradients or of bfloat16."""
    if hasattr(made, "toarray"):
        made = made.toarray()
    elif isinstance(made, (list, tuple)):
        made = [to_numpy(row) for row in made]
    return np.array(to_numpy(made), np.float32)
