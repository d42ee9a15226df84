"""What more than one look at each image gains and costs: mirror images, small shifts, another scale.

Every row answers the same draws, so that its gain over one look is paired.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from arguments import Parser
from pictures import accuracies, add_options, heading, milliseconds, pictures, summed
from protocol import facts, write

from fewshot import Embedder
from fewshot.data.views import VIEWS
from fewshot.utils.text import signed

ROWS = (None, "mirror", "scales", "shifts", "mirror+scales")


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per data set and kind of views."""
    rows, data = [], pictures(options)
    embedders = [Embedder(options.backbone, img_size=options.size, views=views, progress=False) for views in ROWS]
    took = milliseconds(embedders, data[0][2])
    for name, role, images, y in data:
        base = None
        for views, embedder, ms in zip(ROWS, embedders, took, strict=True):
            found = accuracies(embedder.transform(images), y, options.seed)
            base = found if base is None else base
            rows.append({"data": name, "role": role, "views": views, "ms": ms, "cells": summed(found, base)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def passes(views: str | None) -> int:
    """Return how often the network sees an image."""
    return math.prod(VIEWS[name] for name in (views or "").split("+") if name)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown: the accuracy of one look, and the gain of others."""
    lines = heading("data", "role", "views", "passes", "ms")
    for row in rows:
        start = [row["data"], row["role"], row["views"] or "one", f"{passes(row['views'])}", f"{row['ms']:.0f}"]
        plain = row["views"] is None
        cells = (
            f"{c['accuracy']:.1f}" if plain else f"{signed(c['gain'])} ± {c['gain ci95']:.1f}" for c in row["cells"]
        )
        lines.append(f"| {' | '.join([*start, *cells])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("views.py", __doc__)
    add_options(parser)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the network's input (default: its own)")
    parser.add_out("benchmarks/results/views")
    options = parser.parse_args()
    rows = measure(options)
    write(options.out, {**facts("views.py", options.seed), "backbone": options.backbone, "rows": rows}, table(rows))


if __name__ == "__main__":
    main()
