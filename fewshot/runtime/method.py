"""Methods on a device: what it needs of the learners that can predict without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import UnknownNameError
from fewshot.persistence.content import is_number
from fewshot.runtime.memory import MOST_MAGNITUDE, Array, DeviceMemory
from fewshot.utils.discriminant import LabelledRows, choose, class_keys, signed_power, unit_length
from fewshot.utils.means import middle, suitable_temperature
from fewshot.utils.values import check_count

#: Learners whose memory is class sums and counts, and learners that keep their support.
SUMMED, KEPT = ("prototypical", "cosine-prototypical", "simpleshot"), ("matching", "k-nearest", "discriminant")
NORMALIZATIONS = ("UN", "L2N", "CL2N")
METRICS = ("sqeuclidean", "cosine", "dot")


@dataclass(frozen=True, eq=False)
class DeviceKeys:
    """The keys that a method makes of a memory.

    Attributes
    ----------
    keys : ndarray of shape (m, d)
        Vectors that queries are compared with.
    labels : ndarray of shape (m,)
        The class of each key, as a position among the classes of the memory.
    log_weight : ndarray of shape (m,)
        Log weight of each key.
    temperature : float
        Logits are similarity / temperature.
    center : ndarray of shape (d,) or 0
        Subtracted from transformed queries; it was from the support.
    """

    keys: Array
    labels: NDArray[np.int64]
    log_weight: Array
    temperature: float
    center: Any = 0.0


@dataclass(frozen=True)
class DeviceMethod:
    """The part of a learner that a device needs.

    Attributes
    ----------
    name : str
        One of `SUMMED` or `KEPT`.
    metric : str
        Name of the similarity; higher is closer.
    temperature : float or None
        Logits are similarity / temperature; None means that the support determines it.
    normalization : {"UN", "L2N", "CL2N"}, default="UN"
        Transform of each embedding: none, unit length, or unit length after subtracting `center`.
    center : tuple of d floats, optional
        For ``CL2N`` only.
    n_neighbors : int, optional
        Number of nearest keys that vote, for ``k-nearest`` only.
    power : float, optional
        Exponent of the absolute values, for ``discriminant`` only.
    regularization : float, optional
        Strength, for ``discriminant`` only; by default leave-one-out chooses it.
    centered, balanced : bool, default=False
        As for the learners that have them.

    Raises
    ------
    ValueError
        If a value is unknown, out of range, or does not belong to this learner.
    """

    name: str
    metric: str
    temperature: float | None
    normalization: str = "UN"
    center: tuple[float, ...] | None = None
    n_neighbors: int | None = None
    power: float | None = None
    regularization: float | None = None
    centered: bool = False
    balanced: bool = False

    def __post_init__(self) -> None:
        for what, name, known in (
            ("learner", self.name, SUMMED + KEPT),
            ("metric", self.metric, METRICS),
            ("normalization", self.normalization, NORMALIZATIONS),
        ):
            if name not in known:
                raise UnknownNameError(what, name, known)
        if self.temperature is not None or self.power is not None:
            check_temperature(self.temperature)
        if not isinstance(self.centered, bool) or not isinstance(self.balanced, bool):
            raise ValueError("centered and balanced are not booleans")
        needs = {"center": self.normalization == "CL2N", "n_neighbors": self.name == "k-nearest"}
        for what, needed in {**needs, "power": self.name == "discriminant"}.items():
            if (getattr(self, what) is not None) != needed:
                raise ValueError(
                    f"{what} is {'missing' if needed else 'unexpected'}: CL2N has a center, k-nearest n_neighbors, "
                    "discriminant a power"
                )
        if self.power is not None and not is_number(self.power, 1e-9, 1):
            raise ValueError(f"power is {self.power!r}; expected a number above 0, at most 1")
        if self.regularization is not None and not is_number(self.regularization, 1e-6, MOST_MAGNITUDE):
            raise ValueError(f"regularization is {self.regularization!r}; expected a number of at least 1e-6")
        if self.center is not None and not all(is_number(v, -MOST_MAGNITUDE, MOST_MAGNITUDE) for v in self.center):
            raise ValueError("center is not finite; expected the mean embedding of the base classes")
        if self.n_neighbors is not None:
            check_count("n_neighbors", self.n_neighbors)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Convert back from `to_dict`."""
        center = values["center"]
        return cls(**{**values, "center": None if center is None else tuple(center)})

    def is_like(self, other: Self) -> bool:
        """Return whether both give the same answers from the same memory, regardless of name."""
        mine, theirs = ({**one.to_dict(), "name": one.is_summed} for one in (self, other))
        return mine == theirs

    def to_dict(self) -> dict[str, Any]:
        """Convert to values that JSON can hold."""
        later = {"power", "regularization"} if self.power is None else set()  # unknown to earlier versions
        later |= {name for name in ("centered", "balanced") if not getattr(self, name)}
        return {name: value for name, value in asdict(self).items() if name not in later}

    @property
    def is_summed(self) -> bool:
        """Whether class sums and counts are all that is kept."""
        return self.name in SUMMED

    def transform(self, embeddings: NDArray[np.floating]) -> Array:
        """Normalize embeddings (n, d), in float64."""
        x = embeddings.astype(np.float64)
        if self.power is not None:
            x = unit_length(x)
            return x if self.power == 1 else unit_length(signed_power(x, self.power, np))
        if self.centered and self.metric == "cosine":
            return unit_length(x)
        if self.normalization == "UN":
            return x
        return unit_length(x if self.center is None else x - np.array(self.center))

    def memorize(self, memory: DeviceMemory) -> DeviceKeys:
        """Return the keys of a memory."""
        if (support := self.familiar_rows(memory)) is None:
            return self._as_they_are(memory)
        present = support.count > 0
        keys = class_keys(support, choose(support, self.regularization, np), np)[present]
        return DeviceKeys(keys, np.flatnonzero(present), np.zeros(len(keys)), cast(float, self.temperature))

    def familiar_rows(self, memory: DeviceMemory) -> LabelledRows | None:
        """Return the support that tells how familiar a query is; None if the similarity to the nearest key tells."""
        if self.power is None:
            return None
        summed = memory.summed()
        return LabelledRows(memory.x, memory.labels, memory.weights, _means(summed), summed.weights).limited(np)

    def _as_they_are(self, memory: DeviceMemory) -> DeviceKeys:
        """Return keys that are class means or support embeddings, centred and with equal classes if so set."""
        summed = memory.summed()
        means, count = _means(summed), summed.weights
        center = middle(means, count, np) if self.centered else 0.0
        log_weight, labels, temperature = memory.log_weight, memory.key_labels, self.temperature
        if self.balanced and not memory.is_summed:
            log_weight = log_weight + np.log(count.sum() / (count > 0).sum() / count[labels])
        if temperature is None:
            temperature = suitable_temperature((means - center) * (count > 0)[:, None], count, self.metric, np).item()
        return DeviceKeys(memory.keys - center, labels, log_weight, temperature, center)

    def read(self, similarity: Array, keys: DeviceKeys, n_classes: int, eps: float) -> Array:
        """Turn similarities to keys (q, m) into logits of classes (q, n_classes).

        ``logit[c] = log of the sum over the keys of c of weight * exp(similarity / temperature)``; for ``k-nearest``
        over the keys that vote. Minus infinity if a class has no such key.

        Parameters
        ----------
        similarity : ndarray of shape (q, m)
            Similarity of each query to each key.
        keys : DeviceKeys
            The keys.
        n_classes : int
            Number of classes.
        eps : float
            Rounding error of the embeddings: keys that are equally far up to it share a vote.
        """
        scores = similarity / keys.temperature + keys.log_weight
        if self.n_neighbors is not None:
            with np.errstate(divide="ignore"):
                scores += np.log(_voting(similarity, np.exp(keys.log_weight), self.n_neighbors, eps))
        logits = np.full((len(scores), n_classes), -np.inf)
        for label in np.unique(keys.labels):
            logits[:, label] = _log_sum_exp(scores[:, keys.labels == label])
        return logits


