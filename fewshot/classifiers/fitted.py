"""The model that a learner makes of labelled embeddings, and how it grows and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.errors import brief
from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory
from fewshot.learners.statistics import Statistics
from fewshot.search.similarity import argmax
from fewshot.search.snapshot import CHUNK_BYTES, KeySnapshot, search_in_chunks, to_tensor
from fewshot.utils.checks import check_k, shorten
from fewshot.utils.heap import refuse_too_large
from fewshot.utils.isolation import isolated

#: How far rows may differ from those that were learned, by their length: in float32 they come from a network, which
#: rounds differently in another batch; in float64 they may have been float32 in between.
SAME_ROWS = {4: 1e-4, 8: 1e-6}


@dataclass(frozen=True, eq=False)
class FittedModel:
    """Everything an answer needs; it is replaced as a whole, so a reader sees the old model or the new one.

    Attributes
    ----------
    learner : Learner
        In double precision and evaluation mode, on the CPU.
    classes : ndarray of shape (n_classes,)
        Sorted labels.
    n_support : ndarray of shape (n_classes,)
        Support rows of each class, those of weight 0 left out.
    statistics : Statistics
        Of all support so far, in float64.
    memory : Memory
        The keys that are there.
    snapshot : KeySnapshot or None
        The keys made ready for search; None where the learner's score is its own.
    others : dict
        The same model with its keys made ready in other ways, once somebody has asked for them; see `served`.
    """

    learner: Learner
    classes: NDArray[Any]
    n_support: NDArray[np.int64]
    statistics: Statistics
    memory: Memory
    snapshot: KeySnapshot | None
    others: dict[tuple[str, bool], FittedModel] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "others": {}}  # they can be made again

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"others": {}, **state})  # pickles of older versions have none

    @classmethod
    @isolated(gradients=False)
    def learn(
        cls,
        learner: Learner,
        X: NDArray[np.floating],
        y: NDArray[Any],
        weight: NDArray[np.float64],
        classes: NDArray[Any],
        index: str,
        old: FittedModel | None = None,
    ) -> FittedModel:
        """Learn support `X` (n, d) with labels `y` and `weight` (n,), beside what `old` knows.

        `classes` are the sorted labels of both.
        """
        codes = np.searchsorted(classes, y)
        own = np.unique(codes)  # summarised alone: what is learned may be one class beside ten thousand
        n_own, new = _summarise(learner, X, np.searchsorted(own, codes), weight, len(own))
        n_support = np.zeros(len(classes), np.int64)
        n_support[own] = n_own
        if old is None:
            statistics = new.relabel(torch.from_numpy(own), len(classes))
        else:
            places = np.searchsorted(classes, old.classes)
            statistics = old.statistics.joined(torch.from_numpy(places), new, torch.from_numpy(own), len(classes))
            n_support[places] += old.n_support
        return cls.of(learner, classes, n_support, learner.settle(statistics), index)

    @classmethod
    @isolated(gradients=False)
    def of(
        cls,
        learner: Learner,
        classes: NDArray[Any],
        n_support: NDArray[np.int64],
        statistics: Statistics,
        index: str,
    ) -> FittedModel:
        """Return the model of statistics that are there already."""
        memory, snapshot = learner.memorize(statistics), None
        if kept := statistics.support:  # a bounded memory has not kept all that came
            n_support = np.bincount(kept["labels"][kept["weight"] > 0].numpy(), minlength=len(classes))
        if learner.indexable:
            memory = memory.present()
            snapshot = KeySnapshot(memory.keys, learner.metric, _suitable(index, memory))
        return cls(learner, classes, n_support, statistics, memory, snapshot)

    def served(self, index: str, steady: bool = False) -> FittedModel:
        """Return the model with its keys found by `index`; this one where it does so already.

        Parameters
        ----------
        index : {"auto", "exact", "faiss", "ivf", "hnsw"}
            What proposes the nearest keys.
        steady : bool, default=False
            As for `KeySnapshot`.
        """
        if self.snapshot is None:
            return self
        kind = _suitable(index, self.memory)
        if (kind, steady) == (self.snapshot.index, self.snapshot.steady):
            return self
        if (found := self.others.get((kind, steady))) is None:
            snapshot = KeySnapshot(self.memory.keys, self.learner.metric, kind, steady=steady)
            # In one step: threads that ask at the same time get the same one.
            found = self.others.setdefault((kind, steady), replace(self, snapshot=snapshot))
        return found

    def without(self, label: Any, index: str) -> FittedModel:
        """Return the model that has never seen the class `label`.

        Raises
        ------
        ValueError
            If there is no such class, or no other one.
        """
        place = self._place(label)
        if len(self.classes) == 1:
            raise ValueError(f"{label!r} is the only class; a classifier needs one")
        return self._keep(np.delete(np.arange(len(self.classes)), place), index)

    def renamed(self, old: Any, new: Any, classes: NDArray[Any], index: str) -> FittedModel:
        """Return the model whose class `old` is called `new`; `classes` are the sorted labels then."""
        order = {label: place for place, label in enumerate(classes.tolist())}
        renamed = self._place(old)
        names = (new if i == renamed else known for i, known in enumerate(self.classes.tolist()))
        places = torch.from_numpy(np.array([order[name] for name in names], np.int64))
        n_support = np.zeros_like(self.n_support)
        n_support[places.numpy()] = self.n_support
        return self.of(self.learner, classes, n_support, self.statistics.relabel(places, len(classes)), index)

    @isolated(gradients=False)
    def merged(self, other: FittedModel, classes: NDArray[Any], index: str) -> FittedModel:
        """Return the model that has seen what both have seen; `classes` are the sorted labels of both."""
        places = [np.searchsorted(classes, model.classes) for model in (self, other)]
        mine, theirs = (
            model.statistics.relabel(torch.from_numpy(place), len(classes))
            for model, place in zip((self, other), places, strict=True)
        )
        n_support = np.zeros(len(classes), np.int64)
        n_support[places[0]] += self.n_support
        n_support[places[1]] += other.n_support
        return self.of(self.learner, classes, n_support, self.learner.settle(mine + theirs), index)

    @isolated(gradients=False)
    def less(
        self, X: NDArray[np.floating], y: NDArray[Any], weight: NDArray[np.float64], drop_empty: bool, index: str
    ) -> FittedModel:
        """Return the model that has never seen some of its support, `X` (n, d) with `y` and `weight` (n,).

        Raises
        ------
        ValueError
            If a class is not there or has less support, these rows cannot be what it learned, or none would be left.
        """
        for label in sorted(set(y.tolist()) - set(self.classes.tolist()))[:1]:
            self._place(label)  # says so
        codes = np.searchsorted(self.classes, y)
        n_gone, gone = _summarise(self.learner, X, codes, weight, len(self.classes))
        n_support = self.n_support - n_gone
        for i in np.flatnonzero(n_support < 0)[:1]:
            raise ValueError(
                f"{n_gone[i]} support rows of {self.classes.tolist()[i]!r} are to be removed, and it has "
                f"{self.n_support[i]}; give rows that were learned"
            )
        empty = n_support == 0
        if empty.all():
            raise ValueError("nothing would be left; a classifier needs support of one class")
        left = self.statistics - gone
        lengths = _lengths(self.learner, X, codes, weight, len(self.classes))
        self._refuse_residue(left, lengths, empty & (n_gone > 0), SAME_ROWS[X.dtype.itemsize])
        left = left.emptied(torch.from_numpy(empty))
        if bad := self.classes[~empty & (left.count.numpy() <= 0)].tolist():
            raise ValueError(f"more weight of {bad[0]!r} is to be removed than was learned; give the weights of then")
        model = self.of(self.learner, self.classes, n_support, left, index)
        return model._keep(np.flatnonzero(~empty | (self.n_support == 0)), index) if drop_empty else model

    def _refuse_residue(
        self, left: Statistics, lengths: NDArray[np.float64], emptied: NDArray[np.bool_], same: float
    ) -> None:
        """Refuse rows that leave something of a class of which they should have been all.

        Sums do not tell single rows apart, but all rows of a class together must give its sum.

        Parameters
        ----------
        left : Statistics
            After these rows were taken away.
        lengths : ndarray of shape (n_classes,)
            The sum of their lengths, which bounds the rounding of sums.
        emptied : ndarray of shape (n_classes,)
            The classes of which nothing should be left.
        same : float
            How much of the lengths may be left.
        """
        count = left.count.abs().numpy() > same * self.statistics.count.numpy()
        rest = left.sums["x"].norm(dim=-1).numpy() > same * lengths if "x" in left.sums else np.zeros_like(count)
        for i in np.flatnonzero(emptied & (count | rest))[:1]:
            raise ValueError(
                f"the rows to be removed from {self.classes.tolist()[i]!r} are as many as it learned, but not the same "
                "ones; give the rows that were learned, with their weights, or remove the class (remove_class)"
            )

    def _place(self, label: Any) -> int:
        for i, known in enumerate(self.classes.tolist()):
            if known == label:
                return i
        raise ValueError(f"there is no class {brief(repr(label))}; the classes are {shorten(self.classes)}")

    def _keep(self, places: NDArray[np.int64], index: str) -> FittedModel:
        if len(places) == len(self.classes):
            return self
        kept = self.statistics.keep(torch.from_numpy(places))
        return self.of(self.learner, self.classes[places], self.n_support[places], kept, index)

    @isolated(gradients=False)
    def kept_rows(self, X: NDArray[np.floating], y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the rows of the support `X` (n, d) with labels `y`, all that came, which a bounded memory keeps."""
        if len(X) == self.n_support.sum():
            return np.arange(len(X))
        codes = np.searchsorted(self.classes, y)
        _, statistics = _summarise(self.learner, X, codes, np.ones(len(X)), len(self.classes))
        rows = self.learner.kept_rows(statistics)
        return np.arange(len(X)) if rows is None else rows.numpy()

    @isolated(gradients=False)
    def map_logits(self, X: NDArray[np.floating], function: Callable[[Tensor], NDArray[Any]]) -> NDArray[Any]:
        """Apply `function` to the logits (q, n_classes) of one chunk of queries after another, and join."""
        queries = self._transform(X)
        if not len(queries):
            return function(queries.new_empty((0, len(self.classes))))
        return np.concatenate([function(logits) for logits, _ in self._answers(queries)])

    def check_room(self, X: NDArray[np.floating]) -> None:
        """Refuse queries (n, d) whose logits (n, n_classes), all of them together, cannot fit in memory.

        Raises
        ------
        MemoryError
            With the numbers.
        """
        n, n_classes = len(X), len(self.classes)
        refuse_too_large(
            2.0 * X.dtype.itemsize * n * n_classes,
            f"{n} x {n_classes} logits, joined from parts,",
            "ask for fewer queries at a time, or for predict or nearest",
        )

    @isolated(gradients=False)
    def classify(self, X: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Return the place of each query's class, among equals the first, and its score, both (q,).

        The score is the learner's `closeness`; higher is closer to what is known.
        """
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
            If the learner's score is its own, so that no key is nearest.
        """
        if self.snapshot is None:
            raise TypeError(f"{type(self.learner).__name__} has no nearest keys: its score is its own")
        check_k(k, len(self.memory.labels))
        ids, similarities = search_in_chunks(self.snapshot, self._transform(X), k)
        return self.classes[self.memory.labels.numpy()[ids]], similarities

    def _transform(self, X: NDArray[np.floating]) -> Tensor:
        queries, learner = to_tensor(X), self.learner
        weights = (*learner.named_parameters(), *learner.named_buffers())
        changed = type(learner).transform is not Learner.transform
        if changed or not learner.indexable or any(name != "log_temperature" for name, _ in weights):
            # As the learner's own weights are, and as support was transformed, which far from the origin needs digits.
            queries = queries.double()
        return learner.transform(queries)

    def _answers(self, queries: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield logits (q, n_classes) and similarities to keys, if there are any, of one chunk of queries at a time."""
        learner = self.learner
        if self.snapshot is None:
            memory = self.memory.map(lambda x: x.to(queries.dtype))
            widest = max(len(tensor) for tensor in (memory.log_weight, *memory.extras.values()))
            size = max(1, len(queries) if learner.transductive else CHUNK_BYTES // (8 * widest))
            for part in queries.split(size):
                yield learner.score(memory, part), None
            return
        size = min(self.snapshot.chunk(), max(1, CHUNK_BYTES // (8 * len(self.classes))))
        for part in queries.split(size):
            ids, similarity = self.snapshot.retrieve(part, 1)
            yield learner.read(similarity, self.memory, ids), similarity


def _suitable(index: str, memory: Memory) -> str:
    """Return the index that answers right from this memory."""
    # Where a class has several keys, those beyond the candidates would be missing from its sum.
    several = index == "auto" and not memory.one_key_per_class and len(memory.keys) > memory.n_way
    return "exact" if several else index


def _lengths(
    learner: Learner, X: NDArray[np.floating], codes: NDArray[np.int64], weight: NDArray[np.float64], n_way: int
) -> NDArray[np.float64]:
    """Return the weighted sum of the lengths of transformed rows (n, d) of each class, (n_way,)."""
    parts = to_tensor(X).split(max(1, CHUNK_BYTES // (8 * X.shape[1])))
    lengths = [learner.transform(part.double()).norm(dim=-1).numpy() for part in parts]
    total = np.zeros(n_way)
    np.add.at(total, codes, np.concatenate([np.empty(0), *lengths]) * weight)
    return total


def _summarise(
    learner: Learner, X: NDArray[np.floating], codes: NDArray[np.int64], weight: NDArray[np.float64], n_way: int
) -> tuple[NDArray[np.int64], Statistics]:
    """Return how many rows each class has, and the statistics of all, of rows with their `codes` in 0..n_way-1."""
    n_support = np.bincount(codes[weight > 0], minlength=n_way)
    size, total = max(1, CHUNK_BYTES // (8 * X.shape[1])), None
    # In double precision only a part at a time: what is added to sums needs no copy of all support.
    for start in range(0, len(X), size):
        rows = slice(start, start + size)
        x, labels = to_tensor(X[rows]).double(), torch.from_numpy(codes[rows])
        statistics = learner.learn(x, labels, n_way, to_tensor(weight[rows]))
        total = statistics if total is None else total + statistics
    if total is None:
        total = learner.learn(to_tensor(X).double(), torch.from_numpy(codes), n_way, to_tensor(weight))
    return n_support, total
