"""Drift: how near the examples are to the images that clients ask about, whether or not they ask for neighbours."""

from __future__ import annotations

import logging
import time

import numpy as np

from fewshot.embedding.network import Embedded
from fewshot.images.answer import nearest_support
from fewshot.serve.metrics import Metrics
from fewshot.serve.view import View

_log = logging.getLogger("fewshot.serve")
#: Seconds between two images that are compared with the examples, at least, and as a multiple of what the last took:
#: the first of a new version makes keys of all examples.
PAUSE, TIMES = 1.0, 50
#: Most examples that are compared: their keys take 10 KB each of memory, and predictions need none.
MOST_EXAMPLES = 10_000


class Drift:
    """Compare an image with the examples at most once a second, for ``fewshot_nearest_similarity``.

    Parameters
    ----------
    metrics : Metrics
        Told of the similarities.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._next = metrics, 0.0

    def is_due(self, view: View) -> bool:
        """Whether an image is to be compared now."""
        now = time.monotonic()
        if now < self._next or not 0 < len(view.support) <= MOST_EXAMPLES:
            return False
        self._next = now + PAUSE
        return True

    def observe(self, view: View, embedded: Embedded) -> None:
        """Compare the first image that could be read."""
        start, unread = time.monotonic(), {error.index for error in embedded.errors}
        row = next(i for i in range(len(embedded.embeddings)) if i not in unread)
        x = np.asarray(embedded.embeddings[row : row + 1])
        try:
            ((near,),) = nearest_support(view.learned.classifier, view.support, x, 1, nearby=view.nearby)
        except Exception:  # nobody waits for it
            _log.exception("an image could not be compared with the examples")
            return
        now = time.monotonic()
        self._next = max(self._next, now + TIMES * (now - start))
        self._metrics.similarity.observe(near.similarity)
