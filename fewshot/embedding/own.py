"""Custom embedders: any object or function that maps a list of items to vectors, for text, sound or images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import InputTags, Tags

from fewshot.data.images import LabeledImages
from fewshot.data.opening import as_rows, describe
from fewshot.embedding.base import BaseEmbedder
from fewshot.embedding.domain import Domain
from fewshot.embedding.network import Embedded
from fewshot.errors import ImageDecodeError, brief
from fewshot.utils.containers import is_missing, to_numpy
from fewshot.utils.values import ON_ERROR, OnError, check_name


class OwnEmbedder(BaseEmbedder):
    """Embed items with any object that has ``encode`` or ``transform``, or with a function of a list.

    Classifiers, `annotate` and `retrieve` then accept its input: sentences, recordings, other kinds of images. Each row
    of an array is one item, and arrays are passed to the backbone unchanged.

    The backbone is used as it was fitted: `fit`, clones, cross-validation and grids never refit it, and its own
    parameters cannot be set through the embedder. To tune them, use
    ``make_pipeline(vectoriser, svd, DiscriminantClassifier())``. One that was fitted on the few items that are learned
    makes probabilities, `check` and what `reject` promises too good; fit it on as many as there are, labelled or not.

    Parameters
    ----------
    backbone : object
        ``backbone.encode(items)``, ``backbone.transform(items)`` or ``backbone(items)`` returns vectors (n, d).
    name : str
        Identifies the backbone and its weights; vectors of embedders with equal names are considered comparable.
        Include a version.
    on_error : {"raise", "skip", "unknown"}, default="raise"
        "raise" raises if an item is missing (None, NaN) or its vector is not finite; the other two treat it like an
        unreadable image.
    progress : bool, default=True
        Ignored; for compatibility with `Embedder`.
    domain : Domain or path, optional
        Maps the vectors; see `adapt`. It is part of the fingerprint.

    Attributes
    ----------
    fingerprint : str
        SHA-256 of the name and the domain.

    Raises
    ------
    TypeError
        At first use, if `backbone` is a name, a class, or an object without a method to call.
    ValueError
        If the name is empty, or the backbone does not return one vector per item.

    Examples
    --------
    >>> from fewshot import FewShotImageClassifier, OwnEmbedder
    >>> def letters(texts):
    ...     return [[text.count(letter) for letter in "aeiou"] for text in texts]
    >>> model = FewShotImageClassifier(OwnEmbedder(letters, "vowels 1"))
    >>> model.fit(["banana", "kiwi"], ["a", "i"]).predict(["papaya", "pippin"]).tolist()
    ['a', 'i']
    """

    def __init__(
        self,
        backbone: Any,
        name: str,
        *,
        on_error: OnError = "raise",
        progress: bool = True,
        domain: Domain | str | Path | None = None,
    ) -> None:
        self.backbone = backbone
        self.name = name
        self.on_error = on_error
        self.progress = progress
        self.domain = domain

    def embed(self, X: Any, *, thumbnails: bool = False, on_error: OnError | None = None) -> Embedded:
        """Return the vectors of a collection of items, with empty thumbnails; see `Embedder.embed`."""
        stop = check_name("on_error", on_error or self.on_error, ON_ERROR) == "raise"
        call, items = self._call(), self.as_items(X)
        missing = [i for i in range(len(items)) if is_missing(items[i])]
        errors = dict.fromkeys(missing, "the item is missing; omit the row")
        if missing and stop:
            raise ImageDecodeError(f"<{items[missing[0]]}>", errors[missing[0]], missing[0])
        there = [i for i in range(len(items)) if i not in errors]
        vectors = self._vectors(call, items, there)
        bad = np.flatnonzero(~np.isfinite(vectors).all(1)).tolist()
        if stop and bad:
            raise ValueError(f"{brief(self.name)} returned NaN or infinity for item {bad[0]}; omit the item")
        vectors[bad] = np.nan
        errors = {i: f"{brief(self.name)} returned NaN or infinity" for i in bad} | errors
        failed = [ImageDecodeError(describe(items[i]), reason, i) for i, reason in sorted(errors.items())]
        return self._mapped(Embedded(vectors, failed, [b""] * len(items) if thumbnails else []), self._name_digest())

    def as_items(self, X: Any) -> Sequence[Any]:
        """Return a collection as a sequence of items, one per row of an array.

        Raises
        ------
        TypeError
            If it is a single item, or has no length.
        """
        return X.images if isinstance(X, LabeledImages) else as_rows(X)  # type: ignore[return-value]

    def _vectors(self, call: Any, items: Sequence[Any], there: list[int]) -> NDArray[np.float32]:
        """Return a vector for each item; NaN for missing ones."""
        if not there:
            return np.full((len(items), self._n_features_out), np.nan, np.float32)
        is_rows = len(getattr(items, "shape", ())) > 1
        made = _to_array(call(items if is_rows else [items[i] for i in there]))
        if made.ndim != 2 or len(made) != len(there):
            name, n = brief(self.name), len(there)
            raise ValueError(f"{name} returned an array of shape {made.shape} for {n} items; expected ({n}, d)")
        self._n_out = made.shape[1]
        vectors = np.full((len(items), self._n_out), np.nan, np.float32)
        vectors[there] = made
        return vectors

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the name and the domain."""
        return self._extended(self._name_digest())

    def _name_digest(self) -> str:
        if not self.name:
            raise ValueError("name is empty; choose one that identifies this embedder and its weights")
        return hashlib.sha256(f"own embedder {self.name}".encode()).hexdigest()

    @property
    def network(self) -> Any:
        """The backbone."""
        return self.backbone

    @property
    def _n_features_out(self) -> int:
        return int(getattr(self, "_n_out", 0))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        inner = self.backbone.__sklearn_tags__().input_tags if hasattr(self.backbone, "__sklearn_tags__") else None
        # A function may take anything: text, recordings, rows of numbers.
        tags.input_tags = InputTags(two_d_array=False, one_d_array=True, string=True) if inner is None else inner
        return tags

    def _check_parameters(self) -> None:
        self._call()

    def _call(self) -> Any:
        backbone = self.backbone
        if isinstance(backbone, (str, bytes, os.PathLike)):
            raise TypeError(
                f"backbone is the name {brief(repr(backbone))}; pass the model itself, e.g. "
                f"SentenceTransformer({brief(repr(backbone))})"
            )
        if isinstance(backbone, type):
            raise TypeError(f"backbone is the class {backbone.__name__}; pass an instance")
        for method in ("encode", "transform"):
            if callable(found := getattr(backbone, method, None)):
                return found
        if not callable(backbone):
            kind = type(backbone).__name__
            raise TypeError(f"backbone is a {kind}; expected an object with encode or transform, or a function")
        return backbone


def _to_array(made: Any) -> NDArray[Any]:
    """Return vectors as an array; sparse matrices and tensors with gradients or in bfloat16 are converted."""
    if hasattr(made, "toarray"):
        made = made.toarray()
    elif isinstance(made, (list, tuple)):
        made = [to_numpy(row) for row in made]
    return np.array(to_numpy(made), np.float32)
