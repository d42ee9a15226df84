"""What a device keeps of images that are none of its classes, to tell unknown images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fewshot.runtime.memory import DeviceMemory
from fewshot.runtime.method import DeviceMethod
from fewshot.utils.familiarity import Familiarity, HeldOut, teaching, unlearned


@dataclass(frozen=True, eq=False)
class DeviceBackground:
    """Embeddings of images that are none of the classes.

    Attributes
    ----------
    x : ndarray of shape (n, d)
        Embeddings.
    codes : ndarray of shape (n,)
        Number of the held-out class of each; -1 for images that are none of the classes, which also count against an
        image that is like them.
    """

    x: NDArray[np.floating]
    codes: NDArray[np.int64]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], d: int) -> Self:
        """Build from untrusted arrays for embeddings of length `d`.

        Raises
        ------
        ValueError
            If they are not such embeddings.
        """
        if arrays.keys() != {"x", "codes"}:
            raise ValueError(f"it holds {', '.join(arrays)}; expected x and codes")
        found = cls(arrays["x"], arrays["codes"])  # type: ignore[arg-type]
        is_fit = found.x.ndim == 2 and found.x.shape[1] == d and found.codes.shape == (len(found.x),)
        are_numbers = found.x.dtype in (np.float32, np.float64) and found.codes.dtype == np.int64
        if not (is_fit and are_numbers and np.isfinite(found.x).all()):
            raise ValueError(f"it does not hold finite embeddings of {d} numbers")
        return found

    def familiarity(self, memory: DeviceMemory, method: DeviceMethod) -> Familiarity:
        """Return how familiar queries are to a memory.

        Raises
        ------
        ValueError
            If the method compares queries with keys alone.
        """
        if (support := method.familiar_rows(memory)) is None:
            raise ValueError(f"{method.name} compares images with keys alone; export it again")
        others = method.transform(self.x)
        kept = unlearned(support.x, others, self.codes)
        others, codes = others[kept], self.codes[kept]
        is_none = codes < 0
        held_out = HeldOut.of(others[~is_none], codes[~is_none], np)
        rows = np.concatenate([teaching(support, np), *held_out.rows, others[is_none]])
        return Familiarity.of(rows, support.means, support.count, others[is_none], np)
