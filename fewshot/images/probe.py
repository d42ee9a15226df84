"""What a saved network answered, by which a change of its code is noticed."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewshot.embedding.embedder import Embedder
from fewshot.images.stored import backbone_of
from fewshot.utils.warning import warn

#: Numbers of an embedding that are kept, and the share of their length by which devices and precisions differ at most.
_KEPT, _OTHERWISE = 32, 0.1


def probe_of(embedder: Any) -> list[float] | None:
    """Return some numbers of an embedding; None unless the network computes with code of somebody's own."""
    if not isinstance(embedder, Embedder) or not embedder.code:
        return None
    embedding = embedder.probe().astype(np.float64).ravel()
    return [float(f"{value:.6g}") for value in embedding[:: max(1, len(embedding) // _KEPT)]]


def warn_of_code(embedder: Any, saved: Any) -> None:
    """Warn if a network computes otherwise than when a model with it was saved, with this result of `probe_of`.

    Raises
    ------
    ValueError
        If `saved`, which a stranger may have written, is no list of numbers of such an embedding.
    """
    if saved is None or (now := probe_of(embedder)) is None:
        return
    if not isinstance(saved, list) or len(saved) != len(now) or not all(isinstance(one, float) for one in saved):
        raise ValueError("its numbers of an embedding are not those of its network")
    before = np.array(saved)
    if not np.linalg.norm(now - before) <= _OTHERWISE * np.linalg.norm(before):
        warn(
            f"the network {backbone_of(embedder)} computes otherwise than when this model was saved, so its code has "
            "changed, and answers may be wrong; restore the code, or fit again"
        )
