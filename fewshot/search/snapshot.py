"""Sets of keys in which FAISS finds the candidates, with the scores of exact search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.search.approximate import CANDIDATES, GLANCED_FROM, SPARE, Approximate, Choice, most_candidates
from fewshot.search.background import begin, while_wanted
from fewshot.search.limits import exact_limit
from fewshot.search.packing import width
from fewshot.search.similarity import CHUNK_BYTES, PART, KeySnapshot, PreparedKeys, top
from fewshot.search.single import LARGEST_SQUARE, LEAST_SQUARE, Array, Marks, best, shortlist, similarities
from fewshot.search.trials import Trials
from fewshot.utils.isolation import isolated
from fewshot.utils.locks import lock_of
from fewshot.utils.values import NEEDS_FLOAT64

Index = Literal["auto", "exact", "faiss", "ivf", "hnsw"]
INDEXES: tuple[Index, ...] = get_args(Index)
#: Up to this many keys exact search is affordable; by default fewer, where FAISS takes half the time (`exact_limit`).
EXACT_LIMIT = 100_000
#: An index of up to this many keys is built at once, a larger one in the background.
QUICK = 8192
#: Queries this many times as far from the middle as keys are compared exactly; about how many keys are looked at.
FAR, N_LOOKED_AT = 100, 1024
#: A graph compares keys along the directions in which they differ most: fewest and most of them, and the share of the
#: variance that they should hold. Of this many keys they are found.
DIRECTIONS, SHARE, SAMPLE = (32, 128), 0.8, 16384
#: Number of tuning queries answered at a time.
PART_OF_TRIALS = 64


def take_snapshot(
    keys: Tensor, metric: str, index: str = "auto", recall: float = 0.99, *, steady: bool = False
) -> KeySnapshot:
    """Return keys (m, d) that are searched through `index`, or exactly if that is faster; see `KeySnapshot`."""
    kind = choose_kind(index, metric, len(keys), width(keys), recall)
    if kind == "exact":
        return KeySnapshot(keys, metric, index, recall, steady=steady)
    return FaissSnapshot(kind, keys, metric, index, recall, steady=steady)


class FaissSnapshot(KeySnapshot):
    """An immutable set of keys of which FAISS proposes candidates; their scores are those of exact search.

    Parameters
    ----------
    kind : {"flat", "ivf", "hnsw"}
        Structure of the index, which is built when first needed.
    keys, metric, index, recall, steady
        As for `KeySnapshot`.
    """

    def __init__(
        self, kind: str, keys: Tensor, metric: str, index: str, recall: float, *, steady: bool = False
    ) -> None:
        super().__init__(keys, metric, index, recall, steady=steady)
        self.kind = kind
        self._index: Approximate | None = None

    # ---- the frame of FAISS -----------------------------------------------------------------------------------------

    @cached_property
    def _centre(self) -> Tensor | float:
        """The mean unit vector for ``cosine``: unit vectors rank by distance, which it does not change."""
        if self.metric != "cosine":
            return 0.0
        total = sum(
            (self.prepare(part).keys.sum(0) for part in self.keys.split(PART)),
            torch.zeros(1, dtype=torch.float32, device="cpu"),
        )
        return total / max(len(self.keys), 1)

    @cached_property
    def _axes(self) -> Tensor | None:
        """The directions (d, p) along which a graph compares keys; None for all."""
        m, d = len(self.keys), width(self.keys)
        if self.kind != "hnsw" or d <= DIRECTIONS[0]:
            return None
        places = torch.from_numpy(np.sort(np.random.default_rng(2).permutation(m)[:SAMPLE]))
        sample = self._shifted(self.keys[places])
        sample -= sample.mean(0)
        variance, axes = np.linalg.eigh((sample.T @ sample).numpy())
        share = np.cumsum(variance[::-1]) / max(float(variance.sum()), np.finfo(np.float64).tiny)
        p = int(np.clip(np.searchsorted(share, SHARE) + 1, DIRECTIONS[0], min(DIRECTIONS[1], d)))
        return torch.from_numpy(axes[:, ::-1][:, :p].copy())

    def _shifted(self, x: Tensor) -> Tensor:
        """Bring keys or queries into FAISS's frame, in float64."""
        return (self.prepare(x).keys - self._centre) / self._scale

    def _to_faiss(self, x: Tensor, are_keys: bool = False) -> NDArray[np.float32]:
        """Bring keys or queries into FAISS's frame and range: outside it, FAISS would answer -1."""
        shifted = self._shifted(x)
        if self._axes is not None:
            shifted = shifted @ self._axes
        if self.metric == "dot" and not are_keys:  # the length of a query does not change its ranking
            shifted = shifted / shifted.abs().amax(-1, keepdim=True).clamp(min=1)
        shifted = shifted.clamp(-NEEDS_FLOAT64, NEEDS_FLOAT64)
        return np.ascontiguousarray(shifted.float().numpy())

    @property
    def approximate(self) -> Approximate:
        """The FAISS index, built first if it is missing, while other threads wait."""
        with lock_of(self):
            return self.built or self._build(lambda: self)

    @property
    def ready(self) -> Approximate | None:
        """The FAISS index; None if it is being built in the background, which begins when this is first asked.

        It stays None if no effort reaches the recall and the choice is free, so that exact search goes on.
        """
        if self.built is None and len(self.keys) > QUICK:
            begin(self, FaissSnapshot._build, "building an index in the background")
            return None
        found = self.approximate
        return None if found.choice.kind == "exact" else found

    @staticmethod
    @isolated(gradients=False)
    def _build(alive: Callable[[], FaissSnapshot]) -> Approximate:
        """Build the index of the snapshot that ``alive()`` returns, unless another thread has."""

        def rows(places: NDArray[np.int64]) -> NDArray[np.float32]:
            snapshot = alive()
            return snapshot._to_faiss(snapshot.keys[torch.from_numpy(places)], are_keys=True)

        def measure(effort: int, n: int) -> dict[int, float]:
            if effort not in proposed:
                proposed.clear()
                proposed[effort] = alive()._proposed(found, trials, effort)
            return alive()._recalls(trials, [ids[:, :n] for ids in proposed[effort]])

        proposed: dict[int, list[NDArray[np.int64]]] = {}
        if (snapshot := alive()).built is not None:
            return snapshot.built
        began, m, d, recall = time.perf_counter(), *snapshot.frame_shape, snapshot.recall
        kind, is_product, is_free = snapshot.kind, snapshot.metric == "dot", snapshot.index in ("auto", "faiss")
        del snapshot  # so that it can be forgotten
        found = Approximate.build(kind, is_product, m, d, rows)
        if kind != "flat":
            trials = Trials.of(alive())
            with found.without(trials.held.numpy()):
                found.tune(measure, recall)
            if kind == "ivf" and m >= GLANCED_FROM:
                found.hasten(*alive()._glanced(found, trials), recall)
        if is_free and found.choice.recall < recall:
            found = Approximate(None, Choice("exact"))
        found.took(time.perf_counter() - began, m)
        alive()._index = found
        return found

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Number of rows that FAISS holds, and their length."""
        m, d = len(self.keys), width(self.keys)
        return m, d if self._axes is None else self._axes.shape[1]

    def _proposed(self, index: Approximate, trials: Trials, effort: int) -> list[NDArray[np.int64]]:
        """Return what an index proposes at one effort, for a part of the queries after another."""
        wanted = min(len(self.keys), most_candidates(self.kind, effort, trials.nearest.shape[1]))
        parts = while_wanted(trials.queries.split(PART_OF_TRIALS))
        return [index.search(self._to_faiss(x), wanted, effort)[0] for x in parts]

    def _glanced(self, index: Approximate, trials: Trials) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return how close the best is that a first look finds for each tuning query, and what `hasten` asks of it."""
        held, n = trials.held.numpy(), min(len(self.keys), index.choice.efforts[0][2])
        found = [index.glance(self._to_faiss(x), n, held) for x in while_wanted(trials.queries.split(PART_OF_TRIALS))]
        is_right = self._similarities(trials, [ids for ids, _ in found])[:, 0] >= trials.nearest[:, 0]
        return np.concatenate([closeness for _, closeness in found]), is_right.numpy(), trials.is_near.numpy()

    def _recalls(self, trials: Trials, proposed: list[NDArray[np.int64]]) -> dict[int, float]:
        """Return the recall of candidates, for each number of neighbours."""
        return trials.recalls(self._similarities(trials, proposed))

    def _similarities(self, trials: Trials, proposed: list[NDArray[np.int64]]) -> Tensor:
        """Return the similarities (q, k) of the best candidates to the tuning queries."""
        k, parts = trials.nearest.shape[1], zip(trials.queries.split(PART_OF_TRIALS), proposed, strict=True)
        return torch.cat([self._best(x, ids, min(k, ids.shape[1]), trials.held)[1] for x, ids in while_wanted(parts)])

    def grown(self, more: Tensor) -> FaissSnapshot | None:
        """Return a snapshot of these keys and `more` (k, d), added to the graph; None if one must be built."""
        if self.built is None or self._largest(more) > NEEDS_FLOAT64 or self._scale != 1:
            return None
        if (index := self.built.grown(self._to_faiss(more, are_keys=True))) is None:
            return None
        keys = torch.cat([self.keys, more])
        snapshot = FaissSnapshot(self.kind, keys, self.metric, self.index, self.recall, steady=self.steady)
        snapshot.adopt(index, self.frame)
        return snapshot

    def build(self) -> Choice:
        """Build the index if it is missing; return what was chosen and how good it is."""
        return self.approximate.choice

    @property
    def built(self) -> Approximate | None:
        """The FAISS index, if it has been built."""
        return self._index

    @property
    def frame(self) -> dict[str, Tensor]:
        """The tensors that took a pass over all keys to compute, for `adopt`."""
        found = {"offset": self.offset, "centre": self._centre, "scale": self._scale, "axes": self._axes}
        return {name: torch.as_tensor(value, device="cpu") for name, value in found.items() if value is not None}

    def adopt(self, index: Approximate, frame: Mapping[str, Tensor]) -> None:
        """Take over the index and the `frame` of the same keys instead of computing them again."""
        centre = frame["centre"]
        self.__dict__ |= {
            "offset": frame.get("offset"),
            "_centre": centre if centre.ndim else float(centre),
            "_scale": float(frame["scale"]),
            "_axes": frame["axes"].double() if "axes" in frame else None,
            "_index": index,
        }

    # ---- searching --------------------------------------------------------------------------------------------------

    def _are_far(self, x: NDArray[np.float32]) -> Tensor:
        """Return which queries (q, p), in FAISS's frame, lie so far from all keys that its distances are rounded."""
        return torch.from_numpy(np.vecdot(x, x) > self._far)

    @cached_property
    def _far(self) -> float:
        if self.metric == "dot":
            return np.inf
        some = self._to_faiss(self.keys[:: max(1, len(self.keys) // N_LOOKED_AT)])
        return FAR**2 * float(np.vecdot(some, some).max(initial=0))

    def retrieve(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Score `queries` (q, d) against the candidates that FAISS proposes; see `KeySnapshot.retrieve`."""
        n_candidates = min(len(self.keys), max(4 * k, CANDIDATES))
        if (index := self.ready) is None:
            return self.exact_top(queries, n_candidates)
        x = self._to_faiss(queries)
        ids = torch.from_numpy(index.propose(x, k, n_candidates))
        if (far := self._are_far(x)).any():
            ids = ids.clone()
            ids[far] = self.exact_top(queries[far], ids.shape[1])[0]
        similarity = self.score(queries, self.keys[ids.clamp(min=0)])
        return ids, torch.where(ids >= 0, similarity, -torch.inf).to(self._answer_dtype(queries))

    def search(
        self, queries: Tensor, k: int, dead: Tensor | None = None, sought: int = 0, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ids and similarities (q, k) of the nearest keys found; see `KeySnapshot.search`."""
        if (index := self.ready) is None:
            return self.exact_top(queries, k, dead)
        x = self._to_faiss(queries)
        marks = None if dead is None else dead.numpy()
        elsewhere = np.full(1, -np.inf) if known is None else known.numpy()
        proposed = self._candidates(index, x, queries.numpy(), k, marks, sought or k, elsewhere)
        ids, similarity = self._best(queries, proposed, k, dead)
        missed = (similarity[:, -1] == -torch.inf) | self._are_far(x)
        if missed.any():  # candidates may be dead, or a graph reaches few, and an id of -1 must never become a label
            ids, similarity = ids.clone(), similarity.to(torch.promote_types(similarity.dtype, queries.dtype))
            found = self.exact_top(queries[missed], k, dead)
            ids[missed], similarity[missed] = found[0], found[1].to(similarity.dtype)
        return ids, similarity.to(self._answer_dtype(queries))

    def _candidates(
        self, index: Approximate, x: NDArray[np.float32], queries: Array, k: int, dead: Marks, sought: int, known: Array
    ) -> NDArray[np.int64]:
        """Return candidates (q, c) for queries, `x` (q, p) in FAISS's frame; see `KeySnapshot.search`."""
        least = 2 * k + SPARE
        if sought > 1 or not index.choice.glance:
            return index.propose(x, sought, least)
        if self._scale != 1:  # of keys that FAISS has in other units
            known = np.asarray(-np.inf)
        scores = known if self.metric == "dot" else 2 - 2 * known if self.metric == "cosine" else -known
        return index.propose_nearest(x, least, dead, index.closeness(scores, queries))

    def search_one(
        self, x: Array, k: int, dead: Marks = None, sought: int = 0, known: float = -np.inf
    ) -> tuple[NDArray[np.int64], Array] | None:
        """Return ids and similarities (k,) of the nearest keys found for one query (d,); None if only `search` can."""
        if (index := self.ready) is None or not self._fits_float32:
            return None
        if (query := self._one_to_faiss(x)) is None or self._are_far(query).any():
            return None
        ids = self._candidates(index, query, x[None], k, dead, sought or k, np.array([known]))[0]
        if dead is not None:
            ids = ids[(ids >= 0) & ~dead[ids]]
        if len(ids) < k or ids.min() < 0:
            return None
        ids.sort()  # ties go to the first, and the memory is read in order
        rows, wanted = self.rows(torch.from_numpy(ids)).numpy(), 2 * k + SPARE
        if len(ids) > wanted:
            places = shortlist(x.astype(np.float32, copy=False), rows, self.metric, wanted)
            ids, rows = ids[places], rows[places]
        similarity = similarities(x.astype(np.float64), rows.astype(np.float64), self.metric)
        places = best(similarity, k)
        return ids[places], similarity[places].astype(x.dtype)

    def _one_to_faiss(self, x: NDArray[np.floating]) -> NDArray[np.float32] | None:
        """Bring one query (d,) into FAISS's frame as `_to_faiss` does; None if its squares would lose digits."""
        axes, offset, centre = self._numpy_frame
        square = np.vecdot(x, x)
        if not LEAST_SQUARE < square < LARGEST_SQUARE:
            return None
        shifted = x.astype(np.float64)
        if self.metric == "cosine":
            shifted /= np.sqrt(square)
        elif self.metric == "dot":
            shifted /= max(1.0, float(np.abs(shifted).max()))
        if offset is not None:
            shifted -= offset
        shifted -= centre
        return (shifted if axes is None else shifted @ axes)[None].astype(np.float32)

    @cached_property
    def _fits_float32(self) -> bool:
        """Whether float32 tells which of some candidates are near."""
        return self.keys.dtype != torch.float64 and self._scale == 1 and not self.needs_double

    @cached_property
    def _numpy_frame(self) -> tuple[NDArray[Any] | None, NDArray[Any] | None, Any]:
        axes, offset = (None if x is None else x.numpy() for x in (self._axes, self.offset))
        centre = self._centre.numpy() if isinstance(self._centre, Tensor) else self._centre
        return axes, None if offset is None else offset[0], centre

    def _best(
        self, queries: Tensor, ids: NDArray[np.int64], k: int, dead: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ids and float64 similarities (q, k) of the best candidates `ids` (q, c), minus infinity for none."""
        gone, marks = ids < 0, None if dead is None else dead.numpy()
        if marks is not None:
            gone |= marks[ids]
        ids = np.where(gone, -1, ids)
        if ids.shape[1] > 2 * k + SPARE and self._fits_float32:
            ids = self._better(queries.float().numpy(), ids, 2 * k + SPARE)
        found = torch.from_numpy(ids)
        similarity = self.score(queries, self.keys[found.clamp(min=0)])
        return top(found, similarity.masked_fill(found < 0, -torch.inf), k)

    def _better(self, x: NDArray[np.float32], ids: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Return the `k` best of candidates `ids` (q, c) of queries `x` (q, d) in float32, in any order."""
        chosen = np.empty((len(ids), k), np.int64)
        for query, row, found in zip(x, ids, chosen, strict=True):
            live = row if row.min() >= 0 else row[row >= 0]
            found[:] = -1
            if len(live) > k:
                rows = self.rows(torch.from_numpy(live)).numpy()
                live = live[shortlist(query, rows, self.metric, k)]
            found[: len(live)] = live
        return chosen

    def exact_top(self, queries: Tensor, k: int, dead: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what exact search finds; see `KeySnapshot.exact_top`.

        Queries in float64 are compared in float32 first, and the best of all keys again in float64.
        """
        n_best = min(len(self.keys), 2 * k + SPARE)
        if queries.dtype == torch.float32 or self._plain is None or self.needs_double or n_best == len(self.keys):
            return super().exact_top(queries, k, dead)
        ids, ranks = super().exact_top(queries.float(), n_best, dead)
        similarity = torch.where(torch.isfinite(ranks), self.score(queries, self.keys[ids]), -torch.inf)
        return top(ids, similarity, k)

    def _parts(self, queries: Tensor, k: int) -> Iterator[PreparedKeys]:
        """Yield all keys, a part at a time: users of FAISS should not pay for a prepared copy of all."""
        if self._plain is not None and queries.dtype == torch.float32 and not (self.steady or self.needs_double):
            yield from while_wanted(self._plain.parts(len(queries), k))
            return
        parts = while_wanted(map(self.prepare, self.keys.split(max(PART, 4 * k))))
        yield from (part.steadied() if self.steady else part for part in parts)

    def chunk(self, k: int = 1) -> int:
        """Return how many queries to score at a time, so that the work fits `CHUNK_BYTES`."""
        m, d = self.keys.shape
        return max(1, CHUNK_BYTES // (8 * max(min(m, max(4 * k, CANDIDATES)) * d + d, 1)))

    search_chunk = chunk


def build_now(snapshot: KeySnapshot | None) -> Choice:
    """Build what finds the nearest keys, if it is missing, and wait; return how they are found, and how well."""
    return snapshot.build() if isinstance(snapshot, FaissSnapshot) else Choice("exact")


def choose_kind(index: str, metric: str, n: int, d: int, recall: float = 0.99) -> str:
    """Return what searches `n` keys of `d` numbers.

    Few keys are searched exactly, and more through a graph. It finds unnormalised inner products badly, so ``dot`` is
    searched in inverted lists. A recall of 1 needs all keys.
    """
    if not n:
        return "exact"
    if index == "faiss" and n <= EXACT_LIMIT:
        return "flat"
    if index == "exact" or recall == 1:
        return "exact"
    if index == "hnsw":
        return "flat" if metric == "dot" else "hnsw"
    if index == "ivf":
        return index
    if n <= min(EXACT_LIMIT, exact_limit(metric, d)):
        return "exact"
    return "ivf" if metric == "dot" else "hnsw"
