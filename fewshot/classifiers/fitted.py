"""`FittedModel`: what a classifier has learned, how it changes and how it answers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.errors import brief
from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory, Statistics
from fewshot.search.similarity import CHUNK_BYTES, KeySnapshot, argmax, check_k, search_in_chunks, to_tensor
from fewshot.search.snapshot import take_snapshot
from fewshot.utils.heap import refuse_too_large
from fewshot.utils.isolation import isolated
from fewshot.utils.means import suitable_temperature
from fewshot.utils.text import listed
from fewshot.utils.warning import warn

T = TypeVar("T")
#: Largest relative difference between removed and learned rows, by item size. Float32 rows come from a network, which
#: rounds differently in other batches; float64 rows may have been float32 in between.
SAME_ROWS = {4: 1e-4, 8: 1e-6}
#: A temperature this many times below the one that suits the embeddings deserves a warning.
SHARP = 4


@dataclass(frozen=True, eq=False)
class FittedModel:
    """Everything an answer needs. It is replaced as a whole, so concurrent readers see the old or the new model.

    Attributes
    ----------
    learner : Learner
        In double precision and evaluation mode, on the CPU.
    classes : ndarray of shape (n_classes,)
        Sorted labels.
    n_support : ndarray of shape (n_classes,)
        Support rows of each class, without those of weight 0.
    statistics : Statistics
        Summary of all support, in float64.
    memory : Memory
        The present keys.
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="auto"
        What the keys are searched through.
    steady : bool, default=False
        Whether answers to float32 queries are equal to the last bit in any batch.
    """

    learner: Learner
    classes: NDArray[Any]
    n_support: NDArray[np.int64]
    statistics: Statistics
    memory: Memory
    index: str = "auto"
    steady: bool = False
    _snapshots: dict[tuple[str, bool], KeySnapshot] = field(default_factory=dict, repr=False)
    _made: list[tuple[Any, Any]] = field(default_factory=list, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_snapshots": {}, "_made": []}  # created again on demand

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"_snapshots": {}, "_made": [], **state})  # pickles of older versions have none

    @classmethod
    @isolated(gradients=False)
    def learn(
        cls,
        learner: Learner,
        X: NDArray[np.floating],
        y: NDArray[Any],
        weight: NDArray[np.float64],
        classes: NDArray[Any],
        old: FittedModel | None = None,
    ) -> FittedModel:
        """Learn support `X` (n, d) with labels `y` and `weight` (n,) in addition to `old`.

        `classes` are the sorted labels of both.
        """
        codes = np.searchsorted(classes, y)
        own = np.unique(codes)  # summarised on their own: they may be one class of ten thousand
        n_own, new = _summarise(learner, X, np.searchsorted(own, codes), weight, len(own))
        if old is not None:
            return old._joined(n_own, new, own, classes)
        n_support = np.zeros(len(classes), np.int64)
        n_support[own] = n_own
        statistics = new.relabel(torch.from_numpy(own), len(classes))
        return cls.of(learner, classes, n_support, learner.settle(statistics))

    @classmethod
    @isolated(gradients=False)
    def of(
        cls, learner: Learner, classes: NDArray[Any], n_support: NDArray[np.int64], statistics: Statistics
    ) -> FittedModel:
        """Return the model of the given statistics."""
        memory = learner.memorize(statistics)
        if kept := statistics.support:  # a bounded memory may have dropped rows
            n_support = np.bincount(kept["labels"][kept["weight"] > 0].numpy(), minlength=len(classes))
        return cls(learner, classes, n_support, statistics, memory.present() if learner.indexable else memory)

    def served(self, index: str, steady: bool = False) -> FittedModel:
        """Return this model with its keys searched through `index`, `steady` as for `KeySnapshot`."""
        return replace(self, index=index, steady=steady)  # which shares the snapshots

    @property
    def snapshot(self) -> KeySnapshot | None:
        """The searchable keys, prepared when first needed; None if the learner overrides score."""
        memory, metric = self.memory, self.learner.metric
        if not self.learner.indexable:
            return None
        # If classes have several keys, the sum of a class would miss keys beyond the candidates.
        several = self.index == "auto" and not memory.one_key_per_class and len(memory.keys) > memory.n_way
        kind = "exact" if several else self.index
        if (found := self._snapshots.get((kind, self.steady))) is None:
            found = take_snapshot(memory.keys, metric, kind, steady=self.steady)
            # In one step, so that concurrent threads get the same one.
            found = self._snapshots.setdefault((kind, self.steady), found)
        return found

    def remembered(self, kind: Callable[[FittedModel, Any], T], given: Any) -> T:
        """Return ``kind(self, given)``, made once for each `given`; only the last is kept."""
        for known, made in self._made:
            if known is given:
                return made
        found = kind(self, given)
        self._made[:] = [(given, found)]
        return found

    def warn_if_sharp(self) -> None:
        """Warn if the temperature is far below the scale of the embeddings, so that probabilities are 0 or 1."""
        learner, statistics = self.learner, self.statistics
        if not learner.by_distance or learner.metric == "cosine":
            return
        temperature = learner.temperature_of(self.memory).item()
        suitable = suitable_temperature(statistics.means, statistics.count, learner.metric, torch).item()
        if temperature < suitable / SHARP:
            warn(
                f"temperature {temperature:g} is low for these embeddings, which {suitable:.3g} would suit, so "
                "probabilities will be nearly 0 or 1; "
                "give the learner temperature=None, or scale embeddings to unit length"
            )

    def without(self, label: Any) -> FittedModel:
        """Return the model without the class `label`; raise ValueError if it is unknown or the only one."""
        place = self._place(label)
        if len(self.classes) == 1:
            raise ValueError(f"{label!r} is the only class; a classifier needs one")
        return self._keep(np.delete(np.arange(len(self.classes)), place))

    def renamed(self, old: Any, new: Any, classes: NDArray[Any]) -> FittedModel:
        """Return the model with class `old` renamed to `new`; `classes` are the new sorted labels."""
        order = {label: place for place, label in enumerate(classes.tolist())}
        renamed = self._place(old)
        names = (new if i == renamed else known for i, known in enumerate(self.classes.tolist()))
        places = torch.from_numpy(np.array([order[name] for name in names], np.int64))
        n_support = np.zeros_like(self.n_support)
        n_support[places.numpy()] = self.n_support
        return self.of(self.learner, classes, n_support, self.statistics.relabel(places, len(classes)))

    @property
    def d(self) -> int:
        """Embedding length."""
        return self.memory.keys.shape[-1]

    def check_mergeable(self, other: FittedModel) -> None:
        """Raise ValueError unless the other model has the same learner and embedding length."""
        if not self.learner.is_like(other.learner):
            raise ValueError(f"cannot merge what {other.learner} learned into {self.learner}; both must be the same")
        if self.d != other.d:
            raise ValueError(
                f"the other classifier has {other.d} features, this one {self.d}; embed both with the same backbone"
            )

    @isolated(gradients=False)
    def merged(self, other: FittedModel, classes: NDArray[Any]) -> FittedModel:
        """Return the model of the support of both; `classes` are the sorted labels of both."""
        places = np.searchsorted(classes, other.classes)
        return self._joined(other.n_support, other.statistics, places, classes)

    def _joined(
        self, n_added: NDArray[np.int64], added: Statistics, places: NDArray[np.int64], classes: NDArray[Any]
    ) -> FittedModel:
        """Return the model after adding statistics of the classes at `places` among the sorted `classes`."""
        own = np.searchsorted(classes, self.classes)
        statistics = self.statistics.joined(torch.from_numpy(own), added, torch.from_numpy(places), len(classes))
        n_support = np.zeros(len(classes), np.int64)
        n_support[own] = self.n_support
        n_support[places] += n_added
        return self.of(self.learner, classes, n_support, self.learner.settle(statistics))

    @isolated(gradients=False)
    def less(
        self, X: NDArray[np.floating], y: NDArray[Any], weight: NDArray[np.float64], drop_empty: bool
    ) -> FittedModel:
        """Return the model without the support `X` (n, d) with `y` and `weight` (n,).

        Raises
        ------
        ValueError
            If a class is unknown or has less support, these rows are not what it learned, or nothing would remain.
        """
        for label in sorted(set(y.tolist()) - set(self.classes.tolist()))[:1]:
            self._place(label)  # raises
        codes = np.searchsorted(self.classes, y)
        n_gone, gone = _summarise(self.learner, X, codes, weight, len(self.classes))
        n_support = self.n_support - n_gone
        for i in np.flatnonzero(n_support < 0)[:1]:
            raise ValueError(
                f"cannot remove {n_gone[i]} support rows of {self.classes.tolist()[i]!r}, which has "
                f"{self.n_support[i]}; give rows that were learned"
            )
        empty = n_support == 0
        if empty.all():
            raise ValueError("nothing would remain; a classifier needs support of one class")
        left = self.statistics - gone
        lengths = _lengths(self.learner, X, codes, weight, len(self.classes))
        self._refuse_residue(left, lengths, empty & (n_gone > 0), SAME_ROWS[X.dtype.itemsize])
        left = left.emptied(torch.from_numpy(empty))
        if bad := self.classes[~empty & (left.count.numpy() <= 0)].tolist():
            raise ValueError(f"cannot remove more weight of {bad[0]!r} than was learned; give the learned weights")
        model = self.of(self.learner, self.classes, n_support, left)
        return model._keep(np.flatnonzero(~empty | (self.n_support == 0))) if drop_empty else model

    def _refuse_residue(
        self, left: Statistics, lengths: NDArray[np.float64], emptied: NDArray[np.bool_], same: float
    ) -> None:
        """Raise ValueError unless the removed rows of each emptied class add up to its sum.

        Parameters
        ----------
        left : Statistics
            Statistics after removal.
        lengths : ndarray of shape (n_classes,)
            Sum of the lengths of the removed rows, which bounds the rounding of sums.
        emptied : ndarray of shape (n_classes,)
            Classes of which nothing should remain.
        same : float
            Largest residue, relative to `lengths`.
        """
        count = left.count.abs().numpy() > same * self.statistics.count.numpy()
        rest = left.sums["x"].norm(dim=-1).numpy() > same * lengths if "x" in left.sums else np.zeros_like(count)
        for i in np.flatnonzero(emptied & (count | rest))[:1]:
            raise ValueError(
                f"the rows to remove from {self.classes.tolist()[i]!r} are as many as it learned, but not the same; "
                "give the rows that were learned, with their weights, or remove the class (remove_class)"
            )

    def _place(self, label: Any) -> int:
        for i, known in enumerate(self.classes.tolist()):
            if known == label:
                return i
        raise ValueError(f"there is no class {brief(repr(label))}; the classes are {listed(self.classes.tolist())}")

    def _keep(self, places: NDArray[np.int64]) -> FittedModel:
        if len(places) == len(self.classes):
            return self
        kept = self.statistics.keep(torch.from_numpy(places))
        return self.of(self.learner, self.classes[places], self.n_support[places], kept)

    @isolated(gradients=False)
    def kept_rows(self, X: NDArray[np.floating], y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the rows that a bounded memory retains, given all support `X` (n, d) with labels `y`."""
        if len(X) == self.n_support.sum():
            return np.arange(len(X))
        codes = np.searchsorted(self.classes, y)
        _, statistics = _summarise(self.learner, X, codes, np.ones(len(X)), len(self.classes))
        rows = self.learner.kept_rows(statistics)
        return np.arange(len(X)) if rows is None else rows.numpy()

    @isolated(gradients=False)
    def map_logits(self, X: NDArray[np.floating], function: Callable[[Tensor], NDArray[Any]]) -> NDArray[Any]:
        """Apply `function` to the logits (q, n_classes) of each chunk of queries, and concatenate the results."""
        queries = self._transform(X)
        if not len(queries):
            return function(queries.new_empty((0, len(self.classes))))
        return np.concatenate([function(logits) for logits, _ in self._answers(queries)])

    def check_room(self, X: NDArray[np.floating]) -> None:
        """Raise MemoryError if the logits (n, n_classes) of the queries (n, d) cannot fit in memory."""
        n, n_classes = len(X), len(self.classes)
        refuse_too_large(
            2.0 * X.dtype.itemsize * n * n_classes,
            f"{n} x {n_classes} logits, joined from parts,",
            "pass fewer queries at a time, or use predict or nearest",
        )

    @isolated(gradients=False)
    def classify(self, X: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Return class index (ties go to the first) and score (the learner's `closeness`) of each query, both (q,)."""
        queries = self._transform(X)
        parts = [
            (argmax(logits), self.learner.closeness(logits, similarity).numpy())
            for logits, similarity in self._answers(queries)
        ]
        if not parts:
            return np.empty(0, np.int64), np.empty(0, X.dtype)
        codes, scores = zip(*parts, strict=True)
        return np.concatenate(codes), np.concatenate(scores)

    @isolated(gradients=False)
    def nearest(self, X: NDArray[np.floating], k: int) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Return labels and similarities (n, k) of the nearest keys.

        Raises
        ------
        ValueError
            If k is not in 1..number of keys.
        TypeError
            If the learner overrides score, so that no key is nearest.
        """
        if self.snapshot is None:
            raise TypeError(f"{type(self.learner).__name__} has no nearest keys, because it overrides score")
        check_k(k, len(self.memory.labels))
        ids, similarities = search_in_chunks(self.snapshot, self._transform(X), k)
        return self.classes[self.memory.labels.numpy()[ids]], similarities

    def _transform(self, X: NDArray[np.floating]) -> Tensor:
        queries, learner = to_tensor(X), self.learner
        weights = (*learner.named_parameters(), *learner.named_buffers())
        changed = type(learner).transform is not Learner.transform
        changed = changed or "center" in self.memory.extras
        if changed or not learner.indexable or any(name != "log_temperature" for name, _ in weights):
            # In the precision in which the support was transformed; far from the origin, float32 loses digits.
            queries = queries.double()
        queries = learner.transform(queries)
        return self.memory.centred(queries) if learner.indexable else queries  # otherwise score does it

    def _answers(self, queries: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield logits (q, n_classes) and similarities to keys, or None, for each chunk of queries."""
        learner, snapshot = self.learner, self.snapshot
        if snapshot is None:
            memory = self.memory.map(lambda x: x.to(queries.dtype))
            widest = max(len(tensor) for tensor in (memory.log_weight, *memory.extras.values()) if tensor.ndim)
            size = max(1, len(queries) if learner.transductive else CHUNK_BYTES // (8 * widest))
            for part in queries.split(size):
                yield learner.score(memory, part), None
            return
        size = min(snapshot.chunk(), max(1, CHUNK_BYTES // (8 * len(self.classes))))
        for part in queries.split(size):
            ids, similarity = snapshot.retrieve(part, 1)
            yield learner.read(similarity, self.memory, ids), similarity


def _chunks(X: NDArray[np.floating]) -> Iterator[tuple[slice, Tensor]]:
    """Yield the rows of X (n, d) in float64, a part at a time, because sums need no copy of all support."""
    size = max(1, CHUNK_BYTES // (8 * X.shape[1]))
    for start in range(0, max(len(X), 1), size):  # one empty part if there are no rows
        rows = slice(start, start + size)
        yield rows, _double(X[rows])


def _double(array: NDArray[Any]) -> Tensor:
    """Return a float64 tensor, which shares memory if it can."""
    return torch.from_numpy(np.require(array, np.float64, ["C", "W"]))


def _lengths(
    learner: Learner, X: NDArray[np.floating], codes: NDArray[np.int64], weight: NDArray[np.float64], n_way: int
) -> NDArray[np.float64]:
    """Return the weighted sum of the lengths of the transformed rows of each class, (n_way,)."""
    total = np.zeros(n_way)
    for rows, x in _chunks(X):
        np.add.at(total, codes[rows], learner.transform(x).norm(dim=-1).numpy() * weight[rows])
    return total


def _summarise(
    learner: Learner, X: NDArray[np.floating], codes: NDArray[np.int64], weight: NDArray[np.float64], n_way: int
) -> tuple[NDArray[np.int64], Statistics]:
    """Return the number of rows of each class and the statistics of all rows, with their `codes` in 0..n_way-1."""
    parts = (learner.learn(x, torch.from_numpy(codes[rows]), n_way, _double(weight[rows])) for rows, x in _chunks(X))
    return np.bincount(codes[weight > 0], minlength=n_way), reduce(operator.add, parts)
