"""Which rows of kept support a bounded memory retains."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REPLACEMENTS = ("reservoir", "oldest")


def rows_to_keep(support: Mapping[str, Tensor], limit: int, replacement: str) -> Tensor | None:
    """Return the positions of at most `limit` rows per class, in their order; None if all stay.

    Parameters
    ----------
    support : dict of str to Tensor
        Kept support, without leading dimensions; see `Statistics`.
    limit : int
        Rows retained per class.
    replacement : {"reservoir", "oldest"}
        ``oldest`` drops the oldest rows. ``reservoir`` retains a uniform sample of all rows seen: those whose hashes
        are smallest (bottom-k sampling). The sample does not depend on the order or the portions in which support
        arrived, and merging the samples of two memories gives the sample of both.

    References
    ----------
    J. S. Vitter (1985). Random sampling with a reservoir. ACM TOMS 11(1).
    E. Cohen, H. Kaplan (2007). Summarizing data using bottom-k sketches. PODC.
    """
    labels, weight = (support[name].numpy() for name in ("labels", "weight"))
    if np.bincount(labels, minlength=1).max() <= limit:
        return None
    rows = np.flatnonzero(weight > 0)  # rows of weight 0 were never counted
    last = _hashes(support["x"].numpy()[rows]) if replacement == "reservoir" else -rows
    by_class = rows[np.lexsort((last, labels[rows]))]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    return torch.from_numpy(np.sort(by_class[np.arange(len(by_class)) - starts < limit]))


def _hashes(x: NDArray[np.floating]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each row of `x` (n, d)."""
    digests = (blake2b(row.tobytes(), digest_size=8).digest() for row in x + 0.0)  # minus zero equals zero
    return np.frombuffer(b"".join(digests), np.uint64)
