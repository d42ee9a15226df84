"""The fitted model of many rows that are kept, of which a change touches only the classes that it changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.classifiers.fitted import NOTHING_LEFT, FittedModel
from fewshot.classifiers.known import KnownClasses
from fewshot.classifiers.live import MOST_NUMBERS, NO_ROWS, SPARE, LiveModel
from fewshot.classifiers.rows import GONE, LabelledBlocks, with_rows
from fewshot.classifiers.summary import Summary
from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory, Statistics
from fewshot.search.approximate import CANDIDATES
from fewshot.search.growing import Growing, changed_keys
from fewshot.search.similarity import CHUNK_BYTES, argmax
from fewshot.utils.isolation import isolated

#: Similarities that differ by a smaller share may be equal but for rounding.
NEAR = 1e-5


class LiveSupport(LiveModel):
    """A fitted model that keeps its support, and whose keys of a class follow from the support of that class.

    The keys are the rows of the support, or what the learner makes of those of a class. Learning, renaming and removing
    cost what they change. So do answers, if the nearest keys decide them and an index finds these; otherwise each query
    is compared with all keys. Rows of weight 0 are not kept.
    """

    _content: ClassVar[tuple[str, ...]] = (*LiveModel._content, "_rows", "_table", "_is_plain")

    _rows: LabelledBlocks
    _table: LabelledBlocks  # the keys, by label: the rows, or others whose weights are logarithms
    _is_plain: tuple[bool, bool]  # whether no class has several keys, and whether all rows have a weight of 1
    _read: tuple[NDArray[np.int64], Memory] | None = None  # labels of all keys, and how they are read

    @classmethod
    def of(
        cls, learner: Learner, classes: NDArray[Any], n_support: NDArray[np.int64], statistics: Statistics
    ) -> LiveSupport:
        """Return the model of the statistics of a learner for which `model_type` is this class."""
        numbers, support = np.arange(len(classes)), _weighted(statistics.support)
        n_support = np.bincount(support["labels"].numpy(), minlength=len(classes))
        known = KnownClasses.of(Summary(classes, n_support, _counted(statistics)))
        rows = LabelledBlocks.of(support, numbers)
        keys = support if learner.rows_are_keys else _keys_of(learner, replace(statistics, support=support))
        table = rows if learner.rows_are_keys else LabelledBlocks.of(keys, numbers)
        content: dict[str, Any] = {"known": known, "_rows": rows, "_table": table}
        return LiveSupport(learner=learner, **content, _is_plain=_plainness(keys, support))

    # ---- what concerns all classes ---------------------------------------------------------------------------------

    @cached_property
    def statistics(self) -> Statistics:
        """The support."""
        return self._rows.statistics(self._rows.present(), self.known.places.ordered()[1], len(self.known.count))

    @cached_property
    @isolated(gradients=False)
    def memory(self) -> Memory:
        """The keys that the learner makes of all support, in the order of the labels, without making them again."""
        if self.learner.rows_are_keys:
            return super().memory
        ids = self._table.present()
        labels = self.known.ordered_places()[self._table.number.rows(ids)]
        order = np.argsort(labels, kind="stable")
        ids, extras = ids[order], self.learner.prepared(self.statistics)[1]
        keys, log_weight = self._keys_of(ids), torch.from_numpy(self._table.weight.rows(ids))
        return Memory(keys, torch.from_numpy(labels[order]), log_weight, self.n_classes, extras=extras)

    @property
    def is_summed(self) -> bool:
        """Whether class sums are all that it knows."""
        return False

    @property
    def support(self) -> LabelledBlocks:
        """The rows that it keeps."""
        return self._rows

    @property
    def d(self) -> int:
        """Embedding length."""
        return int(self._rows.x.blocks[0].shape[-1])

    # ---- changes ---------------------------------------------------------------------------------------------------

    @isolated(gradients=False)
    def grown(self, added: Summary) -> FittedModel:
        """Return the model of what is known and what is added, of known or new classes."""
        numbers, support = self.known.numbers(added.classes), _weighted(added.statistics.support)
        more = with_rows(replace(added.statistics, support=support), np.full(len(support["labels"]), GONE))
        before, joined = self._part(numbers[numbers >= 0]), replace(added, statistics=more)
        joined = before.joined(joined) if len(before.classes) else joined
        return self._becoming(joined.classes, self.learner.settle(joined.statistics), before)

    @isolated(gradients=False)
    def less(
        self, X: NDArray[np.floating], y: NDArray[Any], weight: NDArray[np.float64], drop_empty: bool
    ) -> FittedModel:
        """Return the model without some support; see `FittedModel.less`."""
        before = self._part(np.array([self._place(label) for label in np.unique(y).tolist()], np.int64))
        left = before.less(self.learner, X, y, weight)
        model, emptied = self._becoming(left.classes, left.statistics, before), left.n_support == 0
        if not model._table.n_present:
            raise ValueError(NOTHING_LEFT)
        emptied &= before.n_support > 0
        return model._dropping(model.known.numbers(left.classes[emptied])) if drop_empty and emptied.any() else model

    def losing(self, rows: NDArray[np.int64]) -> LiveSupport:
        """Return the model without some rows, and without the classes of which none is left."""
        before = self._part(np.unique(self._rows.number.rows(rows)))
        left = self._part(self.known.numbers(before.classes), rows)
        model, emptied = self._becoming(left.classes, left.statistics, before), left.n_support == 0
        return model._dropping(model.known.numbers(left.classes[emptied])) if emptied.any() else model

    def _part(self, numbers: NDArray[np.int64], without: NDArray[np.int64] = NO_ROWS) -> Summary:
        """Return what is known of some classes, with the places of their rows, `without` some."""
        rows = np.setdiff1d(self._rows.of_classes(numbers), without)
        found = self._holding(numbers, rows)
        return replace(found, statistics=with_rows(found.statistics, rows))

    def _becoming(self, classes: NDArray[Any], now: Statistics, before: Summary) -> LiveSupport:
        """Return the model in which some classes have the support `now`, of which they had some `before`."""
        support, was = now.support, before.statistics.support["row"].numpy()
        rows, labels = (support[name].numpy() for name in ("row", "labels"))
        part = Summary(classes, np.bincount(labels, minlength=len(classes)), _counted(now))
        old = self.known.numbers(before.classes)
        known, numbers = self.known.having(part)
        come = {name: value[torch.from_numpy(rows < 0)] for name, value in support.items()}
        gone = np.setdiff1d(was, rows)
        changed = self._rows.without(gone).extended(come, numbers)
        if self.learner.rows_are_keys:
            keys, table, dropped = support, changed, gone
        else:
            keys, dropped = _keys_of(self.learner, now), self._table.of_classes(old)
            table = self._table.without(dropped).extended(keys, numbers)
        plain = tuple(np.logical_and(self._is_plain, _plainness(keys, support)).tolist())
        moments = self._moments
        if moments is not None:
            moments = moments.changed(self._means(before.statistics), self._means(now))
        return self._having_keys(known, changed, table, dropped, _is_plain=plain, _moments=moments)

    def _dropping(self, numbers: NDArray[np.int64]) -> LiveSupport:
        before, moments = self._part(numbers), self._moments
        gone = before.statistics.support["row"].numpy()
        rows = self._rows.without(gone)
        if self.learner.rows_are_keys:
            table = rows
        else:
            gone = self._table.of_classes(numbers)
            table = self._table.without(gone)
        if moments is not None:
            means = self._means(before.statistics)
            moments = moments.changed(means, means[:0])
        return self._having_keys(self.known.without(numbers), rows, table, gone, _moments=moments)

    def _having_keys(
        self, known: KnownClasses, rows: LabelledBlocks, table: LabelledBlocks, gone: NDArray[np.int64], **changes: Any
    ) -> LiveSupport:
        """Return the model of other classes, rows and keys, of which those of the labels `gone` have to go."""
        come = np.arange(len(self._table), len(table))
        model = self.version(known=known, _rows=rows, _table=table, **changes)
        held = {kind: keys for kind, keys in self._held.items() if kind != "auto" or model._is_plain[0]}  # see `_keys`
        if held:
            model._held.update(changed_keys(held, gone, model._keys_of(come), come))
        return model._compacted()

    def _compacted(self) -> LiveSupport:
        """Return the model without the memory of what is gone, if that is more than what is there."""
        if len(self._table) > MOST_NUMBERS * self._table.n_present:  # their labels change
            table = self._table.only(self._table.present())
            return self.version(_table=table, **({"_rows": table} if self.learner.rows_are_keys else {}))._compacted()
        if len(self._rows) > MOST_NUMBERS * self.n_rows:
            return self.version(_rows=self._rows.only(self._rows.present()), _held=self._held)
        if len(self.known.count) > MOST_NUMBERS * self.n_classes:
            return self._renumbered()
        return self

    def _renumbered(self) -> LiveSupport:
        """Return the model whose classes are numbered in the order of their labels."""
        labels, order = self.known.places.ordered()
        new = self.known.ordered_places()
        count = torch.from_numpy(self._ordered(self.known.count))
        known = KnownClasses.of(Summary(labels, self.n_support, _counted(Statistics(len(order), count))))
        rows = self._rows.numbered(new)
        table = rows if self.learner.rows_are_keys else self._table.numbered(new)
        return self.version(known=known, _rows=rows, _table=table, _held=self._held)

    def _means(self, statistics: Statistics) -> NDArray[np.float64]:
        return self._measured(statistics.means[statistics.count > 0].numpy())

    def _present_means(self) -> NDArray[np.float64]:
        """Return the means of the classes with support, (n, d)."""
        return self.statistics.means[self.statistics.count > 0].numpy()

    # ---- answers ---------------------------------------------------------------------------------------------------

    @property
    def _keys(self) -> Growing:
        """The searchable keys, exact by default if classes have several."""
        kind = "exact" if self.index == "auto" and not self._is_plain[0] else self.index
        return self._held.get(kind) or self._held.setdefault(kind, self._searchable(kind))

    def _ids(self) -> NDArray[np.int64]:
        """Return the labels of the keys: their places in the table."""
        return self._table.present()

    def _keys_of(self, ids: NDArray[np.int64]) -> Tensor:
        """Return the exact keys of these labels (...), (..., d)."""
        return torch.from_numpy(self._table.x.rows(ids))

    def _classes_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the classes of keys by label (...)."""
        return self._table.number.rows(ids)

    def _rank(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return by what equally near keys (q, k) are ordered: as they were learned, or else by class."""
        if self.learner.rows_are_keys:
            return ids
        return super()._rank(self._classes_of(ids)) * (1 + len(self._table)) + ids

    def _log_weight(self, ids: NDArray[np.int64]) -> Tensor:
        weight = torch.from_numpy(self._table.weight.rows(ids))
        return weight.log() if self.learner.rows_are_keys else weight

    @isolated(gradients=False)
    def classify(self, X: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Return the number of the class, and the score (the learner's `closeness`), of each query, both (q,)."""
        queries, k = self._transform(X), self._n_deciding()
        found = self._all_logits(queries) if k is None else self._few_logits(queries, k)
        codes, scores = np.empty(len(queries), np.int64), np.empty(len(queries), X.dtype)
        start = 0
        for logits, similarity, numbers in found:
            rows = slice(start, start := start + len(logits))
            codes[rows] = self._first(logits, numbers)
            scores[rows] = self.learner.closeness(logits, similarity).numpy()
        return codes, scores

    def _n_deciding(self) -> int | None:
        """Return how many of the nearest keys decide an answer; None if all do."""
        is_single, is_even = self._is_plain
        k = self.learner.n_read if is_even else None
        if k is None and is_single and is_even:
            k = 1
        if k is None and self.index not in ("auto", "exact"):
            k = CANDIDATES
        return None if k is None or k >= self._table.n_present else k

    def _few_logits(self, queries: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor, NDArray[np.int64]]]:
        """Yield logits (q, c) of the classes of the `k` nearest keys, similarities, and the numbers of the classes."""
        keys, extras = self._keys, self._extras
        wide = min(k + SPARE, self._table.n_present)
        size = max(1, min(keys.chunk(wide), CHUNK_BYTES // (8 * wide * self.d), int((CHUNK_BYTES / (8 * wide)) ** 0.5)))
        for part in queries.split(size):
            ids, similarities = self._exact(part, keys.search(part, wide, k), keys.origin)
            margin = similarities[:, k - 1] - similarities[:, -1] - NEAR * np.abs(similarities).max(-1)
            if k != CANDIDATES and wide < self._table.n_present and (margin <= 0).any():
                yield from self._all_logits(part)  # more keys than these may be as near as the last one
                continue
            numbers, labels = np.unique(self._classes_of(ids), return_inverse=True)
            memory = self._memory_of(labels.reshape(-1), self._log_weight(ids.reshape(-1)), len(numbers), extras)
            similarity = torch.from_numpy(similarities).to(queries.dtype)
            places = torch.arange(ids.size, device="cpu").reshape(ids.shape)
            yield self.learner.read(similarity, memory, places), similarity, numbers

    def _all_logits(self, queries: Tensor) -> Iterator[tuple[Tensor, Tensor, NDArray[np.int64]]]:
        """Yield logits (q, n) of all numbers of classes, similarities to all keys, and these numbers."""
        keys = self._compared(queries)
        n, extras = len(self.known.count), self._extras
        for part in queries.split(max(1, CHUNK_BYTES // (8 * (self._table.n_present + n)))):
            state, similarity = keys.similarities(part)
            memory = self._memory_of_all(state.all_labels, extras)
            logits = self.learner.read(similarity, memory)
            yield logits, similarity.masked_fill_(torch.isinf(memory.log_weight), -torch.inf), np.arange(n)

    def _memory_of_all(self, labels: NDArray[np.int64], extras: Mapping[str, Tensor]) -> Memory:
        """Return how all keys are read, given their labels; those that are gone are absent."""
        made = self._read
        if made is None or made[0] is not labels:
            numbers = self._table.number.whole()[labels]
            weight = torch.from_numpy(self._table.weight.whole()[labels])
            log_weight = weight.log() if self.learner.rows_are_keys else weight
            log_weight = log_weight.masked_fill(torch.from_numpy(numbers == GONE), -torch.inf)
            memory = self._memory_of(numbers.clip(0), log_weight, len(self.known.count), extras)
            made = self.__dict__["_read"] = (labels, memory)
        return made[1]

    def _memory_of(self, labels: NDArray[np.int64], log_weight: Tensor, n: int, extras: Mapping[str, Tensor]) -> Memory:
        nothing = torch.empty((0, self.d), device="cpu", dtype=torch.float64)
        return Memory(nothing, torch.from_numpy(labels), log_weight, n, extras=extras)

    def _first(self, logits: Tensor, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the likeliest class of each query (q,); ties go to the first label."""
        found = numbers[argmax(logits)]
        for i in np.flatnonzero((logits == logits.amax(-1, keepdim=True)).sum(-1).numpy() > 1):
            tied = numbers[np.flatnonzero((logits[i] == logits[i].max()).numpy())]
            found[i] = tied[np.argsort(self.names(tied), kind="stable")[0]]
        return found

    def _logits(self, X: NDArray[np.floating]) -> Iterator[Tensor]:
        """Yield the logits (q, n_classes) of chunks of queries, in the order of the labels."""
        order = torch.from_numpy(self.known.places.ordered()[1])
        yield from (logits[:, order] for logits, _, _ in self._all_logits(self._transform(X)))


def _weighted(support: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the rows of kept support whose weight is not 0."""
    real = support["weight"] > 0
    return support if real.all() else {name: value[real] for name, value in support.items()}


def _counted(statistics: Statistics) -> Statistics:
    """Return the counts alone, with sums of no numbers."""
    return replace(statistics, sums={"x": statistics.count.new_empty((statistics.n_way, 0))}, support={})


def _keys_of(learner: Learner, statistics: Statistics) -> Mapping[str, Tensor]:
    """Return keys, classes and log weights that a learner makes of support."""
    if not len(statistics.support["labels"]):
        return {name: statistics.support[name] for name in ("x", "labels", "weight")}
    memory = learner.memorize(statistics).present()
    return {"x": memory.keys, "labels": memory.labels, "weight": memory.log_weight}


def _plainness(keys: Mapping[str, Tensor], support: Mapping[str, Tensor]) -> tuple[bool, bool]:
    """Return whether no class has several of the keys, and whether all rows have a weight of 1."""
    labels = keys["labels"].numpy()
    return not len(labels) or bool(np.bincount(labels).max() == 1), bool((support["weight"] == 1).all())
