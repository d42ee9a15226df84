"""Items with the support that their answers rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from fewshot.displays.answered import as_model, ending
from fewshot.displays.drawing import new_axes, pinned
from fewshot.images.answer import Answer
from fewshot.utils.drawing import drawable
from fewshot.utils.values import check_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


class NeighboursDisplay:
    """A row for each item: its picture and answer, then the nearest support with its class and similarity.

    Parameters
    ----------
    answers : sequence of Answer
        What `FewShotModel.answer` returns.

    Attributes
    ----------
    ax_, figure_
        Where `plot` has drawn.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from fewshot import Embedder, FewShotModel, NeighboursDisplay, digits
    >>> data = digits()
    >>> model = FewShotModel(Embedder("conv4", weights="random", img_size=28)).fit(data[:50])
    >>> shown = NeighboursDisplay.from_estimator(model, data.images[50:52], ax=Figure().add_subplot())
    >>> len(shown.answers), len(shown.answers[0].neighbours)
    (2, 5)
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(self, answers: Sequence[Answer]) -> None:
        if not answers:
            raise ValueError("there are no answers to show; give at least one item")
        self.answers = list(answers)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, n_neighbours: int = 5, ax: Axes | None = None, **how: Any
    ) -> Self:
        """Answer items, and draw.

        Parameters
        ----------
        estimator : FewShotModel
            Fitted, with kept support.
        X : collection of n items
            Queries.
        n_neighbours : int, default=5
            Support items of each row.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        **how
            As for `plot`.
        """
        model = as_model(estimator, "answer")
        X = ending(estimator, X).X
        return cls(model.answer(X, n_neighbours=check_count("n_neighbours", n_neighbours))).plot(ax=ax, **how)

    @classmethod
    def from_answers(cls, answers: Sequence[Answer], *, ax: Axes | None = None, **how: Any) -> Self:
        """Draw answers that are there already, such as the mistakes of a `TestResult`."""
        return cls(answers).plot(ax=ax, **how)

    def plot(self, ax: Axes | None = None, *, most: int = 10) -> Self:
        """Draw the first `most` answers."""
        shown = self.answers[: check_count("most", most)]
        columns, side = 1 + max(len(answer.neighbours) for answer in shown), 42
        self.ax_ = ax = new_axes(ax, 1.1 + 0.85 * columns, 0.3 + 1.05 * len(shown))
        self.figure_ = ax.figure
        for i, answer in enumerate(shown):
            told = "not read" if answer.error is not None else f"{answer.label}"
            self._cell(0, i, answer.thumbnail, drawable(told, 16), f"{100 * answer.probability:.0f} %", side)
            for j, near in enumerate(answer.neighbours, 1):
                right = near.label == answer.label
                self._cell(j, i, near.thumbnail, drawable(near.label, 16), f"{near.similarity:.2f}", side, right)
        ax.set(xlim=(-0.55, columns - 0.45), ylim=(len(shown) - 0.4, -0.6))
        ax.axvline(0.5, color="#999999", linewidth=0.8)
        ax.text(0, -0.58, "answer", ha="center", va="bottom", fontsize=9)
        ax.text(1 if columns == 1 else (columns / 2), -0.58, "nearest support", ha="center", va="bottom", fontsize=9)
        ax.set_axis_off()
        return self

    def _cell(
        self, x: int, y: int, picture: bytes | None, label: str, figure: str, side: int, is_right: bool = True
    ) -> None:
        pinned(self.ax_, picture, (x, y), side, (0, 8))
        weight, color = ("bold", None) if x == 0 else ("normal", None if is_right else "#D55E00")
        self.ax_.annotate(
            f"{label}\n{figure}", (x, y), (0, 8 - side / 2 - 2), textcoords="offset points", ha="center", va="top",
            fontsize=8, weight=weight, color=color,
        )  # fmt: skip
