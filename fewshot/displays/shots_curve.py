"""How accuracy grows with the images of a class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fewshot.displays.answered import as_model
from fewshot.displays.drawing import COLOURS, new_axes, without_frame
from fewshot.episodes.evaluate import EvalResult
from fewshot.utils.drawing import drawable
from fewshot.utils.warning import keeps_filters

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

#: How far apart numbers on the logarithmic axis are.
APART = 0.2
#: End of the vertical axis in %, with room for a point at 100, and its beginning if nothing is lower.
HIGHEST, LOWEST = 101, 90
_COLUMNS = ("name", "images", "accuracy", "ci95", "is_measured")


class ShotsCurveDisplay:
    """Accuracy against the images of a class: measured, and expected with more.

    Parameters
    ----------
    points : DataFrame
        Columns ``name`` (of the curve), ``images`` (of a class), ``accuracy`` and ``ci95`` (0..1), and ``is_measured``.

    Attributes
    ----------
    ax_, figure_
        Where `plot` has drawn.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fewshot import ShotsCurveDisplay, digits, evaluate
    >>> data = digits()
    >>> pixels = data.images.reshape(len(data), -1) / 255
    >>> results = [evaluate("matching", pixels, data.labels, n_shot=k, n_episodes=20) for k in (1, 5)]
    >>> shown = ShotsCurveDisplay.from_results(results, ax=Figure().add_subplot())
    >>> shown.points["images"].tolist(), shown.points["accuracy"].is_monotonic_increasing
    ([1, 5], True)
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(self, points: pd.DataFrame) -> None:
        missing = [name for name in _COLUMNS if name not in points]
        if points.empty or missing:
            raise ValueError(f"points has {len(points)} rows; expected some, with {', '.join(missing or _COLUMNS)}")
        self.points = points

    @classmethod
    @keeps_filters
    def from_estimator(cls, estimator: Any, *, times: Sequence[float] = (2, 4), ax: Axes | None = None) -> Self:
        """Draw what ``check`` estimates from the support of a model, and what more images would give.

        Parameters
        ----------
        estimator : FewShotModel
            Fitted, with kept support.
        times : sequence of float, default=(2, 4)
            How many times the present images.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Raises
        ------
        ValueError
            If support was not kept, there is one class, or every class has one item.
        """
        import pandas as pd

        found = as_model(estimator, "check").check(n_shown=0)
        rows: list[tuple[Any, ...]] = [
            ("support", one.images, one.accuracy, 1.96 * (one.accuracy * (1 - one.accuracy) / one.of) ** 0.5, True)
            for one in found.curve
        ]
        last = rows[-1][1]
        rows += [("support", last * k, found.expected(k), np.nan, False) for k in (1, *times)]
        return cls(pd.DataFrame(rows, columns=list(_COLUMNS))).plot(ax=ax)

    @classmethod
    @keeps_filters
    def from_results(cls, results: Iterable[EvalResult], *, ax: Axes | None = None) -> Self:
        """Draw results of `evaluate` with several ``n_shot``: a curve for each learner.

        Raises
        ------
        ValueError
            If there is no result, or one is not of a fixed number of shots.
        """
        import pandas as pd

        rows = []
        for result in results:
            if "n_shot" not in (protocol := result.protocol):
                raise ValueError(f"a result has no n_shot ({result!r}); expected results of EpisodeSampler")
            rows.append((protocol["learner"], protocol["n_shot"], result.mean, result.ci95, True))
        return cls(pd.DataFrame(rows, columns=list(_COLUMNS))).plot(ax=ax)

    @classmethod
    @keeps_filters
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: Mapping[int, ArrayLike],
        *,
        name: str = "answers",
        ax: Axes | None = None,
    ) -> Self:
        """Draw the accuracy of answers to the same items by models that have learned several numbers of images.

        Parameters
        ----------
        y_true : array-like of shape (n,)
            True classes.
        y_pred : mapping of int to array-like of shape (n,)
            The answers, by the images of each class that taught them.
        name : str, default="answers"
            Name of the curve.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.

        Raises
        ------
        ValueError
            If there are no answers, or not as many as true classes.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> from fewshot import ShotsCurveDisplay
        >>> answers = {1: ["a", "b", "a", "a"], 5: ["a", "a", "b", "a"]}
        >>> shown = ShotsCurveDisplay.from_predictions(["a", "a", "b", "b"], answers, ax=Figure().add_subplot())
        >>> shown.points["accuracy"].tolist()
        [0.25, 0.75]
        """
        import pandas as pd

        truth, rows = np.asarray(y_true, object), []
        for images, given in y_pred.items():
            answers = np.asarray(given, object)
            if truth.ndim != 1 or answers.shape != truth.shape or not len(truth):
                raise ValueError(
                    f"y_true has shape {truth.shape} and y_pred[{images}] {answers.shape}; expected n labels in both"
                )
            right = float((answers == truth).mean())
            rows.append((name, images, right, 1.96 * (right * (1 - right) / len(truth)) ** 0.5, True))
        return cls(pd.DataFrame(rows, columns=list(_COLUMNS))).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw; the horizontal axis is logarithmic."""
        self.ax_ = ax = without_frame(new_axes(ax, 5.4, 3.6))
        self.figure_ = ax.figure
        names = self.points["name"].unique().tolist()
        for i, name in enumerate(names):
            own = self.points[self.points["name"] == name].sort_values("images")
            for measured, line, label in ((True, "o-", "measured"), (False, "o--", "expected")):
                rows, color = own[own["is_measured"] == measured], COLOURS[(i if measured else i + 1) % len(COLOURS)]
                if len(rows):
                    error = 100 * rows["ci95"] if measured else None
                    shown = label if len(names) == 1 else drawable(name, 40)
                    ax.errorbar(rows["images"], 100 * rows["accuracy"], error, fmt=line, markersize=4, capsize=2,
                                color=color, label=shown)  # fmt: skip
        low, high = ax.get_ylim()
        if high > HIGHEST:  # nothing is more than 100 % right
            ax.set_ylim(min(low, LOWEST), HIGHEST)
        ticks = _ticks(self.points)
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        ax.minorticks_off()
        ax.set(xlabel="images of a class", ylabel="right, %")
        ax.legend(edgecolor="none", fontsize=9, loc="lower right")
        return self


def _ticks(points: pd.DataFrame) -> list[float]:
    """Return where the axis has numbers: at measured points, then at expected ones, unless numbers would overlap."""
    kept: list[float] = []
    for images in points.sort_values(["is_measured", "images"], ascending=[False, True])["images"].tolist():
        if all(abs(math.log(images / other)) > APART for other in kept):
            kept.append(images)
    return sorted(kept)
