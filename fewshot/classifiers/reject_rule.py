"""What ``reject`` of a classifier means: which queries it answers with the unknown label."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewshot.classifiers.calibration import FALSE_ACCEPTS, SCORES, Calibration, score_episodes
from fewshot.classifiers.fitted import FittedModel
from fewshot.classifiers.open_set import Background, OpenSet
from fewshot.classifiers.rejection import Rejection, UnknownScores
from fewshot.learners.base import Learner
from fewshot.utils.text import listed
from fewshot.utils.warning import warn

#: Similarities up to this are more likely to be meant as rates.
LOOKS_LIKE_A_RATE = 0.2
#: If this share of the learned items fail a threshold, it is a mistake.
NEARLY_ALL = 0.9
#: Most classes whose keys are looked at for a warning; those of more, which change one by one, take seconds to make.
MOST_LOOKED_AT = 1024
_OWN = object()


@dataclass(frozen=True, eq=False)
class RejectRule:
    """A value of `reject`, and what a classifier knows about unknown queries.

    Attributes
    ----------
    reject : float, str or None
        See `BaseFewShotClassifier`.
    model : FittedModel
        The model.
    calibration : Calibration or None
        The result of `calibrate`.
    background : Background or None
        Rows that are none of the classes. Classifiers of earlier versions have a calibration and no such rows.
    """

    reject: Any
    model: FittedModel
    calibration: Calibration | None
    background: Background | None

    @property
    def asked(self) -> float | str | None:
        """The rate of false accepts, or "balanced"; None if `reject` is None or a similarity."""
        asked = None if self.reject is None else asked_of(self.reject)
        if asked == "auto":
            return FALSE_ACCEPTS if self.calibration is None else self.calibration.false_accept_rate
        return asked

    def other(self, reject: str | None) -> RejectRule:
        """Return this rule with another `reject`; by default with its own, or "auto" if that is none."""
        return replace(self, reject=reject or ("auto" if self.asked is None else self.reject))

    @property
    def _is_of_earlier_version(self) -> bool:
        return self.reject == "auto" and self.calibration is not None and self.background is None

    def open_set(self) -> OpenSet | None:
        """Return what scores queries; None if the similarity to the nearest key does."""
        asked = self.asked  # raises
        return None if asked is None or self._is_of_earlier_version else self.model.remembered(OpenSet, self.background)

    def scores(self, X: NDArray[np.floating], closeness: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the score (q,) of queries (q, d) whose `closeness` (q,) to the nearest key is known."""
        open_set = self.open_set()
        return closeness if open_set is None else open_set.scores(X, closeness)

    def threshold(self) -> float | None:
        """Return the score below which a query is unknown, or None."""
        if (asked := self.asked) is None:
            if self.reject is not None:
                _warn_if_out_of_reach(float(self.reject), self.model)
            return None if self.reject is None else float(self.reject)
        if self._is_of_earlier_version and self.calibration is not None:
            return self.calibration.threshold
        return self.scored().threshold(asked)

    def answer(self, model: FittedModel, X: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the class numbers of queries (q, d), as `model` serves them, and which are unknown, both (q,)."""
        if self.asked is not None and model.learner.transductive:
            return self._answer_together(model, X, self.asked)
        codes, closeness = model.classify(X)
        return codes, self._refused(X, closeness)

    def answer_with(
        self, model: FittedModel, X: NDArray[np.floating], function: Callable[[Tensor], NDArray[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[Any]]:
        """Return what `answer` does, and `function` of the logits (q, n_classes), in one pass if there is a way."""
        if self.asked is not None and model.learner.transductive:
            return *self.answer(model, X), model.map_logits(X, function)
        codes, closeness, found = model.classify_with(X, function)
        return codes, self._refused(X, closeness), found

    def _refused(self, X: NDArray[np.floating], closeness: NDArray[np.floating]) -> NDArray[np.bool_]:
        if (threshold := self.threshold()) is None:
            return np.zeros(len(X), np.bool_)
        return ~(self.scores(X, closeness) >= threshold)  # NaN is refused

    def _answer_together(
        self, model: FittedModel, X: NDArray[np.floating], asked: float | str
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Answer queries together with the held-out rows, whose scores in this very call are the evidence."""
        evidence = self.scored()  # raises if there are no held-out rows
        if asked == "balanced":
            asked = evidence.rejection(asked).false_accept_rate
        x, classes = self.model.remembered(OpenSet, self.background).held_out
        codes, scores = model.classify(np.concatenate([X, x.astype(X.dtype)]))
        mine, theirs = scores[: len(X)], scores[len(X) :].astype(np.float64)
        return codes[: len(X)], ~(mine >= UnknownScores(theirs, classes, np.zeros(0)).threshold(asked))

    @property
    def score(self) -> str:
        """The name of the score, "closeness" or "familiarity"."""
        return SCORES[self.model.remembered(OpenSet, self.background).seen is not None]

    def taught(self) -> dict[str, Any]:
        """Return what a classifier keeps of it, as attributes."""
        kept = {"calibration_": self.calibration, "background_": self.background}
        return {name: value for name, value in kept.items() if value is not None}

    def joined(self, other: Self) -> Self:
        """Return the rule that also knows what another one does."""
        if other.background is None:
            return self
        background = other.background if self.background is None else self.background.joined(other.background)
        return replace(self, background=background, calibration=self.calibration or other.calibration)

    def with_examples(self, x: NDArray[np.floating]) -> Self:
        """Return the rule that also knows embeddings (m, d) that are none of the classes."""
        background = self.background or Background.empty(self.model.d)
        return replace(self, background=background.having_none_of_these(x))

    def calibrated(
        self,
        x: NDArray[np.floating],
        y: NDArray[Any],
        false_accept_rate: float,
        n_shot: int | None,
        how: Mapping[str, int],
    ) -> Self:
        """Return the rule that is calibrated on held-out classes; see `BaseFewShotClassifier.calibrate`."""
        n_support = self.model.n_support
        shots = int(np.median(n_support[n_support > 0])) if n_shot is None else n_shot
        sizes: dict[str, Any] = {**how, "n_way": len(n_support), "n_shot": shots}
        scored = score_episodes(self.model.learner, x, y, **sizes, beside=self.model.statistics)
        background = self.background or Background.empty(self.model.d)
        rule = replace(self, background=background.having_classes(x, y, scored.scores))
        own = set(self.model.classes.tolist())
        if shared := [name for name in np.unique(y).tolist() if name in own]:
            known = (
                f"{listed(shared)} {'is a class' if len(shared) == 1 else 'are classes'} of the classifier too, which "
                "says nothing about the unknown; give classes that it does not know"
            )
            if self.model.remembered(OpenSet, rule.background).scored is None:
                raise ValueError(known)
            warn(known)
        return replace(rule, calibration=Calibration.of(scored, rule.scored(), false_accept_rate, rule.score))

    def rejection(self) -> Rejection:
        """Return the threshold and what it costs."""
        if (asked := self.asked) is None:
            raise ValueError(f"reject is {self.reject!r}; expected 'auto', 'balanced' or a rate such as '5%'")
        return self.scored().rejection(asked)

    def scored(self) -> UnknownScores:
        """Return the evidence for a threshold.

        Raises
        ------
        ValueError
            If nothing tells what is unknown.
        """
        if (found := self.model.remembered(OpenSet, self.background).scored) is not None:
            return found
        learner = self.model.learner
        has_rows = learner.familiar_rows(self.model.statistics) is not None
        cure = ", or add a second class" if has_rows else "; only the learner 'discriminant' needs none"
        raise ValueError(
            f"reject={self.reject!r} needs a threshold; call calibrate(X, y) with held-out classes first{cure}"
        )


def _warn_if_out_of_reach(reject: float, model: FittedModel) -> None:
    """Warn if no query can be as similar as that, as of 5 where 5 % were meant, or nearly all are, as of 0.05."""
    learner, most, is_small = model.learner, float("inf"), model.n_classes <= MOST_LOOKED_AT
    if type(learner).closeness is not Learner.closeness:  # nobody knows the range of a method's own score
        return
    if learner.indexable and reject > 0:
        most = {"cosine": 1.0, "sqeuclidean": 0.0}.get(learner.metric, most)
        if is_small and learner.item_metric == "cosine" and learner.metric == "dot":  # queries are of unit length
            most = model.memory.keys.norm(dim=-1).max().item()
    if reject > most * (1 + 1e-6):
        warn(
            f"reject is {reject:g}, a similarity, and no query is nearer than {most:.3g}, so all are unknown; for the "
            f"rate of false accepts, give text such as reject='{reject if reject >= 1 else 5:g}%'"
        )
    elif is_small and (strangers := _share_below(reject, model)) >= NEARLY_ALL:
        warn(
            f"reject is {reject:g}, a similarity, not a probability, and {100 * strangers:.0f} % of the learned items "
            "themselves are not as near as that to their class, so nearly all queries are unknown; for the rate of "
            "false accepts, give text such as reject='5%'"
        )
    if 0 < reject <= LOOKS_LIKE_A_RATE:
        warn(
            f"reject is {reject:g}, a similarity, which nearly every query exceeds, so hardly any is unknown; for the "
            f"rate of false accepts, give text such as reject='{100 * reject:g}%'"
        )


def _share_below(reject: float, model: FittedModel) -> float:
    """Return the share of the learned items that are less similar to their own class; 0 if it cannot be told."""
    own = model.remembered(_own_similarity, _OWN)
    return float((own < reject).mean()) if len(own) else 0.0


def _own_similarity(model: FittedModel, _: object) -> NDArray[np.float64]:
    """Return how similar learned items are to their own class; empty if the learner keeps no rows."""
    rows, memory = model.learner.familiar_rows(model.statistics), model.memory
    if rows is None or model.learner.metric != "dot" or not memory.one_key_per_class:
        return np.zeros(0)
    similarity: NDArray[np.float64] = (rows.x * memory.keys[rows.labels].to(rows.x.dtype)).sum(-1).numpy()
    return similarity


def asked_of(reject: Any) -> float | str | None:
    """Return the rate of false accepts that a value of `reject` asks for, "auto", "balanced", or None for a similarity.

    Raises
    ------
    ValueError
        If the value is none of what `reject` can be.

    Examples
    --------
    >>> asked_of("5%"), asked_of("balanced"), asked_of(0.7)
    (0.05, 'balanced', None)
    """
    if isinstance(reject, Real) and not isinstance(reject, bool) and reject == reject:  # not NaN
        return None
    if isinstance(reject, str) and reject in ("auto", "balanced"):
        return reject
    if isinstance(reject, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*", reject)):
        rate = float(found[1]) / 100
        if rate < 1:
            return rate
    raise ValueError(
        f"reject is {reject!r}; expected None, 'auto', 'balanced', a rate of false accepts below 100 %, such as '5%', "
        "or a similarity"
    )


def is_reject_rule(value: Any) -> bool:
    """Whether a JSON value is a rule for `reject`, such as "auto"."""
    try:
        return asked_of(value) is not None
    except ValueError:
        return False
