"""The fitted model of many classes, of which a change touches only the classes that it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.classifiers.fitted import NOTHING_LEFT, FittedModel, KeptSupport
from fewshot.classifiers.known import KnownClasses
from fewshot.classifiers.moments import Moments
from fewshot.classifiers.rows import LabelledBlocks, with_rows
from fewshot.classifiers.summary import Summary
from fewshot.classifiers.taught import MOST_DRIFT, TaughtKeys
from fewshot.learners.base import Learner
from fewshot.learners.discriminant import DiscriminantLearner
from fewshot.learners.memory import Memory, Statistics
from fewshot.search.approximate import Choice
from fewshot.search.growing import Growing, changed_keys
from fewshot.search.similarity import CHUNK_BYTES, PART, check_k, normalize, prepare_keys
from fewshot.search.snapshot import build_now
from fewshot.utils.blocks import Blocks
from fewshot.utils.isolation import isolated
from fewshot.utils.means import suitable_temperature

#: Candidates of a query beyond the nearest; the exact sums decide among them.
SPARE = 8
#: Numbers for each class, beyond which those of removed classes are given up.
MOST_NUMBERS = 2
#: How far the centre may move, in spreads of the class means, until keys are searched relative to the new one.
MOST_MOVED = 0.01
#: Class means from which the precision of the searchable keys is chosen.
N_SAMPLE = 4096
NO_ROWS = np.empty(0, np.int64)


class LiveModel(FittedModel):
    """A fitted model whose keys follow from the means of its classes, each on its own.

    They are the means, or what `taught` makes of them. Learning, renaming and removing a class cost the same however
    many classes are known, and so do `best` and `nearest` if an index finds the candidates; the exact sums decide among
    these. What concerns all classes, such as `classes` and `statistics`, is made when it is first asked for.

    The numbers of its classes are those in which they were learned.
    """

    #: What a version takes over from the one before.
    _content: ClassVar[tuple[str, ...]] = ("learner", "known", "_taught", "_moments", "index", "steady")

    known: KnownClasses
    _taught: TaughtKeys | None
    _moments: Moments | None  # of the class means, once asked for
    _held: dict[Any, Growing]

    def __init__(self, **content: Any) -> None:
        bare: dict[str, Any] = {"_taught": None, "_moments": None, "_held": {}, "_snapshots": {}, "_made": []}
        self.__dict__.update({"index": "auto", "steady": False, **bare, **content})

    def version(self, **changes: Any) -> Self:
        """Return a model with other content, without what was made of this one."""
        return type(self)(**{**{name: getattr(self, name) for name in self._content}, **changes})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.learner}, {self.n_classes} classes)"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, (self.learner, self.classes, self.n_support, self.statistics)

    @classmethod
    def of(
        cls, learner: Learner, classes: NDArray[Any], n_support: NDArray[np.int64], statistics: Statistics
    ) -> LiveModel:
        """Return the model of the statistics of a learner for which `model_type` is this class."""
        known = KnownClasses.of(Summary(classes, n_support, statistics.summed()))
        taught = None
        if isinstance(learner, DiscriminantLearner):
            taught = TaughtKeys.of(learner, known, statistics.support)
        return LiveModel(learner=learner, known=known, _taught=taught)

    def served(self, index: str, steady: bool = False) -> FittedModel:
        """Return this model with its keys searched through `index`; see `FittedModel.served`."""
        if (index, steady) == (self.index, self.steady):
            return self
        view = object.__new__(type(self))
        view.__dict__.update({**self.__dict__, "index": index, "steady": steady})
        return view

    # ---- what concerns all classes ---------------------------------------------------------------------------------

    @cached_property
    def classes(self) -> NDArray[Any]:
        """Sorted labels, (n_classes,)."""
        return self.known.places.ordered()[0]

    @cached_property
    def n_support(self) -> NDArray[np.int64]:
        """Support rows of each class, (n_classes,)."""
        return self._ordered(self.known.n_support)

    @cached_property
    def statistics(self) -> Statistics:
        """Summary of all support, in float64."""
        if self._taught is not None:
            return self._taught.statistics(self._taught.rows.present(), self.known.places.ordered()[1])
        count, sums = (torch.from_numpy(self._ordered(blocks)) for blocks in (self.known.count, self.known.sums))
        return Statistics(len(count), count, {"x": sums})

    @cached_property
    @isolated(gradients=False)
    def memory(self) -> Memory:
        """The present keys, in the order of the labels."""
        return self.learner.memorize(self.statistics).present()

    def _ordered(self, blocks: Blocks) -> NDArray[Any]:
        """Return the rows of all classes in the order of their labels."""
        order = self.known.places.ordered()[1]
        is_whole = len(order) == len(blocks) and bool((order == np.arange(len(order))).all())
        return blocks.whole() if is_whole else blocks.rows(order)

    # ---- what concerns some ----------------------------------------------------------------------------------------

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.known.places)

    @property
    def some_classes(self) -> NDArray[Any]:
        """Some labels, at least one, in an array of the type of all."""
        return self.known.places.some().astype(self.known.dtype)

    @property
    def d(self) -> int:
        """Embedding length."""
        return int(self.known.sums.blocks[0].shape[-1])

    @property
    def center(self) -> Tensor | None:
        """What is subtracted from queries (d,), if anything, where all keys are compared."""
        return self.memory.extras["center"] if self.learner.centered else None

    def known_among(self, labels: Iterable[Any]) -> list[Any]:
        """Return those of some labels that are classes."""
        return [label for label in labels if self.known.places.of(label) >= 0]

    def names(self, codes: NDArray[np.int64]) -> NDArray[Any]:
        """Return the labels of classes by the numbers (...) that `best` and `classify` return."""
        return self.known.names(codes)

    def _place(self, label: Any) -> int:
        number = self.known.places.of(label)
        return number if number >= 0 else super()._place(label)  # which raises

    # ---- changes ---------------------------------------------------------------------------------------------------

    @isolated(gradients=False)
    def grown(self, added: Summary) -> FittedModel:
        """Return the model of what is known and what is added, of known or new classes."""
        numbers = self.known.numbers(added.classes)
        known = numbers[numbers >= 0]
        if self._taught is None or not len(known):
            before = self.known.part(known)
        else:  # from all rows, so that sums do not depend on how these came together
            before = self._holding(known, self.support.of_classes(known))
        joined = before.joined(added) if len(known) else added
        return self._having(replace(joined, statistics=joined.statistics.summed()), added.statistics.support)

    def without(self, label: Any) -> FittedModel:
        """Return the model without the class `label`; raise ValueError if it is unknown or the only one."""
        number = self._place(label)
        return super().without(label) if self.n_classes == 1 else self._dropping(np.array([number]))

    def renamed(self, old: Any, new: Any) -> FittedModel:
        """Return the model with class `old` renamed to `new`, which is no class; raise ValueError if `old` is none."""
        known = self.known.renamed(np.array([self._place(old)]), [new])
        return self.version(known=known, _held=self._held)

    @isolated(gradients=False)
    def less(
        self, X: NDArray[np.floating], y: NDArray[Any], weight: NDArray[np.float64], drop_empty: bool
    ) -> FittedModel:
        """Return the model without some support; see `FittedModel.less`."""
        labels = np.unique(y)
        numbers = np.array([self._place(label) for label in labels.tolist()], np.int64)
        part, gone = self.known.part(numbers), NO_ROWS
        if self._taught is not None:
            rows = self._taught.rows.of_classes(numbers)
            part = replace(part, statistics=with_rows(self._taught.statistics(rows, numbers), rows))
        left = part.less(self.learner, X, y, weight)
        if self._taught is not None:
            gone = np.setdiff1d(rows, left.statistics.support["row"].numpy())
        emptied = (left.n_support == 0) & (self.known.n_support.rows(numbers) > 0)
        model = self._having(replace(left, statistics=left.statistics.summed()), None, gone)
        if emptied.any() and not model.known.n_support.whole().any():
            raise ValueError(NOTHING_LEFT)
        return model._dropping(numbers[emptied]) if drop_empty and emptied.any() else model

    def _holding(self, numbers: NDArray[np.int64], rows: NDArray[np.int64]) -> Summary:
        """Return what is known of some classes of which only these `rows` count."""
        statistics = self.support.statistics(rows, numbers, len(self.known.count))
        labels, weight = (statistics.support[name].numpy() for name in ("labels", "weight"))
        n_support = np.bincount(labels[weight > 0], minlength=len(numbers))
        return Summary(self.known.names(numbers), n_support, statistics)

    @property
    def is_summed(self) -> bool:
        """Whether class sums are all that it knows."""
        return self._taught is None

    @property
    def support(self) -> LabelledBlocks:
        """The rows that it keeps."""
        if self._taught is None:
            raise TypeError(f"{self.learner.name} keeps class sums alone")
        return self._taught.rows

    def losing(self, rows: NDArray[np.int64]) -> LiveModel:
        """Return the model without some rows, and without the classes of which none is left."""
        numbers = np.unique(self.support.number.rows(rows))
        left = self._holding(numbers, np.setdiff1d(self.support.of_classes(numbers), rows))
        model = self._having(replace(left, statistics=left.statistics.summed()), None, rows)
        emptied = numbers[left.n_support == 0]
        return model._dropping(emptied) if len(emptied) else model

    def bare(self) -> LiveModel:
        """Return the same model without what it has prepared for answers, which takes memory."""
        return self.version()

    @property
    def kept_support(self) -> KeptSupport | None:
        """See `FittedModel.kept_support`."""
        if self.is_summed:
            return None
        present, number = self.support.present(), self.support.number
        codes = self.known.ordered_places()[number.rows(present)]
        return KeptSupport(self.support.x.blocks, present, codes, self.support.weight.rows(present))

    @property
    def n_rows(self) -> int:
        """Number of support rows of all classes."""
        return sum(int(block.sum()) for block in self.known.n_support.blocks)

    def _having(
        self, part: Summary, support: Mapping[str, Tensor] | None, gone: NDArray[np.int64] = NO_ROWS
    ) -> LiveModel:
        """Return the model in which the classes of `part` are as it says, with more support, and some rows `gone`."""
        before = self.known.numbers(part.classes)
        known, numbers = self.known.having(part)
        taught = None if self._taught is None else self._taught.changed(known, numbers, gone, support)
        return self._with(known, taught, before[before >= 0], numbers[known.count.rows(numbers) > 0])

    def _dropping(self, numbers: NDArray[np.int64]) -> LiveModel:
        known, taught = self.known.without(numbers), self._taught
        if taught is not None:
            taught = taught.changed(known, numbers, taught.rows.of_classes(numbers))
        model = self._with(known, taught, numbers, numbers[:0])
        if len(model.known.sums) <= MOST_NUMBERS * max(1, model.n_classes):
            return model
        return LiveModel.of(self.learner, model.classes, model.n_support, model.statistics)  # numbers them again

    def _with(
        self, known: KnownClasses, taught: TaughtKeys | None, before: NDArray[np.int64], after: NDArray[np.int64]
    ) -> LiveModel:
        """Return the model of other classes, given whose keys have to go and whose have to come."""
        gone, held, moments = before[self.known.count.rows(before) > 0], self._held, self._moments
        if taught is not None and taught.drift > MOST_DRIFT:
            taught, held = replace(taught, drift=0), {}
        if moments is not None:
            moments = moments.changed(self._measured(self.known.means(gone)), self._measured(known.means(after)))
        model = self.version(known=known, _taught=taught, _moments=moments)
        if held:
            model._held.update(changed_keys(held, gone, model._keys_of(after), after))
        return model

    # ---- answers ---------------------------------------------------------------------------------------------------

    @property
    def _keys(self) -> Growing:
        """The searchable keys, prepared when first needed, and again when their centre has moved far."""
        found = self._held.get(self.index)
        if not self._is_moving:
            return found or self._held.setdefault(self.index, self._searchable(self.index))  # of two threads, one wins
        if found is None or found.origin is None or not self._summed.is_near(found.origin[0].numpy(), MOST_MOVED):
            found = self._searchable(self.index, origin=torch.from_numpy(self._summed.middle[None]))
            self._held[self.index] = found
        return found

    def _searchable(self, index: str, **how: Any) -> Growing:
        ids, turn = self._ids(), None if self._taught is None else self._taught.turn(self.known)
        parts = (self._keys_of(ids[i : i + PART]) for i in range(0, len(ids), PART))
        some = self._keys_of(ids[:: 1 + len(ids) // N_SAMPLE])
        return Growing.of(parts, some, ids, self.learner.metric, index, turn=turn, **how)

    def _ids(self) -> NDArray[np.int64]:
        """Return the labels of the searchable keys: the numbers of the classes with support."""
        return np.flatnonzero(self.known.count.whole() > 0)

    def _keys_of(self, numbers: NDArray[np.int64]) -> Tensor:
        """Return the exact keys of classes by number (...), (..., d), without a centre subtracted."""
        means = self.known.means(numbers)
        return torch.from_numpy(means if self._taught is None else self._taught.keys(means, self.known))

    def _classes_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the classes of keys by label (...)."""
        return ids

    def _rank(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return by what equally near keys (q, k) are ordered: their labels."""
        return np.unique(self.names(ids), return_inverse=True)[1].reshape(ids.shape)

    @property
    def _is_moving(self) -> bool:
        """Whether answers depend on the mean of all keys, which is subtracted; distances do not."""
        return self.learner.centered and self.learner.metric != "sqeuclidean"

    @property
    def _summed(self) -> Moments:
        """The sums over the class means, as `_measured`."""
        if (found := self._moments) is None:
            found = self.__dict__["_moments"] = Moments.of(self._measured(self._present_means()))
        return found

    def _present_means(self) -> NDArray[np.float64]:
        """Return the means of the classes with support, (n, d)."""
        return self.known.means(np.flatnonzero(self.known.count.whole() > 0))

    def _measured(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return class means (n, d) as their spread decides the temperature; or as they are, for the centre."""
        is_scaled = self.learner.metric == "cosine" and not self._is_moving
        return normalize(torch.from_numpy(means)).numpy() if is_scaled else means

    @property
    def _extras(self) -> dict[str, Tensor]:
        """What is read besides the keys: the temperature, if the support determines it."""
        if not self.learner.fits_temperature:
            return {}
        if (found := self._summed.temperature(self.learner.metric)) is None:  # rounding has taken its digits
            means = self._present_means()
            found = suitable_temperature(means, np.ones(len(means)), self.learner.metric, np).item()
        return {"temperature": torch.tensor(found, dtype=torch.float64, device="cpu")}

    def _compared(self, queries: Tensor) -> Growing:
        """Return the keys that queries are compared with if that is with all."""
        if queries.dtype == torch.float32 and not self.steady:
            return self._keys
        kind = "all", self.steady
        found = self._held.get(kind)
        return found or self._held.setdefault(kind, self._searchable("exact", double=True, steady=self.steady))

    def build(self) -> Choice:
        """Build what finds the nearest keys now, and wait; return how they are found, and how well."""
        return build_now(self._keys.state.base.snapshot)

    @property
    def compares_all(self) -> bool:
        """False: `classify` searches."""
        return False

    @isolated(gradients=False)
    def classify(self, X: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Return the number of the class and the similarity of its key for each query, both (q,)."""
        numbers, similarities = self._nearest(X, 1)
        return numbers[:, 0], similarities[:, 0]

    @isolated(gradients=False)
    def nearest(self, X: NDArray[np.floating], k: int) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Return labels and similarities (n, k) of the nearest keys; see `FittedModel.nearest`."""
        check_k(k, self._keys.state.n_alive)
        numbers, similarities = self._nearest(X, k)
        return self.names(numbers), similarities

    @isolated(gradients=False)
    def map_logits(self, X: NDArray[np.floating], function: Callable[[Tensor], NDArray[Any]]) -> NDArray[Any]:
        """Apply `function` to the logits (q, n_classes) of each chunk of queries, and concatenate the results.

        Keys that are changed class by class serve all queries, unless keys move with the support of all classes. Nor do
        they where distances are `steady`, which are relative to the mean of all keys: so loading changes no bit.
        """
        is_moving = self._taught is not None or self._is_moving or type(self.learner).read is not Learner.read
        if not len(X) or is_moving or (self.steady and self.learner.metric == "sqeuclidean"):
            return super().map_logits(X, function)
        return np.concatenate([function(logits) for logits in self._logits(X)])

    def _logits(self, X: NDArray[np.floating]) -> Iterator[Tensor]:
        """Yield the logits (q, n_classes) of chunks of queries, in the order of the labels."""
        queries, places = self._uncentred(X, False), self.known.ordered_places()
        keys, temperature = self._compared(queries), self._extras.get("temperature", self.learner.temperature)
        for part in queries.split(max(1, CHUNK_BYTES // (16 * len(places)))):
            similarity = keys.similarities_in(part, places, self.n_classes)
            yield similarity / temperature.to(similarity.dtype)

    def _nearest(self, X: NDArray[np.floating], k: int) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Return numbers and similarities (n, k) of the nearest classes; ties go to the first label."""
        queries, keys = self._uncentred(X, self.learner.centered), self._keys
        spare = SPARE if self._taught is None and not self._is_moving else TaughtKeys.spare
        wide = min(k + spare, keys.state.n_alive)
        size = max(1, min(keys.chunk(wide), CHUNK_BYTES // (8 * wide * self.d)))
        numbers, similarities = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), X.dtype)
        for start in range(0, len(queries), size):
            found, similarity = self._exact(*self._proposed(queries[start : start + size], keys, wide, k), keys.origin)
            similarities[start : start + size] = similarity[:, :k]
            numbers[start : start + size] = self._classes_of(found[:, :k])
            # More keys than these may be as near as the last one wanted.
            is_tied = (similarity[:, k - 1] == similarity[:, -1]) & (wide < keys.state.n_alive)
            for i in start + np.flatnonzero(is_tied):
                labels, similarities[i] = FittedModel.nearest(self.served("exact", self.steady), X[i : i + 1], k)
                numbers[i] = self.known.numbers(labels[0])
        return numbers, similarities

    def _proposed(self, queries: Tensor, keys: Growing, wide: int, k: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Return centred queries, and labels (q, wide) of their nearest keys, about whose order the exact keys decide.

        Those that are searched may be relative to a slightly earlier centre.
        """
        if not self._is_moving or keys.origin is None:
            return queries, keys.search(queries, wide, k)
        centred = queries - torch.from_numpy(self._summed.middle)
        return centred, keys.search(centred + keys.origin, wide, k)

    def _exact(
        self, queries: Tensor, ids: NDArray[np.int64], origin: Tensor | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the labels `ids` (q, c) of keys, nearest first, and their similarities, from the exact keys."""
        keys = self._keys_of(ids)
        keys = keys - torch.from_numpy(self._summed.middle) if self._is_moving else keys
        prepared = prepare_keys(keys, self.learner.metric, origin)
        prepared = prepared.steadied() if self.steady else prepared
        similarity = prepared.similarity(queries.double().unsqueeze(-2)).squeeze(-2).numpy()
        order = np.argsort(-similarity, axis=-1, kind="stable")
        ordered = np.take_along_axis(similarity, order, -1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            order = np.lexsort((self._rank(ids), -similarity), axis=-1)
        return np.take_along_axis(ids, order, -1), ordered
