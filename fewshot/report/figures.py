"""Figures for reports, drawn without matplotlib's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The palette of Okabe and Ito, safe for colour-blind readers.
COLOURS = ["#0072B2", "#E69F00", "#999999", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000", "#7A5195"]


def new_figure(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure, with its size in inches, and its panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = [figure.add_subplot(1, panels, i + 1) for i in range(panels)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9)
    return figure, axes


def require(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise if a frame has no rows or lacks a column."""
    missing = [c for c in columns if c not in frame]
    if missing or frame.empty:
        raise ValueError(
            f"the frame has {len(frame)} rows and lacks {missing}; expected rows with columns {list(columns)}"
        )


def accuracy_bars(frame: pd.DataFrame) -> Figure:
    """Draw accuracy with its interval: one group per setting, one bar per method.

    Parameters
    ----------
    frame : DataFrame
        Columns ``setting``, ``method``, ``accuracy`` (0..1) and ``ci95`` (NaN for none); optionally ``chance``
        (0..1), drawn as a dotted line across the group.

    Returns
    -------
    Figure
        Settings and methods appear in the order of the frame.

    Raises
    ------
    ValueError
        If a column is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"setting": "5-way", "method": "ours", "accuracy": 0.9, "ci95": 0.01}
    >>> len(accuracy_bars(pd.DataFrame([row])).axes)
    1
    """
    require(frame, ["setting", "method", "accuracy", "ci95"])
    if not frame["accuracy"].between(0, 1).all():
        raise ValueError("an accuracy lies outside 0..1; divide percentages by 100")
    settings, methods = list(dict.fromkeys(frame["setting"])), list(dict.fromkeys(frame["method"]))
    figure, (ax,) = new_figure(1.5 + 1.6 * len(settings), 3.8)
    width = 0.8 / len(methods)
    for m, method in enumerate(methods):
        rows = frame[frame["method"] == method]
        x = np.array([settings.index(s) for s in rows["setting"]]) + (m - (len(methods) - 1) / 2) * width
        ci95 = 100 * rows["ci95"].fillna(0).to_numpy()
        height = 100 * rows["accuracy"].to_numpy()
        ax.bar(
            x, height, width * 0.92, yerr=ci95, label=drawable(method, 40), color=COLOURS[m % len(COLOURS)], capsize=2
        )
        for at, top, value in zip(x, height + ci95, height, strict=True):
            ax.text(at, top + 1, f"{value:.0f}", ha="center", va="bottom", fontsize=8)
    if "chance" in frame:
        for i, setting in enumerate(settings):
            chance = 100 * frame.loc[frame["setting"] == setting, "chance"].iloc[0]
            ax.hlines(chance, i - 0.42, i + 0.42, colors="black", linestyles=":", linewidth=1)
    ax.set_xticks(range(len(settings)), [drawable(s, 60).replace(", ", "\n") for s in settings])
    ax.set(ylim=(0, 108), ylabel="accuracy, %")
    ax.set_yticks(range(0, 101, 20))
    ax.legend(frameon=False, ncols=min(3, len(methods)), fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def learning_curve(frame: pd.DataFrame) -> Figure:
    """Draw loss and accuracy of meta-training, and validation accuracy if present.

    Parameters
    ----------
    frame : DataFrame
        Columns ``episode``, ``loss``, ``accuracy``; optionally ``val_accuracy`` and ``val_ci95``, NaN elsewhere.

    Returns
    -------
    Figure
        Two panels. Thin lines are episodes, thick lines their running mean.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    require(frame, ["episode", "loss", "accuracy"])
    figure, (left, right) = new_figure(8.4, 3.2, 2)
    window = max(1, len(frame) // 25)
    for ax, column, factor in ((left, "loss", 1), (right, "accuracy", 100)):
        values = factor * frame[column]
        ax.plot(frame["episode"], values, color=COLOURS[0], alpha=0.25, linewidth=0.7)
        smooth = values.rolling(window, min_periods=1, center=True).mean()
        ax.plot(frame["episode"], smooth, color=COLOURS[0], linewidth=1.8, label="training tasks")
        ax.set_xlabel("episode")
    if "val_accuracy" in frame:
        points = frame.dropna(subset="val_accuracy")
        right.errorbar(
            points["episode"],
            100 * points["val_accuracy"],
            100 * points["val_ci95"] if "val_ci95" in points else None,
            fmt="o",
            color=COLOURS[5],
            capsize=2,
            label="validation classes",
        )
    left.set_ylabel("query loss")
    right.set(ylabel="accuracy, %", ylim=(0, 102))
    right.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def confusion(frame: pd.DataFrame) -> Figure:
    """Draw a confusion matrix, with each row as shares of its class.

    Parameters
    ----------
    frame : DataFrame
        Square matrix of counts, true classes as rows, answers as columns.

    Returns
    -------
    Figure
        A heat map, with percentages for at most 12 classes.

    Raises
    ------
    ValueError
        If rows and columns differ.
    """
    if frame.empty or list(frame.index) != list(frame.columns):
        raise ValueError(f"the confusion matrix has shape {frame.shape}; expected the same classes as rows and columns")
    counts = frame.to_numpy(dtype=float)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    n = len(share)
    side = float(np.clip(1.5 + 0.42 * n, 3.2, 8))
    figure, (ax,) = new_figure(side, side * 0.95)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=100)
    names = [drawable(label) for label in frame.index]
    if n <= 40:
        ax.set_xticks(range(n), names, rotation=90 if max(map(len, names)) > 3 else 0)
        ax.set_yticks(range(n), names)
    ax.set(xlabel="answer", ylabel="true class")
    if n <= 12:
        for i, j in np.ndindex(n, n):
            if share[i, j] >= 0.5:
                ax.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=8,
                        color="white" if share[i, j] > 55 else "black")  # fmt: skip
    return figure


def calibration(reliability: Mapping[str, Any], curve: Mapping[str, Sequence[float]], threshold: float) -> Figure:
    """Draw accuracy against confidence, and both error rates against the threshold.

    Parameters
    ----------
    reliability : mapping
        ``before`` and ``after``, each with ``confidence`` and ``accuracy`` per bin (0..1, None if empty).
    curve : mapping
        ``threshold``, ``false_accept`` and ``false_reject`` (0..1).
    threshold : float
        The chosen threshold.

    Returns
    -------
    Figure
        Two panels.
    """
    figure, (left, right) = new_figure(8.4, 3.4, 2)
    left.plot([0, 100], [0, 100], color=COLOURS[2], linestyle=":", label="ideal")
    for i, name in enumerate(("before", "after")):
        points = zip(reliability[name]["confidence"], reliability[name]["accuracy"], strict=True)
        x, y = zip(*((100 * c, 100 * a) for c, a in points if c is not None), strict=True)
        left.plot(x, y, marker="o", markersize=4, color=COLOURS[1 - i], label=name)
    left.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 102), ylim=(0, 102))
    for i, (name, what) in enumerate((("false_accept", "unknown accepted"), ("false_reject", "known rejected"))):
        right.plot(curve["threshold"], [100 * share for share in curve[name]], color=COLOURS[5 * i], label=what)
    right.axvline(threshold, color=COLOURS[2], linestyle="--", label="chosen")
    right.set(xlabel="threshold on the similarity", ylabel="queries, %", ylim=(0, 102))
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=8.5, ncols=3, columnspacing=1, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def embedding_maps(panels: Sequence[tuple[str, NDArray[np.floating], NDArray[Any]]]) -> Figure:
    """Draw 2-D maps side by side, with the same colour per class in all of them.

    Parameters
    ----------
    panels : sequence of (title, points of shape (n, 2), labels of shape (n,))
        The maps; colours are distinct for at most 10 classes.

    Returns
    -------
    Figure
        One panel per map; every class is labelled at the median of its points.

    Raises
    ------
    ValueError
        If points and labels do not match.
    """
    classes = sorted({label for _, _, labels in panels for label in labels.tolist()}, key=str)
    if not classes:
        raise ValueError("no points to draw; expected at least one map with labelled points")
    figure, axes = new_figure(4.2 * len(panels), 4.2, len(panels))
    for ax, (title, points, labels) in zip(axes, panels, strict=True):
        if points.shape != (len(labels), 2):
            raise ValueError(f"{title!r} has points of shape {points.shape} for {len(labels)} labels; expected (n, 2)")
        for i, label in enumerate(classes):
            own = points[labels == label]
            ax.scatter(own[:, 0], own[:, 1], s=7, alpha=0.6, color=COLOURS[i % len(COLOURS)], linewidths=0)
        for i, label in enumerate(classes):
            if (labels == label).any():
                x, y = np.median(points[labels == label], axis=0)
                box = {"boxstyle": "circle,pad=0.2", "fc": "white", "ec": COLOURS[i % len(COLOURS)], "alpha": 0.9}
                ax.text(x, y, drawable(label), ha="center", va="center", fontsize=10, bbox=box)
        ax.set_title(drawable(title, 40), fontsize=11)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure


def drawable(label: Any, longest: int = 14) -> str:
    """Shorten a label, and keep matplotlib from parsing it as math or missing glyphs in it."""
    text = "".join(c if ord(c) in _glyphs() and c.isprintable() else "\N{WHITE SQUARE}" for c in str(label))
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager, ft2font

    return frozenset(ft2font.FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())
