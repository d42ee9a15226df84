"""From embeddings to answers: a memory, read by a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.runtime.memory import DeviceMemory
from fewshot.runtime.method import DeviceMethod
from fewshot.runtime.similarity import Array, Keys
from fewshot.utils.unknown import mark_unknown

#: Handles floating-point errors as numpy does by default, whatever the host program has set for its own.
_as_usual = np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")


@dataclass(frozen=True, eq=False)
class Model:
    """Everything an answer to an embedding needs; it is replaced as a whole, so a reader sees the old or the new one.

    All is reckoned in float64. A row that holds NaN is an image that could not be read: it is answered with the unknown
    label, and all classes are as likely.

    Attributes
    ----------
    memory : DeviceMemory
        What was learned.
    method : DeviceMethod
        How it is read.
    facts : mapping
        ``temperature`` of the probabilities, ``threshold`` of similarity below which a query is unknown or None, and
        ``unknown_label``.

    Examples
    --------
    >>> memory = DeviceMemory.of(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array(["right", "up"]), True)
    >>> facts = {"temperature": 1.0, "threshold": 0.5, "unknown_label": None}
    >>> model = Model(memory, DeviceMethod("prototypical", "cosine", 0.05), facts)
    >>> model.predict(np.array([[2.0, 0.1], [-1.0, -1.0]])).tolist()
    ['right', 'unknown']
    """

    memory: DeviceMemory
    method: DeviceMethod
    facts: Mapping[str, Any]

    @cached_property
    def _keys(self) -> Keys:
        return Keys.of(self.memory.keys, self.method.metric)

    @_as_usual
    def learned(self, x: NDArray[np.floating], y: NDArray[Any]) -> DeviceMemory:
        """Return the memory of support embeddings (n, d) with labels (n,), which adds to this one's."""
        return DeviceMemory.of(self.method.transform(x), y, self.method.is_summed)

    @_as_usual
    def predict(self, x: NDArray[np.floating]) -> NDArray[Any]:
        """Return the class of each embedding (n, d), or the unknown label."""
        similarity, unknown = self._compare(x)
        labels = self.memory.classes[self._logits(x, similarity).argmax(1)]
        if (threshold := self.facts["threshold"]) is not None:
            unknown = unknown | ~(similarity.max(1) >= threshold)
        return self._marked(labels, unknown)

    @_as_usual
    def predict_proba(self, x: NDArray[np.floating]) -> Array:
        """Return the probability of each class, (n, n_classes)."""
        similarity, unknown = self._compare(x)
        logits = self._logits(x, similarity) / self.facts["temperature"]
        there = np.isin(np.arange(len(self.memory.classes)), self.memory.key_labels)
        logits[unknown] = np.where(there, 0, -np.inf)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        proba: Array = shares / shares.sum(1, keepdims=True)
        return proba

    @_as_usual
    def nearest(self, x: NDArray[np.floating], k: int = 1) -> tuple[NDArray[Any], Array]:
        """Return labels and similarities (n, k) of the nearest keys, nearest first; among equals the first key.

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
        return self._marked(self.memory.classes[self.memory.key_labels[order]], unknown), near

    def _compare(self, x: NDArray[np.floating]) -> tuple[Array, NDArray[np.bool_]]:
        """Return the similarities (n, n_keys) of embeddings, and which of them are none."""
        unknown = ~np.isfinite(x).all(1)
        return self._keys.similarity(self.method.transform(np.where(unknown[:, None], 0, x))), unknown

    def _logits(self, x: NDArray[np.floating], similarity: Array) -> Array:
        memory, eps = self.memory, float(np.finfo(x.dtype).eps)
        return self.method.read(similarity, memory.log_weight, memory.key_labels, len(memory.classes), eps)

    def _marked(self, labels: NDArray[Any], unknown: NDArray[np.bool_]) -> NDArray[Any]:
        return mark_unknown(labels, unknown, self.facts["unknown_label"], self.memory.classes)
