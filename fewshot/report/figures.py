"""Figures for reports, drawn without matplotlib's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.drawing import drawable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

#: The palette of Okabe and Ito, safe for colour-blind readers.
COLOURS = ["#0072B2", "#E69F00", "#999999", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000", "#7A5195"]
#: Panels in a row, so that their text can be read.
MOST_COLUMNS = 3
#: Dash patterns, for more lines than distinguishable colours.
DASHES = ("-", "--", ":", "-.")


def new_figure(width: float, height: float, panels: int = 1, columns: int = 0) -> tuple[Figure, list[Axes]]:
    """Return a figure, with its size in inches, and its panels, side by side or in rows of `columns`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    columns = columns or panels
    axes = [figure.add_subplot(-(-panels // columns), columns, i + 1) for i in range(panels)]
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


def accuracy_dots(frame: pd.DataFrame) -> Figure:
    """Draw accuracy with its interval: one row per method, panel per setting and colour per group.

    Parameters
    ----------
    frame : DataFrame
        Columns ``setting``, ``method``, ``accuracy`` (0..1) and ``ci95`` (NaN for none); optionally ``group``, and
        ``chance`` (0..1), drawn as a dotted line.

    Returns
    -------
    Figure
        Methods are sorted by their mean accuracy.

    Raises
    ------
    ValueError
        If a column is missing, or an accuracy is not a share.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"setting": "5-way", "method": "ours", "accuracy": 0.9, "ci95": 0.01}
    >>> len(accuracy_dots(pd.DataFrame([row])).axes)
    1
    """
    require(frame, ["setting", "method", "accuracy", "ci95"])
    if not frame["accuracy"].between(0, 1).all():
        raise ValueError("an accuracy lies outside 0..1; divide percentages by 100")
    frame = frame.assign(group=frame.get("group", ""))
    settings, groups = list(dict.fromkeys(frame["setting"])), list(dict.fromkeys(frame["group"]))
    methods = frame.groupby("method")["accuracy"].mean().sort_values().index.tolist()
    columns = min(len(settings), MOST_COLUMNS)
    height = -(-len(settings) // columns) * (1.1 + 0.3 * len(methods))
    figure, axes = new_figure(9.2, height, len(settings), columns)
    for place, (ax, setting) in enumerate(zip(axes, settings, strict=True)):
        for g, group in enumerate(groups):
            rows = frame[(frame["setting"] == setting) & (frame["group"] == group)]
            y = np.array([methods.index(m) for m in rows["method"]]) - 0.16 * (g - (len(groups) - 1) / 2)
            x, error = 100 * rows["accuracy"].to_numpy(), 100 * rows["ci95"].fillna(0).to_numpy()
            ax.errorbar(x, y, xerr=error, fmt="o", markersize=4, capsize=2, color=COLOURS[g % len(COLOURS)],
                        label=drawable(group, 40))  # fmt: skip
        if "chance" in frame:
            ax.axvline(100 * frame.loc[frame["setting"] == setting, "chance"].iloc[0], color="black", linestyle=":")
        ax.set_yticks(range(len(methods)), [drawable(m, 34) for m in methods] if place % columns == 0 else [])
        ax.set(xlabel="accuracy, %", ylim=(-0.6, len(methods) - 0.4))
        ax.set_title(drawable(setting, 60).replace(", ", "\n"), fontsize=10)
        ax.grid(alpha=0.3)
    if len(groups) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, fontsize=9, ncols=2, loc="outside upper center")
    return figure


def accuracy_lines(frame: pd.DataFrame, column: str, title: str) -> Figure:
    """Draw accuracy against the number of shots or ways.

    Parameters
    ----------
    frame : DataFrame
        Columns `column` (a number), ``method``, ``accuracy`` (0..1) and ``ci95``.
    column : str
        Column of the horizontal axis.
    title : str
        Title: the settings held fixed.

    Returns
    -------
    Figure
        One line per method.
    """
    require(frame, [column, "method", "accuracy", "ci95"])
    figure, (ax,) = new_figure(7.2, 4.2)
    for m, (method, rows) in enumerate(frame.groupby("method", sort=False)):
        rows = rows.sort_values(column)
        ax.errorbar(rows[column], 100 * rows["accuracy"], 100 * rows["ci95"], capsize=2, markersize=3, marker="o",
                    color=COLOURS[m % len(COLOURS)], linestyle=DASHES[m // len(COLOURS) % len(DASHES)],
                    label=drawable(method, 34))  # fmt: skip
    ax.set_xticks(sorted(set(frame[column])))
    ax.set(xlabel={"n_shot": "shots", "n_way": "way (classes)"}.get(column, column), ylabel="accuracy, %")
    ax.set_title(drawable(title, 70), fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def accuracy_map(frame: pd.DataFrame) -> Figure:
    """Draw a heat map of accuracies (0..1), with numbers: one row per method, one column per data set.

    Each column has its own colour scale, from its worst to its best.
    """
    if frame.empty:
        raise ValueError("the frame is empty; expected one row per method and one column per data set")
    values = 100 * frame.to_numpy(dtype=float)
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    figure, (ax,) = new_figure(3 + 1.25 * values.shape[1], 1.6 + 0.32 * values.shape[0])
    share = (values - low) / np.where(high > low, high - low, 1)
    ax.imshow(share, cmap=_tint(), vmin=-0.1, vmax=1.1, aspect="auto", interpolation="none")
    ax.set_xticks(range(values.shape[1]), [drawable(c, 30).replace(", ", "\n") for c in frame.columns], fontsize=8)
    ax.set_yticks(range(values.shape[0]), [drawable(i, 48) for i in frame.index])
    ax.spines[:].set_visible(False)
    _write_values(ax, values, share > 0.6, ".1f")
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


def shots_curve(measured: pd.DataFrame, expected: pd.DataFrame) -> Figure:
    """Draw the accuracy that was measured with few images of a class, and that to expect with more.

    Parameters
    ----------
    measured, expected : DataFrame
        Columns ``images`` (of a class) and ``accuracy`` (0..1); of measured ones also ``ci95``.

    Returns
    -------
    Figure
        Two lines over a logarithmic axis.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    require(measured, ["images", "accuracy", "ci95"])
    require(expected, ["images", "accuracy"])
    figure, (ax,) = new_figure(6.4, 3.4)
    ax.errorbar(measured["images"], 100 * measured["accuracy"], 100 * measured["ci95"], fmt="o-", markersize=4,
                capsize=2, color=COLOURS[0], label="measured")  # fmt: skip
    ax.plot(expected["images"], 100 * expected["accuracy"], "o--", markersize=4, color=COLOURS[1], label="expected")
    ticks = sorted({*measured["images"], *expected["images"]})
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="images of a class", ylabel="accuracy, %")
    ax.legend(frameon=False, fontsize=9, loc="lower right")
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
    ax.imshow(share, cmap=_tint(), vmin=0, vmax=100, interpolation="none")
    names = [drawable(label) for label in frame.index]
    if n <= 40:
        ax.set_xticks(range(n), names, rotation=90 if max(map(len, names)) > 3 else 0)
        ax.set_yticks(range(n), names)
    ax.set(xlabel="answer", ylabel="true class")
    if n <= 12:
        _write_values(ax, np.where(share >= 0.5, share, np.nan), share > 55, ".0f")
    return figure


def reliability(bins: Mapping[str, Any]) -> Figure:
    """Draw accuracy against confidence.

    Parameters
    ----------
    bins : mapping
        ``before`` and ``after``, each with ``confidence`` and ``accuracy`` per bin (0..1, None if empty).
    """
    figure, (ax,) = new_figure(5.2, 3.4)
    ax.plot([0, 100], [0, 100], color=COLOURS[2], linestyle=":", label="ideal")
    for i, name in enumerate(("before", "after")):
        points = zip(bins[name]["confidence"], bins[name]["accuracy"], strict=True)
        x, y = zip(*((100 * c, 100 * a) for c, a in points if c is not None), strict=True)
        ax.plot(x, y, marker="o", markersize=4, color=COLOURS[1 - i], label=name)
    ax.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 102), ylim=(0, 102))
    _legend_above(ax)
    return figure


def trade_off(curve: Mapping[str, Sequence[float]], threshold: float) -> Figure:
    """Draw both error rates against the threshold.

    Parameters
    ----------
    curve : mapping
        ``threshold``, ``false_accept`` and ``false_reject`` (0..1).
    threshold : float
        The chosen threshold.
    """
    figure, (ax,) = new_figure(5.2, 3.4)
    for i, (name, what) in enumerate((("false_accept", "unknown accepted"), ("false_reject", "known rejected"))):
        ax.plot(curve["threshold"], [100 * share for share in curve[name]], color=COLOURS[5 * i], label=what)
    ax.axvline(threshold, color=COLOURS[2], linestyle="--", label="chosen")
    ax.set(xlabel="threshold", ylabel="queries, %", ylim=(0, 102))
    _legend_above(ax)
    return figure


def _legend_above(ax: Axes) -> None:
    ax.legend(frameon=False, fontsize=8.5, ncols=3, columnspacing=1, loc="lower center", bbox_to_anchor=(0.5, 1.0))


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


def _write_values(ax: Axes, values: NDArray[np.floating], dark: NDArray[np.bool_], form: str) -> None:
    """Write each value but NaN into its cell of a heat map."""
    for i, j in np.argwhere(~np.isnan(values)):
        color = "#fefefe" if dark[i, j] else "black"  # pages draw what is quite white in their own colour
        ax.text(j, i, format(values[i, j], form), ha="center", va="center", fontsize=8, color=color)


def _tint() -> ListedColormap:
    """Return a blue that lets the paper through where values are low, whatever the colour of the paper."""
    from matplotlib.colors import ListedColormap, to_rgb

    steps = np.linspace(0, 0.92, 256)
    return ListedColormap(np.column_stack([np.tile(to_rgb(COLOURS[0]), (256, 1)), steps]), "tint")
