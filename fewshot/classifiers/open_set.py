"""How familiar a query is to what was learned, and the evidence for a threshold below which it is unknown.

The evidence are queries of unknown classes: each class of the support, as if it had never been learned, and each
held-out class. All are compared with the classes that the classifier knows now, so that the threshold suits their
number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.classifiers.fitted import FittedModel
from fewshot.classifiers.rejection import UnknownScores
from fewshot.learners.base import Learner
from fewshot.learners.memory import Statistics, sum_by_class
from fewshot.search.similarity import to_tensor
from fewshot.utils.discriminant import LabelledRows
from fewshot.utils.familiarity import Familiarity, HeldOut, teaching, unlearned
from fewshot.utils.isolation import isolated
from fewshot.utils.threads import one_thread
from fewshot.utils.twins import distinct_rows, earlier_twins

#: The most rows of held-out classes that are kept.
MOST_KEPT = 1000
#: About the most classes of the support that stand for unknown ones, and the most rows that are left out.
MOST_CLASSES, MOST_LEFT_OUT = 300, 1000
#: The part of its weight that a class must keep without a row; of less, rounding leaves nothing.
LEAST_REST = 1e-5
#: The most held-out classes that are learned to see how familiar a known class is.
MOST_LEARNED = 40
#: Queries are scored in parts of this many.
PART = 4096
#: Number of the examples that belong to no class.
NONE = -1


@dataclass(frozen=True, eq=False)
class Background:
    """What a classifier keeps of rows that are none of its classes.

    Attributes
    ----------
    x : ndarray of shape (n, d)
        Embeddings.
    codes : ndarray of shape (n,)
        Number of the held-out class of each; -1 for examples of "none of these", which have no class.
    known : ndarray of shape (m,)
        Scores of queries of known classes, in episodes of the held-out classes.
    names : ndarray of shape (k,)
        Labels of the held-out classes, which `codes` number.
    """

    x: NDArray[np.floating]
    codes: NDArray[np.int64]
    known: NDArray[np.float64]
    names: NDArray[Any]

    @classmethod
    def empty(cls, d: int) -> Self:
        """Return one without rows, for embeddings of length `d`."""
        return cls(np.zeros((0, d), np.float32), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, "U1"))

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the content as tensors, for a file."""
        return {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in ("x", "codes", "known")}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], names: NDArray[Any], d: int) -> Self:
        """Convert back from `to_tensors`, for embeddings of length `d`, without trusting the content.

        Raises
        ------
        ValueError
            If it is not what `to_tensors` returns.
        """
        values = {name: tensor.numpy() for name, tensor in tensors.items()}
        if values.keys() != {"x", "codes", "known"}:
            raise ValueError(f"its background holds {', '.join(values)}; expected x, codes and known")
        x, codes, known = values["x"], values["codes"], values["known"]
        are_numbers = all(a.dtype in (np.float32, np.float64) and np.isfinite(a).all() for a in (x, known))
        fits = x.ndim == 2 and x.shape[1] == d and codes.shape == (len(x),) and known.ndim == 1
        if not (
            are_numbers and fits and codes.dtype == np.int64 and (codes >= NONE).all() and (codes < len(names)).all()
        ):
            raise ValueError(f"its background does not hold finite rows of {d} numbers with a class each")
        return cls(x, codes, known.astype(np.float64), names)

    def having_classes(self, x: NDArray[np.floating], y: NDArray[Any], known: NDArray[np.float64]) -> Self:
        """Return this with other held-out classes; of many rows, equally many of each class."""
        names, codes, count = np.unique(y, return_inverse=True, return_counts=True)
        order = np.argsort(codes, kind="stable")
        rank = np.arange(len(codes)) - np.repeat(count.cumsum() - count, count)
        kept = order[rank < max(1, MOST_KEPT // len(count))]
        kept = np.sort(kept[:: -(-len(kept) // MOST_KEPT)])
        none = self.codes == NONE
        return replace(
            self,
            x=np.concatenate([self.x[none], x[kept]]),
            codes=np.concatenate([self.codes[none], codes[kept]]),
            known=known,
            names=names,
        )

    def having_none_of_these(self, x: NDArray[np.floating]) -> Self:
        """Return this with more examples of none of the classes; each once, and of many, some."""
        none = self.codes == NONE
        rows = np.concatenate([self.x[none], x])
        rows = rows[earlier_twins(rows) < 0]
        rows = rows[:: -(-len(rows) // MOST_KEPT)]
        codes = np.concatenate([np.full(len(rows), NONE, np.int64), self.codes[~none]])
        return replace(self, x=np.concatenate([rows, self.x[~none]]), codes=codes)

    def joined(self, other: Self) -> Self:
        """Return what both hold; of the held-out classes, those of this one if it has some."""
        both = self.having_none_of_these(other.x[other.codes == NONE]) if (other.codes == NONE).any() else self
        if (self.codes != NONE).any():
            return both
        held_out = other.codes != NONE
        x, codes = np.concatenate([both.x, other.x[held_out]]), np.concatenate([both.codes, other.codes[held_out]])
        return replace(both, x=x, codes=codes, known=other.known, names=other.names)

    def beside(self, classes: NDArray[Any]) -> Self:
        """Return this without held-out classes that have been learned since: those of these names."""
        known = set(classes.tolist())
        learned = np.array([name in known for name in self.names.tolist()], np.bool_)
        if not learned.any():
            return self
        kept = (self.codes == NONE) | ~learned[self.codes]
        return replace(self, x=self.x[kept], codes=self.codes[kept])


@dataclass(frozen=True, eq=False)
class _Seen:
    """The support of a learner that tells how familiar queries are, and what else was seen.

    Attributes
    ----------
    support : LabelledRows
        The support.
    others : Tensor of shape (n, d)
        Transformed rows that are none of the classes.
    codes : Tensor of shape (n,)
        Their numbers, as in `Background`.
    familiarity : Familiarity
        What support and other rows say together.
    """

    support: LabelledRows
    others: Tensor
    codes: Tensor
    familiarity: Familiarity

    @classmethod
    def of(cls, learner: Learner, statistics: Statistics, background: Background) -> Self | None:
        """Return what was seen, or None if the learner judges by closeness alone."""
        if (support := learner.familiar_rows(statistics)) is None:
            return None
        others = learner.transform(to_tensor(background.x).double())
        kept = torch.from_numpy(unlearned(support.x.numpy(), others.numpy(), background.codes))
        others, codes = others[kept], torch.from_numpy(background.codes)[kept]
        return cls(support, others, codes, _familiarity(support, others, codes))

    def unknown(self) -> list[NDArray[np.float64]]:
        """Return the familiarity of the rows of each class, as if it had never been seen: own and held-out ones."""
        classes = torch.unique(self.support.labels[self.support.weight > 0]).tolist()
        own = classes[:: max(1, len(classes) // MOST_CLASSES)] if len(classes) > 1 else []
        return [*map(self._own, own), *map(self._held_out, _classes(self.codes))]

    def _own(self, label: int) -> NDArray[np.float64]:
        """Return the familiarity of the rows of a class of the support, as if it had never been learned."""
        own = (self.support.weight > 0) & (self.support.labels == label)
        rows, queries = teaching(self.support, torch)[own], self.support.x[own]
        found: NDArray[np.float64] = self.familiarity.without(
            rows, torch.ones_like(rows[:, 0]), label, queries, torch
        ).numpy()
        return found

    def _held_out(self, code: int) -> NDArray[np.float64]:
        """Return the familiarity of the rows of a held-out class, as if it had never been given."""
        held_out, own = self._classes_held_out, self.codes == code
        place = int(held_out.place[self.codes[self.codes != NONE] == code][0])
        within = held_out.within[held_out.place == place]
        changed = torch.cat([within, held_out.mean(), held_out.mean(place)])
        signs = torch.ones_like(changed[:, 0])
        signs[len(within) + 1 :] = -1
        rows = self.others[own]
        found: NDArray[np.float64] = self.familiarity.without(changed, signs, None, rows, torch).numpy()
        return found

    @cached_property
    def _classes_held_out(self) -> HeldOut:
        some = self.codes != NONE
        return HeldOut.of(self.others[some], self.codes[some], torch)

    def known(self) -> tuple[NDArray[np.float64], bool]:
        """Return the familiarity of left-out rows of the support, and True.

        If there are none, return that of held-out classes, as if they were learned, and False.
        """
        distinct = distinct_rows(self.support.x.numpy(), self.support.labels.numpy())
        if len(distinct) < len(self.support.x):  # the copy of a row would answer for it
            support = _of_rows(self.support, torch.from_numpy(distinct))
            return replace(self, support=support, familiarity=_familiarity(support, self.others, self.codes)).known()
        count = self.support.count[self.support.labels]
        rows = torch.nonzero((self.support.weight > 0) & (count > self.support.weight * (1 + LEAST_REST))).flatten()
        if not len(rows):
            learned = map(self._if_learned, _classes(self.codes)[:MOST_LEARNED])
            return np.concatenate([np.zeros(0), *learned]), False
        rows = rows[:: max(1, len(rows) // MOST_LEFT_OUT)]
        labels, weight = self.support.labels[rows], self.support.weight[rows]
        x, count = self.support.x[rows], self.support.count
        found: NDArray[np.float64] = self.familiarity.of_left_out(x, labels, weight, count, torch).numpy()
        return found, True

    def _if_learned(self, code: int) -> NDArray[np.float64]:
        """Return the familiarity of rows of a held-out class, as if its first ones had been learned."""
        own, support = self.codes == code, self.support
        n_shot = round(support.shots(torch).item())
        learned, asked = self.others[own][:n_shot], self.others[own][n_shot:]
        more = replace(
            support,
            x=torch.cat([support.x, learned]),
            weight=torch.cat([support.weight, torch.ones_like(learned[:, 0])]),
            means=torch.cat([support.means, learned.mean(0, keepdim=True)]),
            count=torch.cat([support.count, support.count.new_tensor([len(learned)])]),
        )
        familiarity = _familiarity(more, self.others[~own], self.codes[~own])
        found: NDArray[np.float64] = familiarity.scores(asked, torch).numpy()
        return found


def _of_rows(support: LabelledRows, rows: Tensor) -> LabelledRows:
    """Return some rows of a support, as if they were all of it."""
    x, labels, weight = support.x[rows], support.labels[rows], support.weight[rows]
    n_way = len(support.count)
    count = torch.zeros_like(support.count).index_add(0, labels, weight)
    sums = sum_by_class(x * weight.unsqueeze(-1), labels, n_way)
    return LabelledRows(x, labels, weight, sums / torch.where(count > 0, count, 1).unsqueeze(-1), count)


def _familiarity(support: LabelledRows, others: Tensor, codes: Tensor) -> Familiarity:
    """Return how familiar queries are, given transformed rows that are none of the classes and their numbers."""
    held_out = HeldOut.of(others[codes != NONE], codes[codes != NONE], torch)
    negatives = others[codes == NONE]
    rows = torch.cat([teaching(support, torch), *held_out.rows, negatives])
    return Familiarity.of(rows, support.means, support.count, negatives, torch)


class OpenSet:
    """Scores of queries for one fitted model, and the evidence for thresholds.

    Parameters
    ----------
    model : FittedModel
        The model.
    given : Background, optional
        What is known of rows that are none of its classes.
    """

    def __init__(self, model: FittedModel, given: Background | None = None) -> None:
        self.model, self.given = model, given
        self.background = Background.empty(model.d) if given is None else given.beside(model.classes)

    @cached_property
    @isolated(gradients=False)
    def seen(self) -> _Seen | None:
        """What tells how familiar queries are; None if the closeness to the nearest key tells."""
        return _Seen.of(self.model.learner, self.model.statistics, self.background)

    @isolated(gradients=False)
    def scores(self, X: NDArray[np.floating], closeness: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the score (q,) of queries (q, d): their familiarity, or else their `closeness` (q,)."""
        if self.seen is None or not len(X):
            return closeness
        queries = self.model.learner.transform(to_tensor(X).double())
        parts = [self.seen.familiarity.scores(part, torch).numpy() for part in queries.split(PART)]
        # In single precision, which hides how products of different sizes are rounded.
        return np.concatenate(parts).astype(np.float32)

    @property
    def held_out(self) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        """Embeddings (n, d) of the held-out classes, and their numbers (n,)."""
        rows = self.background.codes != NONE
        return self.background.x[rows], self.background.codes[rows]

    @cached_property
    @isolated(gradients=False)
    @one_thread()
    def scored(self) -> UnknownScores | None:
        """Scores of queries of unknown and of known classes; None if nothing tells what is unknown."""
        codes, known, is_own = self.background.codes, self.background.known, False
        if self.model.learner.transductive and len(self.held_out[1]):
            unknown, asked = _asked_together(self.model, *self.held_out)
            known = asked if len(asked) else known
        elif self.seen is not None:
            unknown, (found, is_own) = self.seen.unknown(), self.seen.known()
            known = found if len(found) else known
        else:
            closeness = self.model.classify(self.background.x)[1].astype(np.float64)
            unknown = [closeness[codes == code] for code in _classes(torch.from_numpy(codes))]
        return UnknownScores.of(unknown, known, left_out=is_own) if unknown else None


def scores_in_episode(learner: Learner, statistics: Statistics, queries: Tensor, closeness: Tensor) -> Tensor:
    """Return the scores (q,) of transformed queries (q, d) of an episode, whose `closeness` (q,) is known."""
    seen = _Seen.of(learner, statistics, Background.empty(queries.shape[-1]))
    return closeness if seen is None else seen.familiarity.scores(queries, torch)


def _asked_together(
    model: FittedModel, x: NDArray[np.floating], codes: NDArray[np.int64]
) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
    """Return scores of unknown classes, and of known queries, where every other held-out class is learned too.

    A transductive learner scores a query among the others, so the other classes are asked in one call with the rest of
    those. Few of the classes that are learned have queries, which makes the task a little harder than it is.
    """
    classes, n_own, learner = np.unique(codes), len(model.classes), model.learner
    unknown, known = [], [np.zeros(0)]
    rows = learner.transform(to_tensor(x).double())
    for learned, asked in ((classes[::2], classes[1::2]), (classes[1::2], classes[::2])):
        places = [np.flatnonzero(codes == one) for one in (*learned, *asked)]
        shots = [min(round(float(np.median(model.n_support[model.n_support > 0]))), len(p) // 2) for p in places]
        shots[len(learned) :] = [0] * len(asked)
        support = np.concatenate([one[:n] for one, n in zip(places, shots, strict=True)])
        queries = [one[n:] for one, n in zip(places, shots, strict=True)]
        labels = torch.from_numpy(np.repeat(np.arange(len(shots)), shots))
        taught = learner.learn(rows[support], labels, len(shots), transformed=True)
        n_way = n_own + len(shots)
        own, new = torch.arange(n_way, device="cpu").split([n_own, len(shots)])
        both = model.statistics.joined(own, taught, new, n_way)
        logits = learner.answer(learner.memorize(both), rows[np.concatenate(queries)], transformed=True)
        found = learner.closeness(learner.without_nan(logits), None).numpy()
        parts = np.split(found, np.cumsum([len(one) for one in queries])[:-1])
        known += parts[: len(learned)]
        unknown += parts[len(learned) :]
    return unknown, np.concatenate(known)


def _classes(codes: Tensor) -> list[int]:
    found: list[int] = torch.unique(codes[codes != NONE]).tolist()
    return found
