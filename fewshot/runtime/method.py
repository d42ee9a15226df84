"""How a memory is read: the learners of the library that need no torch to answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import UnknownNameError
from fewshot.persistence.content import is_number
from fewshot.runtime.similarity import METRICS, MOST_MAGNITUDE, Array, unit_length
from fewshot.utils.parameters import check_count

#: Learners whose memory is class sums and counts, and those that keep their support.
SUMMED, KEPT = ("prototypical", "simpleshot"), ("matching", "k-nearest")
NORMALIZATIONS = ("UN", "L2N", "CL2N")


@dataclass(frozen=True)
class DeviceMethod:
    """A learner of the library, as far as a device needs it.

    Attributes
    ----------
    name : str
        One of `SUMMED` or `KEPT`.
    metric : str
        Similarity; higher is closer.
    temperature : float
        Logits are similarity / temperature.
    normalization : {"UN", "L2N", "CL2N"}, default="UN"
        What is done to each embedding: nothing, unit length, or unit length after `center` was subtracted.
    center : tuple of d floats, optional
        For ``CL2N``.
    n_neighbors : int, optional
        How many of the nearest keys vote, for ``k-nearest``.

    Raises
    ------
    ValueError
        If a value is unknown, out of range, or missing for this learner.
    """

    name: str
    metric: str
    temperature: float
    normalization: str = "UN"
    center: tuple[float, ...] | None = None
    n_neighbors: int | None = None

    def __post_init__(self) -> None:
        for what, name, known in (
            ("learner", self.name, SUMMED + KEPT),
            ("metric", self.metric, METRICS),
            ("normalization", self.normalization, NORMALIZATIONS),
        ):
            if name not in known:
                raise UnknownNameError(what, name, known)
        check_temperature(self.temperature)
        for what, needed in (("center", self.normalization == "CL2N"), ("n_neighbors", self.name == "k-nearest")):
            if (getattr(self, what) is not None) != needed:
                raise ValueError(
                    f"{what} is {'missing' if needed else 'there'}: CL2N has a center, k-nearest n_neighbors"
                )
        if self.center is not None and not all(is_number(v, -MOST_MAGNITUDE, MOST_MAGNITUDE) for v in self.center):
            raise ValueError("center is not finite; expected the mean embedding of the base classes")
        if self.n_neighbors is not None:
            check_count("n_neighbors", self.n_neighbors)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return what `to_dict` described."""
        center = values["center"]
        return cls(**{**values, "center": None if center is None else tuple(center)})

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @property
    def is_summed(self) -> bool:
        """Whether class sums and counts are all that is kept."""
        return self.name in SUMMED

    def transform(self, embeddings: NDArray[np.floating]) -> Array:
        """Return embeddings (n, d) as they are learned and compared, in float64."""
        x = embeddings.astype(np.float64)
        if self.normalization == "UN":
            return x
        return unit_length(x if self.center is None else x - np.array(self.center))

    def read(
        self, similarity: Array, log_weight: Array, labels: NDArray[np.int64], n_classes: int, eps: float
    ) -> Array:
        """Turn similarities to keys (q, m) into logits of classes (q, n_classes).

        ``logit[c] = log of the sum over the keys of c of weight exp(similarity / temperature)``, for ``k-nearest`` over
        those that vote; minus infinity where there is none.

        Parameters
        ----------
        similarity : ndarray of shape (q, m)
            Of each query to each key.
        log_weight, labels : ndarray of shape (m,)
            Of each key its weight, and its class as a number below `n_classes`.
        n_classes : int
            How many there are.
        eps : float
            Rounding of the embeddings: keys that are equally far up to it share a vote.
        """
        scores = similarity / self.temperature + log_weight
        if self.n_neighbors is not None:
            with np.errstate(divide="ignore"):
                scores += np.log(_voting(similarity, np.exp(log_weight), self.n_neighbors, eps))
        logits = np.full((len(scores), n_classes), -np.inf)
        for label in np.unique(labels):
            logits[:, label] = _log_sum_exp(scores[:, labels == label])
        return logits


def check_temperature(value: Any) -> None:
    """Refuse a temperature by which similarities cannot be divided.

    Raises
    ------
    ValueError
        If it is no number from 1e-9 to 1e12.
    """
    if not is_number(value, 1e-9, 1e12):
        raise ValueError(f"temperature is {value!r}; expected a number from 1e-9 to 1e12")


def _log_sum_exp(scores: Array) -> Array:
    top = scores.max(1)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(scores - top[:, None]).sum(1)) + top


def _voting(similarity: Array, weight: Array, k: int, eps: float) -> Array:
    """Return the part (q, m), in 0..1, of each key's weight that is among the nearest of total weight `k`.

    Keys that are equally far, and of which only some fit, share what is left.
    """
    order = np.argsort(-similarity, axis=1, kind="stable")
    reached = weight[order].cumsum(1) >= k * (1 - 1e-5)
    last = np.where(reached.any(1), reached.argmax(1), similarity.shape[1] - 1)
    edge = np.take_along_axis(similarity, order, 1)[np.arange(len(order)), last][:, None]
    slack = 64 * eps * np.abs(similarity).max(1, keepdims=True)
    nearer, level = similarity > edge + slack, np.abs(similarity - edge) <= slack
    above, equal = ((mask * weight).sum(1, keepdims=True) for mask in (nearer, level))
    return np.where(level, np.clip((k - above) / np.where(equal > 0, equal, 1), 0, 1), nearer)