def check_temperature(value: Any) -> None:
    """Raise unless similarities can be divided by a temperature.

    Raises
    ------
    ValueError
        If it is not a number from 1e-9 to 1e12.
    """
    if not is_number(value, 1e-9, 1e12):
        raise ValueError(f"temperature is {value!r}; expected a number from 1e-9 to 1e12")


def _means(summed: DeviceMemory) -> Array:
    means: Array = summed.x / np.where(summed.weights > 0, summed.weights, 1)[:, None]
    return means


def squares(x: Array) -> Array:
    """Return the squared lengths (n,) of rows (n, d)."""
    return np.einsum("ij,ij->i", x, x)


def _log_sum_exp(scores: Array) -> Array:
    top = scores.max(1)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(scores - top[:, None]).sum(1)) + top


def _voting(similarity: Array, weight: Array, k: int, eps: float) -> Array:
    """Return the fraction (q, m), in 0..1, of each key's weight that belongs to the nearest keys of total weight `k`.

    Keys tied at the boundary share the remaining weight.
    """
    order = np.argsort(-similarity, axis=1, kind="stable")
    reached = weight[order].cumsum(1) >= k * (1 - 1e-5)
    last = np.where(reached.any(1), reached.argmax(1), similarity.shape[1] - 1)
    edge = np.take_along_axis(similarity, order, 1)[np.arange(len(order)), last][:, None]
    slack = 64 * eps * np.abs(similarity).max(1, keepdims=True)
    nearer, level = similarity > edge + slack, np.abs(similarity - edge) <= slack
    above, equal = ((mask * weight).sum(1, keepdims=True) for mask in (nearer, level))
    return np.where(level, np.clip((k - above) / np.where(equal > 0, equal, 1), 0, 1), nearer)
