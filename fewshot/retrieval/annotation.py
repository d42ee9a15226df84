"""What a classifier says of one image of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.retrieval.stores.records import Record
from fewshot.utils.plain import plain_dict

#: What the payload of a record holds of an annotation.
ANSWERS = ("likeliest", "probability", "unknown", "nearest")


@dataclass(frozen=True, eq=False)
class Annotation:
    """Embedding and label of an image.

    Attributes
    ----------
    id : str
        As given; by default its path or text, or its number in the stream.
    vector : ndarray of shape (d,), float32, or None
        Its embedding; None if it could not be read.
    label : object
        Its class; the unknown label if it is too far from all, None if it could not be read.
    probability : float
        Of the `likeliest` class, also if it is unknown; 0 if it could not be read.
    unknown : bool
        Whether it is too far from every class; see `FewShotModel.calibrate`.
    nearest : object
        The class of the nearest key, such as a prototype; None for learners without keys.
    similarity : float
        To that key; NaN if there is none.
    error : str
        Why it could not be read; else empty.
    embedder : str
        Fingerprint of the embedder.
    likeliest : object
        The likeliest class: the label, unless that is unknown; None if it could not be read.
    """

    id: str
    vector: NDArray[np.float32] | None
    label: Any
    probability: float
    unknown: bool
    nearest: Any
    similarity: float
    error: str = ""
    embedder: str = ""
    likeliest: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which JSON can hold, in the order of a table of ``fewshot annotate``.

        ``vector`` is a list of numbers, or None; ``similarity`` is None if there is none.

        Examples
        --------
        >>> Annotation("a.png", np.ones(2, np.float32), "ant", 0.9, False, "ant", 0.75).to_dict()["vector"]
        [1.0, 1.0]
        """
        names = ("id", "label", "vector", *ANSWERS, "similarity", "error", "embedder")
        return plain_dict(**{name: getattr(self, name) for name in names})

    def record(self, payload: Mapping[str, Any] = MappingProxyType({})) -> Record:
        """Return the record that a `Store` keeps.

        Parameters
        ----------
        payload : mapping, optional
            Your own values of the image to filter by, by name, such as ``{"price": 12.5, "shop": "Oslo"}``: text,
            numbers, true and false. A store keeps missing ones, such as the NaN of an empty cell, as None.

        Raises
        ------
        ValueError
            If the image could not be read, or `payload` has a name that the annotation gives itself.
        """
        if self.vector is None:
            raise ValueError(
                f"{self.id} could not be read ({self.error}), so there is nothing to store; leave out what has an error"
            )
        if taken := [name for name in ("label", *ANSWERS) if name in payload]:
            raise ValueError(
                f"the payload of {self.id!r} has {taken[0]!r}, which the annotation gives itself; choose another name"
            )
        own = {name: getattr(self, name) for name in ANSWERS}
        return Record(self.id, self.vector, self.label, {**own, **payload}, self.embedder)
