"""Figures that compare methods: accuracy with intervals, by shots or ways, and over data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fewshot.report.figures import COLOURS, drawable, new_figure, require

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Dash patterns, for more lines than distinguishable colours.
DASHES = ("-", "--", ":", "-.")


def accuracy_dots(frame: pd.DataFrame) -> Figure:
    """Draw accuracy with its interval: one row per method, panel per setting and colour per group.

    Parameters
    ----------
    frame : DataFrame
        Columns ``setting``, ``method``, ``group``, ``accuracy`` (0..1) and ``ci95`` (NaN for none).

    Returns
    -------
    Figure
        Methods are sorted by their mean accuracy.
    """
    require(frame, ["setting", "method", "group", "accuracy", "ci95"])
    settings, groups = list(dict.fromkeys(frame["setting"])), list(dict.fromkeys(frame["group"]))
    methods = frame.groupby("method")["accuracy"].mean().sort_values().index.tolist()
    width = max(2.2, 7.6 / len(settings))
    figure, axes = new_figure(1.6 + width * len(settings), 1.1 + 0.3 * len(methods), len(settings))
    for ax, setting in zip(axes, settings, strict=True):
        for g, group in enumerate(groups):
            rows = frame[(frame["setting"] == setting) & (frame["group"] == group)]
            y = np.array([methods.index(m) for m in rows["method"]]) - 0.16 * (g - (len(groups) - 1) / 2)
            x, error = 100 * rows["accuracy"].to_numpy(), 100 * rows["ci95"].fillna(0).to_numpy()
            ax.errorbar(x, y, xerr=error, fmt="o", markersize=4, capsize=2, color=COLOURS[g % len(COLOURS)],
                        label=drawable(group, 40))  # fmt: skip
        ax.set_yticks(range(len(methods)), [drawable(m, 34) for m in methods] if ax is axes[0] else [])
        ax.set(xlabel="accuracy, %", ylim=(-0.6, len(methods) - 0.4))
        ax.set_title(drawable(setting, 40), fontsize=10)
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
    ax.imshow(share, cmap="Blues", vmin=-0.1, vmax=1.1, aspect="auto")
    ax.set_xticks(range(values.shape[1]), [drawable(c, 30).replace(", ", "\n") for c in frame.columns], fontsize=8)
    ax.set_yticks(range(values.shape[0]), [drawable(i, 48) for i in frame.index])
    ax.spines[:].set_visible(False)
    for i, j in np.ndindex(*values.shape):
        if not np.isnan(values[i, j]):
            ax.text(j, i, f"{values[i, j]:.1f}", ha="center", va="center", fontsize=8,
                    color="white" if share[i, j] > 0.6 else "black")  # fmt: skip
    return figure
