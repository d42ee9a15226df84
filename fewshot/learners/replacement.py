"""Which rows of kept support stay where a memory is full."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REPLACEMENTS = ("reservoir", "oldest")


def rows_to_keep(support: Mapping[str, Tensor], limit: int, replacement: str) -> Tensor | None:
    """Return the places of at most `limit` rows a class, in the order in which they came; None for all.

    Parameters
    ----------
    support : dict of str to Tensor
        Kept support, without leading dimensions; see `Statistics`.
    limit : int
        Rows a class.
    replacement : {"reservoir", "oldest"}
        ``oldest`` keeps the newest rows. ``reservoir`` keeps a uniform sample of all that came: each row has a random
        number that its content decides, and the smallest stay (bottom-k sampling), so the sample depends neither on
        the order nor on the portions in which support came, and samples of two memories merge into that of both.

    References
    ----------
    J. S. Vitter (1985). Random sampling with a reservoir. ACM TOMS 11(1).
    E. Cohen, H. Kaplan (2007). Summarizing data using bottom-k sketches. PODC.
    """
    labels, weight = (support[name].numpy() for name in ("labels", "weight"))
    if np.bincount(labels, minlength=1).max() <= limit:
        return None
    rows = np.flatnonzero(weight > 0)  # rows of weight 0 never counted
    last = _content_order(support["x"].numpy()[rows]) if replacement == "reservoir" else -rows
    by_class = rows[np.lexsort((last, labels[rows]))]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    return torch.from_numpy(np.sort(by_class[np.arange(len(by_class)) - starts < limit]))


def _content_order(x: NDArray[np.floating]) -> NDArray[np.uint64]:
    """Return a number for each row of `x` (n, d), random but decided by its content."""
    digests = (blake2b(row.tobytes(), digest_size=8).digest() for row in x + 0.0)  # minus zero equals zero
    return np.frombuffer(b"".join(digests), np.uint64)
