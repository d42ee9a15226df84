"""`FittedModel`: what a classifier has learned, how it changes and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.classifiers.summary import Summary
from fewshot.errors import brief
from fewshot.learners.base import Learner, SupportLearner
from fewshot.learners.memory import Memory, Statistics
from fewshot.search.approximate import Choice
from fewshot.search.similarity import CHUNK_BYTES, KeySnapshot, argmax, check_k, search_in_chunks, to_tensor, top
from fewshot.search.snapshot import FaissSnapshot, build_now, take_snapshot
from fewshot.utils.heap import refuse_too_large
from fewshot.utils.isolation import isolated
from fewshot.utils.labels import as_labels
from fewshot.utils.means import suitable_temperature
from fewshot.utils.text import listed
from fewshot.utils.warning import warn

T = TypeVar("T")
#: A temperature this many times below the one that suits the embeddings deserves a warning.
SHARP = 4
#: About the classes whose spread tells which temperature suits the embeddings.
MOST_LOOKED_AT = 4096
#: What is said of a removal that would leave no support.
NOTHING_LEFT = "nothing would remain; a classifier needs support of one class"


class KeptSupport(NamedTuple):
    """The support that a learner keeps: embeddings (m, d) in blocks, and of those `rows` (n,) that count, the rest."""

    blocks: list[NDArray[np.float64]]
    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    weight: NDArray[np.float64]


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

        `classes` are their sorted labels, and those of classes to know without support.
        """
        copied = old if type(old) is FittedModel else None  # others share what they know
        _refuse_to_learn(learner, (len(X), len(classes)), copied, X.shape[1])
        learned = Summary.of(learner, X, y, weight, classes)
        if old is not None:
            return old.grown(learned)
        return cls.of(learner, classes, learned.n_support, learner.settle(learned.statistics))

    @classmethod
    @isolated(gradients=False)
    def of(
        cls, learner: Learner, classes: NDArray[Any], n_support: NDArray[np.int64], statistics: Statistics
    ) -> FittedModel:
        """Return the model of the given statistics."""
        memory = learner.expected(Memory, learner.memorize(statistics), "memorize")
        if kept := statistics.support:  # a bounded memory may have dropped rows
            n_support = np.bincount(kept["labels"][kept["weight"] > 0].numpy(), minlength=len(classes))
        return cls(learner, classes, n_support, statistics, memory.present() if learner.indexable else memory)

    def served(self, index: str, steady: bool = False) -> FittedModel:
        """Return this model with its keys searched through `index`, `steady` as for `KeySnapshot`."""
        return replace(self, index=index, steady=steady)  # which shares the snapshots

    @property
    def snapshot(self) -> KeySnapshot | None:
        """The searchable keys, prepared when first needed; None if the learner overrides score."""
        memory = self.memory
        # If classes have several keys, the sum of a class would miss keys beyond the candidates.
        several = self.index == "auto" and not memory.one_key_per_class and len(memory.keys) > memory.n_way
        return self._snapshot("exact" if several else self.index)

    def _snapshot(self, kind: str) -> KeySnapshot | None:
        if not self.learner.indexable:
            return None
        if (found := self._snapshots.get((kind, self.steady))) is None:
            found = take_snapshot(self.memory.keys, self.learner.metric, kind, steady=self.steady)
            # In one step, so that concurrent threads get the same one.
            found = self._snapshots.setdefault((kind, self.steady), found)
        return found

    def build(self) -> Choice:
        """Build what finds the nearest keys now, and wait; return how they are found, and how well."""
        return build_now(self.snapshot)

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
        if not learner.by_distance or learner.metric == "cosine" or learner.fits_temperature:
            return
        temperature = learner.temperature.item()
        some = statistics.keep(torch.arange(0, self.n_classes, 1 + self.n_classes // MOST_LOOKED_AT, device="cpu"))
        suitable = suitable_temperature(some.means, some.count, learner.metric, torch).item()
        if temperature < suitable / SHARP:
            warn(
                f"temperature {temperature:g} is low for these embeddings, which {suitable:.3g} would suit, so "
                "probabilities will be nearly 0 or 1; "
                "give the learner temperature=None, or scale embeddings to unit length"
            )

    def without(self, label: Any) -> FittedModel:
        """Return the model without the class `label`; raise ValueError if it is unknown or the only one."""
        place = self._place(label)
        if self.n_classes == 1:
            raise ValueError(f"{label!r} is the only class; a classifier needs one")
        return self._keep(np.delete(np.arange(len(self.classes)), place))

    def renamed(self, old: Any, new: Any) -> FittedModel:
        """Return the model with class `old` renamed to `new`, which is no class; raise ValueError if `old` is none."""
        renamed = self._place(old)
        names = [new if i == renamed else known for i, known in enumerate(self.classes.tolist())]
        classes = np.union1d(np.delete(self.classes, renamed), as_labels([new], known=self.classes))
        order = {label: place for place, label in enumerate(classes.tolist())}
        places = np.array([order[name] for name in names], np.int64)
        n_support = np.zeros_like(self.n_support)
        n_support[places] = self.n_support
        return self.of(
            self.learner, classes, n_support, self.statistics.relabel(torch.from_numpy(places), len(classes))
        )

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def kept_support(self) -> KeptSupport | None:
        """The support, if it is all that the learner keeps."""
        statistics = self.statistics
        if statistics.sums or statistics.totals or statistics.support.keys() != {"x", "labels", "weight"}:
            return None
        x, labels, weight = (statistics.support[name].numpy() for name in ("x", "labels", "weight"))
        return KeptSupport([x], np.arange(len(x)), labels, weight)

    @property
    def n_rows(self) -> int:
        """Number of support rows of all classes."""
        return int(self.n_support.sum())

    @property
    def some_classes(self) -> NDArray[Any]:
        """Some labels, at least one, in an array of the type of all."""
        return self.classes

    def known_among(self, labels: Iterable[Any]) -> list[Any]:
        """Return those of some labels that are classes."""
        known = set(self.classes.tolist())
        return [label for label in labels if label in known]

    def names(self, codes: NDArray[np.int64]) -> NDArray[Any]:
        """Return the labels of classes by the numbers (...) that `best` and `classify` return."""
        return self.classes[codes]

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

    @property
    def summary(self) -> Summary:
        """What is known of all classes."""
        return Summary(self.classes, self.n_support, self.statistics)

    @isolated(gradients=False)
    def merged(self, other: FittedModel) -> FittedModel:
        """Return the model of the support of both."""
        copied = self if type(self) is FittedModel else None
        _refuse_to_learn(self.learner, (other.n_rows, other.n_classes), copied, self.d)
        return self.grown(other.summary)

    @isolated(gradients=False)
    def grown(self, added: Summary) -> FittedModel:
        """Return the model of what is known and what is added, of known or new classes."""
        joined = self.summary.joined(added)
        return self.of(self.learner, joined.classes, joined.n_support, self.learner.settle(joined.statistics))

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
        left = self.summary.less(self.learner, X, y, weight)
        if not left.n_support.any():
            raise ValueError(NOTHING_LEFT)
        model = self.of(self.learner, self.classes, left.n_support, left.statistics)
        return model._keep(np.flatnonzero((left.n_support > 0) | (self.n_support == 0))) if drop_empty else model

    def _place(self, label: Any) -> int:
        """Return the number of a class; raise ValueError if there is none."""
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
        if len(X) == self.n_rows:
            return np.arange(len(X))
        learned = Summary.of(self.learner, X, y, np.ones(len(X)), self.classes)
        rows = self.learner.kept_rows(learned.statistics)
        return np.arange(len(X)) if rows is None else rows.numpy()

    @isolated(gradients=False)
    def map_logits(self, X: NDArray[np.floating], function: Callable[[Tensor], NDArray[Any]]) -> NDArray[Any]:
        """Apply `function` to the logits (q, n_classes) of each chunk of queries, and concatenate the results."""
        queries = self._transform(X)
        if not len(queries):
            return function(queries.new_empty((0, len(self.classes))))
        return np.concatenate([function(logits) for logits, _ in self._answers(queries, self._snapshot("exact"))])

    def log_proba(
        self, X: NDArray[np.floating], unknown: NDArray[np.bool_], temperature: float
    ) -> NDArray[np.floating]:
        """Return log-probabilities (q, n_classes); those of an even choice for queries that are `unknown` (q,)."""
        self.check_room(X)
        return self.with_even_choice(self.map_logits(X, log_softmax(temperature)), unknown)

    def with_even_choice(self, log_proba: NDArray[np.floating], unknown: NDArray[np.bool_]) -> NDArray[np.floating]:
        """Return log-probabilities (q, n_classes), in place; equal ones of all classes for `unknown` queries (q,)."""
        if unknown.any():
            supported = self.n_support > 0
            with np.errstate(divide="ignore"):
                log_proba[unknown] = np.log(supported / supported.sum())
        return log_proba

    @isolated(gradients=False)
    def top(self, X: NDArray[np.floating], k: int, temperature: float) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Return labels and probabilities (q, k) of the likeliest classes; ties go to the first."""

        def best(logits: Tensor) -> NDArray[np.floating]:
            codes, log_proba = top(None, (logits / temperature).log_softmax(-1), k)
            return np.stack([codes.numpy(), log_proba.exp().numpy()], -1)

        found = self.map_logits(X, best).reshape(-1, k, 2)
        return self.classes[found[..., 0].astype(np.int64)], found[..., 1]

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
        """Return the number of the class, and the score (the learner's `closeness`), of each query, both (q,).

        Ties go to the first class.
        """
        codes, scores = self._classified(X)
        return codes, scores

    @isolated(gradients=False)
    def classify_with(
        self, X: NDArray[np.floating], function: Callable[[Tensor], NDArray[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.floating], NDArray[Any]]:
        """Return what `classify` and `map_logits` do, in one pass if `classify` compares all keys anyway."""
        self.check_room(X)
        if not self.compares_all:
            return *self.classify(X), self.map_logits(X, function)
        codes, scores, found = self._classified(X, function)
        return codes, scores, found

    @property
    def compares_all(self) -> bool:
        """Whether `classify` compares queries with all keys, as `map_logits` does."""
        return not isinstance(self.snapshot, FaissSnapshot)

    def _classified(self, X: NDArray[np.floating], *functions: Callable[[Tensor], NDArray[Any]]) -> list[Any]:
        """Return numbers of classes, scores, and what functions make of the logits, of one pass."""
        queries = self._transform(X)
        if not len(queries):
            logits = queries.new_empty((0, len(self.classes)))
            return [np.empty(0, np.int64), np.empty(0, X.dtype), *(function(logits) for function in functions)]
        parts = [
            (argmax(logits), self.learner.closeness(logits, similarity).numpy(), *(made(logits) for made in functions))
            for logits, similarity in self._answers(queries, self.snapshot)
        ]
        return list(map(np.concatenate, zip(*parts, strict=True)))

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
        center = self.center
        queries = self._uncentred(X, center is not None)
        if center is None or not self.learner.indexable:  # score does it
            return queries
        return queries - center.to(queries.dtype)

    def _uncentred(self, X: NDArray[np.floating], is_centred: bool) -> Tensor:
        """Return transformed queries, from which a centre has to be subtracted if `is_centred`."""
        queries, learner = to_tensor(X), self.learner
        weights = (*learner.named_parameters(), *learner.named_buffers())
        changed = type(learner).transform is not Learner.transform
        if changed or is_centred or not learner.indexable or any(name != "log_temperature" for name, _ in weights):
            # In the precision in which the support was transformed; far from the origin, float32 loses digits.
            queries = queries.double()
        return learner.transform(queries)

    @property
    def center(self) -> Tensor | None:
        """What is subtracted from queries (d,), if anything."""
        return self.memory.extras.get("center")

    def _answers(self, queries: Tensor, snapshot: KeySnapshot | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield logits (q, n_classes) and similarities to keys, or None, for each chunk of queries."""
        learner = self.learner
        if snapshot is None:
            memory = self.memory.map(lambda x: x.to(queries.dtype))
            widest = max(len(tensor) for tensor in (memory.log_weight, *memory.extras.values()) if tensor.ndim)
            size = max(1, len(queries) if learner.transductive else CHUNK_BYTES // (8 * widest))
            for part in queries.split(size):
                yield learner.without_nan(learner.answer(memory, part, transformed=True)), None
            return
        size = min(snapshot.chunk(), max(1, CHUNK_BYTES // (8 * len(self.classes))))
        for part in queries.split(size):
            ids, similarity = snapshot.retrieve(part, 1)
            yield learner.read(similarity, self.memory, ids), similarity


def log_softmax(temperature: float) -> Callable[[Tensor], NDArray[np.floating]]:
    """Return a function from logits (q, n_classes) to log-probabilities."""
    return lambda logits: (logits / temperature).log_softmax(-1).numpy()


def _refuse_to_learn(learner: Learner, added: tuple[int, int], copied: FittedModel | None, d: int) -> None:
    """Raise TooLargeError if memory cannot hold the given numbers of rows and classes, and a model that is copied."""
    n_rows, n_classes = added if copied is None else (added[0] + copied.n_rows, added[1] + copied.n_classes)
    keeps = isinstance(learner, SupportLearner)  # in float64, and joined from parts; sums with keys in float32
    refuse_too_large(
        d * (16.0 * n_rows if keeps else 12.0 * n_classes),
        f"what {learner.name} keeps of {n_rows} x {d} embeddings of at most {n_classes} classes",
        "give fewer or shorter ones" + (", or take a learner that keeps class sums, such as prototypical" * keeps),
    )
