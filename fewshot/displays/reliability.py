"""How often answers are right, against how probable they were said to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fewshot.classifiers.calibration import Calibration, expected_calibration_error, reliability_bins
from fewshot.displays.answered import answered, check_probabilities
from fewshot.displays.drawing import add_curve, add_reference, new_axes, without_frame
from fewshot.utils.drawing import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


class ReliabilityDisplay:
    """Accuracy against the probability of the answer, with how many answers have it.

    Parameters
    ----------
    curves : mapping of name to bins
        Each with ``n``, ``confidence`` and ``accuracy`` per bin, as in ``Calibration.reliability``.

    Attributes
    ----------
    errors_ : dict of str to float
        Expected calibration error of each curve.
    ax_, figure_
        Where `plot` has drawn.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Weinberger (2017). On Calibration of Modern Neural Networks. ICML. arXiv:1706.04599.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fewshot import ReliabilityDisplay
    >>> ax = Figure().add_subplot()
    >>> shown = ReliabilityDisplay.from_predictions(["a", "b"], ["a", "a"], [0.9, 0.6], ax=ax)
    >>> round(shown.errors_["answers"], 2)
    0.35
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(self, curves: Mapping[str, Mapping[str, Any]]) -> None:
        self.curves = {name: dict(bins) for name, bins in curves.items()}
        self.errors_ = {name: expected_calibration_error(bins) for name, bins in self.curves.items()}

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, *, name: str = "answers", ax: Axes | None = None
    ) -> Self:
        """Answer labelled items that were not learned, and draw.

        Parameters
        ----------
        estimator : FewShotModel or classifier
            Fitted, with probabilities; also at the end of a pipeline.
        X, y
            Items and labels, as for its ``test`` or ``score``. Answers "unknown" are left out.
        name : str, default="answers"
            Name of the curve.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Raises
        ------
        TypeError
            If the estimator has no ``predict_proba``.
        """
        check_probabilities(estimator)
        found = answered(estimator, X, y)
        sure = np.isin(found.predicted, estimator.classes_)
        return cls.from_predictions(found.true[sure], found.predicted[sure], found.probability[sure], name=name, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        probability: ArrayLike,
        *,
        name: str = "answers",
        ax: Axes | None = None,
    ) -> Self:
        """Count answers (n,) that are right by their probability (n,), and draw.

        Raises
        ------
        ValueError
            If there are none, the numbers differ, or a probability is outside 0..1.
        """
        sure, right = np.asarray(probability, np.float64), np.asarray(y_true) == np.asarray(y_pred)
        if sure.ndim != 1 or sure.shape != np.shape(right) or not len(sure):
            raise ValueError(
                f"probability has shape {sure.shape} for {np.size(right)} answers; expected that of each answer, "
                "such as predict_proba(X).max(1)"
            )
        if not ((sure >= 0) & (sure <= 1 + 1e-6)).all():
            raise ValueError("a probability is outside 0..1")
        return cls({name: reliability_bins(sure, right)}).plot(ax=ax)

    @classmethod
    def from_calibration(cls, calibration: Calibration, *, ax: Axes | None = None) -> Self:
        """Draw what `calibrate` has measured on held-out classes, before and after: ``model.calibration_``."""
        return cls({name: calibration.reliability[name] for name in ("before", "after")}).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw; bars are the share of the answers with about that probability."""
        self.ax_ = ax = without_frame(new_axes(ax, 4.6, 4.2))
        self.figure_ = ax.figure
        add_reference(ax, [0, 100], [0, 100], "ideal")
        for name, bins in self.curves.items():
            rows = zip(bins["n"], bins["confidence"], bins["accuracy"], strict=True)
            n, sure, right = np.array([row for row in rows if row[0]], np.float64).T
            label = f"{drawable(name, 24)} (error {self.errors_[name]:.3f})"
            color = add_curve(ax, 100 * sure, 100 * right, label, marker="o", markersize=4)
            ax.bar(100 * sure, 100 * n / n.sum(), width=100 / len(bins["n"]) * 0.8, color=color, alpha=0.15, zorder=0)
        ax.set(xlabel="probability of the answer, %", ylabel="right, %", xlim=(0, 102), ylim=(0, 102))
        ax.legend(edgecolor="none", fontsize=9, loc="upper left")
        return self
