"""A map of embeddings, on which near items look alike to the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.displays.answered import as_model, ending
from fewshot.displays.drawing import COLOURS, MARKS, new_axes, pinned, without_frame
from fewshot.utils.drawing import drawable
from fewshot.utils.values import check_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Method = Literal["pca", "tsne"]
METHODS: tuple[Method, ...] = get_args(Method)
#: The most pictures on a map, and the most classes that are named.
MOST_PICTURES, NAMED = 150, 40


class EmbeddingDisplay:
    """Items as points of a plane, coloured by class, with their pictures if there are any.

    Parameters
    ----------
    points : ndarray of shape (n, 2)
        Places.
    labels : ndarray of shape (n,)
        Classes.
    thumbnails : sequence of n bytes, optional
        Small PNGs or JPEGs.
    title : str, default=""
        What the axes are.

    Attributes
    ----------
    ax_, figure_
        Where `plot` has drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from fewshot import EmbeddingDisplay
    >>> shown = EmbeddingDisplay.from_embeddings(np.eye(4), ["a", "a", "b", "b"], ax=Figure().add_subplot())
    >>> shown.points.shape
    (4, 2)
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(
        self, points: NDArray[np.floating], labels: NDArray[Any], thumbnails: Sequence[bytes] = (), title: str = ""
    ) -> None:
        self.points, self.labels, self.thumbnails, self.title = points, labels, list(thumbnails), title

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: ArrayLike | None = None,
        *,
        method: Method = "pca",
        seed: int = 0,
        ax: Axes | None = None,
        **how: Any,
    ) -> Self:
        """Draw the support of a model, or other items as its network sees them.

        Parameters
        ----------
        estimator : FewShotModel
            Fitted.
        X : collection of n items, or LabeledImages, optional
            Items; by default the kept support.
        y : array-like of shape (n,), optional
            Their labels; by default those of `LabeledImages`, else the answers of the model.
        method, seed, ax, **how
            As for `from_embeddings`.

        Raises
        ------
        ValueError
            If X is missing and support was not kept.
        """
        model = as_model(estimator, "embedder")
        X, y = ending(estimator, X, y)[1:]
        support = model.support_
        if X is None:
            if support is None:
                raise ValueError("support was not kept; give X, or fit with keep_support=True")
            x, labels, pictures = support.embeddings, support.labels, list(support.thumbnails)
        else:
            items = model.embedder_.as_items(X)
            embedded = model.embedder_.embed(items, thumbnails=True)
            x, pictures = embedded.embeddings, embedded.thumbnails
            labels = np.asarray(getattr(X, "labels", None) if y is None else y)
            if labels.ndim == 0:
                labels = model.classifier_.predict(x)
        return cls.from_embeddings(x, labels, thumbnails=pictures, method=method, seed=seed, ax=ax, **how)

    @classmethod
    def from_embeddings(
        cls,
        X: ArrayLike,
        y: ArrayLike,
        *,
        thumbnails: Sequence[bytes] = (),
        method: Method = "pca",
        seed: int = 0,
        ax: Axes | None = None,
        **how: Any,
    ) -> Self:
        """Map embeddings to a plane, and draw.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings; rows with NaN, of unreadable items, are left out.
        y : array-like of shape (n,)
            Classes.
        thumbnails : sequence of n bytes, optional
            Small PNGs or JPEGs.
        method : {"pca", "tsne"}, default="pca"
            Principal components, on which distances keep their meaning; or t-SNE, which keeps neighbours together.
        seed : int, default=0
            Seed of t-SNE.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        **how
            As for `plot`.

        Raises
        ------
        ValueError
            If shapes do not fit, or there are fewer than three items.
        """
        check_name("method", method, METHODS)
        x, labels = np.asarray(X, np.float64), np.asarray(y)
        if x.ndim != 2 or len(x) != len(labels):
            raise ValueError(f"X has shape {x.shape} for {len(labels)} labels; expected embeddings (n, d)")
        read = np.array(np.isfinite(x).all(1), np.bool_)
        x, labels = x[read], labels[read]
        if len(x) < 3:
            raise ValueError(f"there are {len(x)} items; expected at least 3 to draw a map")
        pictures = (
            [one for one, is_read in zip(thumbnails, read.tolist(), strict=True) if is_read] if thumbnails else []
        )
        points, title = _on_a_plane(x, method, seed)
        return cls(points, labels, pictures, title).plot(ax=ax, **how)

    def plot(self, ax: Axes | None = None, *, pictures: bool | None = None) -> Self:
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        pictures : bool, optional
            Whether to draw pictures instead of points; by default if there are at most 150.
        """
        if pictures is None:
            pictures = 0 < len(self.thumbnails) <= MOST_PICTURES
        self.ax_ = ax = without_frame(new_axes(ax, 6.4, 5.6), "top", "right", "left", "bottom")
        self.figure_ = ax.figure
        for i, label in enumerate(classes := list(dict.fromkeys(np.sort(self.labels).tolist()))):
            own, color = self.labels == label, COLOURS[i % len(COLOURS)]
            mark = MARKS[i // len(COLOURS) % len(MARKS)]
            ax.scatter(
                self.points[own, 0], self.points[own, 1], s=14, marker=mark, color=color, alpha=0.75, linewidths=0
            )
            for row in np.flatnonzero(own).tolist() if pictures else ():
                pinned(ax, self.thumbnails[row], tuple(self.points[row]), 22, edge=color)
            if len(classes) <= NAMED:
                box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": color, "alpha": 0.9}
                x, y = np.median(self.points[own], axis=0).tolist()
                ax.text(x, y, drawable(label, 20), ha="center", va="center", fontsize=9, bbox=box, zorder=9)
        ax.set(xticks=[], yticks=[])
        ax.margins(0.08)
        ax.set_title(self.title, fontsize=10, loc="left")
        return self


def _on_a_plane(x: NDArray[np.float64], method: str, seed: int) -> tuple[NDArray[np.floating], str]:
    """Return the places of embeddings (n, d) on a plane, and a title."""
    from sklearn.decomposition import PCA

    if method == "pca":
        pca = PCA(2, svd_solver="full") if x.shape[1] > 1 else None
        points = np.hstack([x, np.zeros_like(x)]) if pca is None else pca.fit_transform(x)
        kept = 1.0 if pca is None else float(np.nan_to_num(pca.explained_variance_ratio_).sum())
        return points, f"principal components, {100 * kept:.0f} % of the variance"
    from sklearn.manifold import TSNE

    start: Any = "pca" if x.shape[1] > 1 else "random"
    tsne = TSNE(2, perplexity=min(30.0, (len(x) - 1) / 3), init=start, random_state=seed)
    return tsne.fit_transform(x), "t-SNE: neighbours are near, distances mean little"
