"""From embeddings to answers on a device: a memory read by a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.runtime.background import DeviceBackground
from fewshot.runtime.memory import Array, DeviceMemory
from fewshot.runtime.method import DeviceKeys, DeviceMethod, squares
from fewshot.utils.discriminant import unit_length
from fewshot.utils.familiarity import Familiarity
from fewshot.utils.labels import mark_unknown

#: numpy's default handling of floating-point errors, whatever the host program has set.
_default_errors = np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")


@dataclass(frozen=True, eq=False)
class DeviceModel:
    """A fitted model on embeddings. It is immutable; learning replaces it.

    All computation is in float64. A row with NaN stands for an image that could not be read: its answer is the unknown
    label, and all classes are equally likely.

    Attributes
    ----------
    memory : DeviceMemory
        What was learned.
    method : DeviceMethod
        How the memory is read.
    facts : mapping
        ``temperature`` of the probabilities, ``threshold`` (the similarity below which a query is unknown, or a mapping
        that holds its least ``familiarity``, or None) and ``unknown_label``.
    background : DeviceBackground, optional
        What tells how familiar a query is.

    Examples
    --------
    >>> memory = DeviceMemory.of(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array(["right", "up"]), True)
    >>> facts = {"temperature": 1.0, "threshold": 0.5, "unknown_label": None}
    >>> model = DeviceModel(memory, DeviceMethod("prototypical", "cosine", 0.05), facts)
    >>> model.predict(np.array([[2.0, 0.1], [-1.0, -1.0]])).tolist()
    ['right', 'unknown']
    """

    memory: DeviceMemory
    method: DeviceMethod
    facts: Mapping[str, Any]
    background: DeviceBackground | None = None

    @_default_errors
    def learned(self, x: NDArray[np.floating], y: NDArray[Any]) -> DeviceMemory:
        """Return the memory of support embeddings (n, d) with labels (n,), to be added to that of the model."""
        return DeviceMemory.of(self.method.transform(x), y, self.method.is_summed)

    @_default_errors
    def predict(self, x: NDArray[np.floating]) -> NDArray[Any]:
        """Return the class of each embedding (n, d), or the unknown label."""
        similarity, unknown = self._compare(x)
        labels = self.memory.classes[self._logits(x, similarity).argmax(1)]
        threshold = self.facts["threshold"]
        if isinstance(threshold, Mapping):
            queries = self.method.transform(np.where(unknown[:, None], 0, x))
            unknown = unknown | ~(self._familiarity.scores(queries, np).astype(np.float32) >= threshold["familiarity"])
        elif threshold is not None:
            unknown = unknown | ~(similarity.max(1) >= threshold)
        return self._marked(labels, unknown)

    @_default_errors
    def predict_proba(self, x: NDArray[np.floating]) -> Array:
        """Return the probability of each class, (n, n_classes)."""
        similarity, unknown = self._compare(x)
        logits = self._logits(x, similarity) / self.facts["temperature"]
        there = np.isin(np.arange(len(self.memory.classes)), self._made.labels)
        logits[unknown] = np.where(there, 0, -np.inf)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        proba: Array = shares / shares.sum(1, keepdims=True)
        return proba

    @_default_errors
    def nearest(self, x: NDArray[np.floating], k: int = 1) -> tuple[NDArray[Any], Array]:
        """Return labels and similarities (n, k) of the nearest keys, nearest first; ties in key order.

        Raises
        ------
        ValueError
            If k is not in 1..number of keys.
        """
        similarity, unknown = self._compare(x)
        n_keys = similarity.shape[1]
        if not isinstance(k, (int, np.integer)) or not 1 <= k <= n_keys:
            raise ValueError(f"k is {k!r}; expected an integer from 1 to {n_keys}, the number of keys")
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        near = np.take_along_axis(similarity, order, 1)
        near[unknown] = -np.inf
        return self._marked(self.memory.classes[self._made.labels[order]], unknown), near

    def _compare(self, x: NDArray[np.floating]) -> tuple[Array, NDArray[np.bool_]]:
        """Return the similarities (n, n_keys) of embeddings, and which embeddings are not finite."""
        unknown = ~np.isfinite(x).all(1)
        queries = self.method.transform(np.where(unknown[:, None], 0, x))
        return self._similarity(queries - self._made.center), unknown

    def _similarity(self, queries: Array) -> Array:
        """Return the similarities (q, n_keys) of queries (q, d), as `fewshot.search.similarity`; higher is closer."""
        x = self._placed(queries)
        product: Array = x @ self._keys.T
        if self.method.metric != "sqeuclidean":
            return product
        # Rounding can give equal rows a tiny positive value.
        return np.minimum(2 * product - (squares(x)[:, None] + squares(self._keys)), 0)

    @cached_property
    def _keys(self) -> Array:
        return self._placed(self._made.keys)

    @cached_property
    def _familiarity(self) -> Familiarity:
        if self.background is None:
            raise ValueError("this export has no background, which its threshold needs; export it again")
        return self.background.familiarity(self.memory, self.method)

    @cached_property
    def _made(self) -> DeviceKeys:
        """The keys as the method makes them."""
        return self.method.memorize(self.memory)

    @cached_property
    def _offset(self) -> Array:
        """Subtracted from keys and queries for ``sqeuclidean``, whose expansion loses digits far from the origin."""
        return self._made.keys.mean(0)

    def _placed(self, x: Array) -> Array:
        """Return keys or queries (n, d) with what their metric needs done once."""
        if self.method.metric == "cosine":
            return unit_length(x)
        return x - self._offset if self.method.metric == "sqeuclidean" else x

    def _logits(self, x: NDArray[np.floating], similarity: Array) -> Array:
        return self.method.read(similarity, self._made, len(self.memory.classes), float(np.finfo(x.dtype).eps))

    def _marked(self, labels: NDArray[Any], unknown: NDArray[np.bool_]) -> NDArray[Any]:
        return mark_unknown(labels, unknown, self.facts["unknown_label"], self.memory.classes)
