"""Which classes are taken for which, with a picture of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from fewshot.displays.answered import answered, ending
from fewshot.displays.drawing import first_thumbnails, new_axes, pinned
from fewshot.utils.drawing import drawable
from fewshot.utils.values import check_count
from fewshot.utils.warning import keeps_filters

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

#: Classes whose cells hold numbers.
NUMBERED = 15


class ConfusionDisplay:
    """A confusion matrix, with a picture of each class beside its name.

    Parameters
    ----------
    confusion : DataFrame of shape (n, n)
        Numbers of items: true classes in rows, answers in columns. ``TestResult.confusion`` and
        ``EvalResult.confusion`` are such.
    thumbnails : mapping of label to bytes, optional
        A small PNG or JPEG of each class.

    Attributes
    ----------
    ax_, figure_
        Where `plot` has drawn.

    Raises
    ------
    ValueError
        If rows and columns differ.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fewshot import ConfusionDisplay
    >>> shown = ConfusionDisplay.from_predictions(["a", "b", "b"], ["a", "a", "b"], ax=Figure().add_subplot())
    >>> shown.confusion.to_numpy().tolist()
    [[1, 0], [1, 1]]
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(self, confusion: pd.DataFrame, thumbnails: Mapping[Any, bytes] | None = None) -> None:
        if confusion.empty or list(confusion.index) != list(confusion.columns):
            raise ValueError(f"confusion has shape {confusion.shape}; expected the same classes as rows and columns")
        self.confusion, self.thumbnails = confusion, dict(thumbnails or {})

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any = None, *, ax: Axes | None = None, **how: Any) -> Self:
        """Answer labelled items and draw; pictures of the classes come from the support, if the model keeps it.

        Parameters
        ----------
        estimator : FewShotModel or classifier
            Fitted; also at the end of a pipeline.
        X, y
            Labelled items that were not learned, such as `LabeledImages`; as for its ``test`` or ``score``.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        **how
            As for `plot`.
        """
        found, support = answered(estimator, X, y), getattr(ending(estimator).estimator, "support_", None)
        pictures = {} if support is None else first_thumbnails(support.labels.tolist(), support.thumbnails)
        return cls.from_predictions(found.true, found.predicted, thumbnails=pictures, ax=ax, **how)

    @classmethod
    @keeps_filters
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        *,
        thumbnails: Mapping[Any, bytes] | None = None,
        ax: Axes | None = None,
        **how: Any,
    ) -> Self:
        """Count answers (n,) to items of true classes (n,), and draw.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n,)
            True classes and answers.
        thumbnails : mapping of label to bytes, optional
            A small PNG or JPEG of each class.
        ax, **how
            As for `from_estimator`.
        """
        import pandas as pd

        truth, answers = np.asarray(y_true).tolist(), np.asarray(y_pred).tolist()
        if len(truth) != len(answers):
            raise ValueError(f"y_true has {len(truth)} labels and y_pred {len(answers)}; expected as many")
        labels = _in_order({*truth}) + _in_order({*answers} - {*truth})
        place = {label: i for i, label in enumerate(labels)}
        counts = np.zeros((len(labels), len(labels)), np.int64)
        np.add.at(counts, ([place[label] for label in truth], [place[label] for label in answers]), 1)
        rows, columns = (pd.Index(labels, dtype=object, name=name) for name in ("class", "answer"))
        return cls(pd.DataFrame(counts, rows, columns), thumbnails).plot(ax=ax, **how)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        normalize: bool | Literal["true"] | None = True,
        most: int = 30,
        cmap: str = "Blues",
    ) -> Self:
        """Draw the matrix.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        normalize : bool, default=True
            Whether to show the share of each true class in percent instead of numbers of items; "true" and None, of
            scikit-learn, mean the same.
        most : int, default=30
            The most classes to show: those with most mistakes.
        cmap : str, default="Blues"
            Colours of matplotlib.
        """
        if normalize not in (True, False, "true", None):
            raise ValueError(f"normalize is {normalize!r}; expected True, for shares of the true class, or False")
        table = self._worst(check_count("most", most))
        counts = table.to_numpy(dtype=float)
        images = self.confusion.loc[table.index].to_numpy().sum(1, keepdims=True)
        values = 100 * counts / np.maximum(images, 1) if normalize else counts
        n, names = len(values), [drawable(label, 28) for label in table.index]
        side = float(np.clip(2 + 0.5 * n, 3.5, 10))
        self.ax_ = ax = new_axes(ax, side * 1.1, side)
        self.figure_ = ax.figure
        ax.imshow(values, cmap=cmap, vmin=0, vmax=100 if normalize else None)
        ax.set_xticks(range(n), names, rotation=90 if max(map(len, names)) > 3 else 0)
        ax.set_yticks(range(n), names)
        self._pin(ax, table.index.tolist())
        what = "share of the class, %" if normalize else "items"
        title = what + (f"; the {n} of {len(self.confusion)} classes with most mistakes" * (n < len(self.confusion)))
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="answer", ylabel="true class")
        top = values.max(initial=0)
        for i, j in np.argwhere(counts > 0) if n <= NUMBERED else ():
            color = "white" if values[i, j] > 0.55 * top else "black"
            ax.text(j, i, f"{values[i, j]:.0f}", ha="center", va="center", fontsize=8, color=color)
        return self

    def _worst(self, most: int) -> pd.DataFrame:
        counts = self.confusion.to_numpy()
        wrong = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
        rows = np.sort(np.argsort(-wrong, kind="stable")[:most])
        return self.confusion.iloc[rows, rows]

    def _pin(self, ax: Axes, labels: list[Any]) -> None:
        """Draw the pictures of the classes between axes and names."""
        if not any(label in self.thumbnails for label in labels):
            return
        side = 20
        ax.tick_params(length=0, pad=side + 6)
        for i, label in enumerate(labels):
            picture = self.thumbnails.get(label)
            pinned(ax, picture, (0, i), side, (-side / 2 - 3, 0), coords=ax.get_yaxis_transform())
            pinned(ax, picture, (i, 0), side, (0, -side / 2 - 3), coords=ax.get_xaxis_transform())


def _in_order(labels: set[Any]) -> list[Any]:
    try:
        return sorted(labels)
    except TypeError:  # such as text among numbers, for unknown items
        return sorted(labels, key=str)
