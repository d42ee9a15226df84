"""What it costs to answer "unknown": known items that are refused, against unknown ones that are accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from fewshot.classifiers.kinds import rows_for
from fewshot.classifiers.rejection import UnknownScores
from fewshot.displays.answered import answered, check_probabilities, ending, needed
from fewshot.displays.drawing import add_curve, add_reference, new_axes, without_frame
from fewshot.images.learned import labelled
from fewshot.images.model import FewShotModel
from fewshot.utils.drawing import drawable
from fewshot.utils.values import check_embeddings, check_same_length

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

#: What `reject` may be, shown as points.
MARKED = ("5%", "balanced")


class UnknownDisplay:
    """The trade-off of every threshold: unknown items that are taken for a class against known ones that are refused.

    Parameters
    ----------
    scores : UnknownScores
        Scores of items of known and of unknown classes; higher is more familiar.
    thresholds : dict of str to float, optional
        Thresholds to mark, by what is said of them; by default those that these very scores give.
    name : str, default=""
        Name of the curve, to tell several on the same axes apart.

    Attributes
    ----------
    auroc_ : float
        Probability that a known item scores above an unknown one.
    ax_, figure_
        Where `plot` has drawn.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fewshot import UnknownDisplay
    >>> shown = UnknownDisplay.from_predictions([3.0, 2.0, 5.0], [1.0, 2.5], ax=Figure().add_subplot())
    >>> round(shown.auroc_, 2)
    0.83
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(self, scores: UnknownScores, thresholds: Mapping[str, float] | None = None, name: str = "") -> None:
        self.scores, self.auroc_, self.name = scores, scores.auroc, name
        best = {f"{asked} (chosen on these)": _threshold(scores, asked) for asked in MARKED}
        self.thresholds = best if thresholds is None else dict(thresholds)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any = None, y: Any = None, *, name: str = "", ax: Axes | None = None
    ) -> Self:
        """Score items of known and unknown classes, and draw.

        Parameters
        ----------
        estimator : FewShotModel or classifier
            Fitted; also at the end of a pipeline. A few-shot classifier scores how familiar an item is, as its `reject`
            does; any other classifier of scikit-learn, by the largest probability of ``predict_proba``, and the marked
            thresholds are then those that these very items give.
        X, y : optional
            Labelled items that were not learned; those of a class that it does not know are the unknown. By default the
            evidence of a few-shot classifier: each class of the support as if it had never been learned, with what
            `calibrate` was given.
        name : str, default=""
            Name of the curve, to tell several on the same axes apart.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Raises
        ------
        ValueError
            If nothing tells what is unknown, or all items are known, or all unknown.
        TypeError
            If the estimator has neither scores of its own nor probabilities.
        """
        last = ending(estimator).estimator
        if not isinstance(last, FewShotModel) and not hasattr(last, "reject_rule"):
            return cls(_by_probability(estimator, X, y), name=name).plot(ax=ax)
        given = ending(estimator, X, y)
        classifier = last.snapshot().classifier if isinstance(last, FewShotModel) else last
        check_is_fitted(classifier)
        rule = replace(classifier.reject_rule(), reject="auto")
        if X is None:
            own = _checked(rule.scored())
            return cls(own, _thresholds(own), name).plot(ax=ax)
        found = _by_familiarity(last, classifier, given.X, given.y)
        try:
            thresholds = _thresholds(rule.scored())
        except ValueError:  # it has none of its own
            thresholds = None
        return cls(found, thresholds, name).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        known: ArrayLike,
        unknown: ArrayLike,
        classes: ArrayLike | None = None,
        *,
        name: str = "",
        ax: Axes | None = None,
    ) -> Self:
        """Draw the trade-off of scores (k,) of known and (m,) of unknown items; `classes` (m,) then count equally."""
        scores = np.asarray(unknown, np.float64)
        given = np.zeros(len(scores)) if classes is None else np.asarray(classes)
        codes: NDArray[np.int64] = np.unique(given, return_inverse=True)[1]
        return cls(_checked(UnknownScores(scores, codes, np.asarray(known, np.float64))), name=name).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the curve, and the thresholds: of an estimator those that ``reject="5%"`` and ``"balanced"`` have."""
        self.ax_ = ax = without_frame(new_axes(ax, 4.8, 4.2))
        self.figure_ = ax.figure
        curve = self.scores.curve()
        x, y = ([100 * share for share in curve[name]] for name in ("false_reject", "false_accept"))
        name = f"{drawable(self.name, 24)}: " if self.name else ""
        color = add_curve(ax, [0, *x, 100], [100, *y, 0], f"{name}AUROC {self.auroc_:.3f}")
        add_reference(ax, [0, 100], [100, 0], "by chance")
        for i, (said, threshold) in enumerate(self.thresholds.items()):
            place = [100 * share for share in self.scores.costs(threshold)]
            is_told = said in ax.get_legend_handles_labels()[1]  # by another curve
            ax.plot(*place, "sD"[i % 2], color=color, markersize=7, label=None if is_told else said)
        ax.set(xlabel="known items refused, %", ylabel="unknown items accepted, %", xlim=(-2, 102), ylim=(-2, 102))
        ax.legend(edgecolor="none", fontsize=9, loc="upper right")
        return self


def _by_familiarity(estimator: Any, classifier: Any, X: Any, y: Any) -> UnknownScores:
    """Return the scores that `reject` compares; of a model, `classifier` is what answers its embeddings."""
    if isinstance(estimator, FewShotModel):
        items, y = labelled(X, y, estimator.embedder_.as_items, classifier.model_)
        X = estimator.embedder_.transform(items)
    X, y = check_embeddings(classifier, rows_for(classifier, X), reset=False, finite=False), needed(y)
    check_same_length(X, y)
    read = np.isfinite(X).all(1)
    X, rule = X[read], replace(classifier.reject_rule(), reject="auto")
    return _divided_by_class(rule.scores(X, classifier.served(X).classify(X)[1]), y[read], classifier.classes_)


def _by_probability(estimator: Any, X: Any, y: Any) -> UnknownScores:
    """Return the largest probabilities that a classifier without scores of its own gives."""
    check_probabilities(estimator)
    if X is None:
        raise ValueError(f"{type(ending(estimator).estimator).__name__} has no evidence of its own; give X and y")
    found = answered(estimator, X, y)
    return _divided_by_class(found.probability, found.true, estimator.classes_)


def _divided_by_class(scores: NDArray[np.floating], y: NDArray[Any], classes: NDArray[Any]) -> UnknownScores:
    """Return scores (n,) of items with labels (n,), of known and of unknown classes."""
    exact, is_known = scores.astype(np.float64), np.isin(y, classes)
    codes: NDArray[np.int64] = np.unique(y[~is_known], return_inverse=True)[1]
    return _checked(UnknownScores(exact[~is_known], codes, exact[is_known]))


def _thresholds(scores: UnknownScores) -> dict[str, float]:
    """Return the thresholds of a model with these scores as its evidence, by the value of `reject`."""
    asked = {f'reject="{one}"': one for one in MARKED if one != "balanced" or len(scores.known)}
    return {said: _threshold(scores, one) for said, one in asked.items()}


def _threshold(scores: UnknownScores, asked: str) -> float:
    return scores.threshold("balanced" if asked == "balanced" else float(asked[:-1]) / 100)


def _checked(scores: UnknownScores) -> UnknownScores:
    missing = "known" if not len(scores.known) else "unknown" if not len(scores.unknown) else ""
    if missing:
        raise ValueError(f"no item is of {'a' if missing == 'known' else 'an'} {missing} class; give some of both")
    return scores
