"""Queries with known answers, for which the effort of an approximate search is tuned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewshot.search.approximate import TUNED_FOR
from fewshot.search.similarity import KeySnapshot

#: Number of queries of each kind, and the place of the first kind between a key (0) and its nearest neighbour (1).
N_TRIALS, WAY_OUT = 400, 0.4


@dataclass(frozen=True)
class Trials:
    """Queries of two kinds and the similarities of their nearest keys by exact search.

    Those of the first kind lie between some keys and their nearest neighbours, as far from the key as its queries may
    well be. Those of the second kind are drawn as the keys are: they are keys, which nobody may find.

    Attributes
    ----------
    queries : Tensor of shape (q, d)
        In float64.
    nearest : Tensor of shape (q, k)
        Their nearest similarities, in float64.
    held : bool Tensor of shape (m,)
        The keys that are queries.
    """

    queries: Tensor
    nearest: Tensor
    held: Tensor

    @classmethod
    def of(cls, snapshot: KeySnapshot) -> Trials:
        """Draw queries for the keys of a snapshot, and search exactly for their neighbours."""
        m = len(snapshot.keys)
        order = torch.from_numpy(np.random.default_rng(1).permutation(m))
        drawn, some = (places.sort().values for places in (order[: min(N_TRIALS, m // 4)], order[-N_TRIALS:]))
        held = torch.zeros(m, dtype=torch.bool, device="cpu")
        held[drawn] = True
        some_keys, drawn_keys = (snapshot.rows(places).double() for places in (some, drawn))
        neighbours = snapshot.exact_top(some_keys, min(2, m))[0][:, -1]
        near = torch.lerp(some_keys, snapshot.rows(neighbours).double(), WAY_OUT)
        queries = torch.cat([near, drawn_keys])
        k = max([1, *(k for k in TUNED_FOR if k <= m // 4)])
        ids = torch.cat([snapshot.exact_top(part, k, held)[0] for part in queries.split(snapshot.search_chunk(k))])
        parts = zip(queries.split(16), ids.split(16), strict=True)
        nearest = torch.cat([snapshot.score(x, snapshot.keys[places]) for x, places in parts])
        return cls(queries, nearest.sort(-1, descending=True).values, held)

    def recalls(self, similarity: Tensor) -> dict[int, float]:
        """Return the share of the nearest keys among those found, with `similarity` (q, k), for each number of keys.

        It is the share of the kind of queries that finds fewer. Equal keys stand for each other.
        """
        found = {}
        for k in TUNED_FOR:
            if k <= self.nearest.shape[1]:
                hits = (similarity[:, :k] >= self.nearest[:, k - 1 : k]).double().sum(-1) / k
                kinds = hits[self.is_near], hits[~self.is_near]
                found[k] = min(float(kind.mean()) for kind in kinds if len(kind))
        return found

    @property
    def is_near(self) -> Tensor:
        """Which queries (q,) are of the first kind."""
        n = len(self.queries)
        return torch.arange(n, device="cpu") < n - int(self.held.sum())
