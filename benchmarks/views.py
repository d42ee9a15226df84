"""What more than one look at each image gains and costs: mirror images, small shifts, another scale.

Every row answers the same draws, so that its gain over one look is paired.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from pictures import accuracies, add_options, heading, pictures, summed, timed
from protocol import facts, write

from fewshot import Embedder

ROWS = (None, "mirror", "scales", "shifts", "mirror+scales")


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per data set and kind of views."""
    rows = []
    for name, role, images, y in pictures(options):
        base = None
        for views in ROWS:
            x, ms = timed(Embedder(options.backbone, img_size=options.size, views=views), images)
            found = accuracies(x, y, options.seed)
            base = found if base is None else base
            row = {"data": name, "role": role, "views": views, "ms": round(ms, 2)}
            rows.append(row | {"cells": summed(found, base)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown: the accuracy of one look, and the gain of others."""
    ms = {views: min(row["ms"] for row in rows if row["views"] == views) for views in ROWS}
    lines = heading("data", "role", "views", "time")
    for row in rows:
        start = f"| {row['data']} | {row['role']} | {row['views'] or 'one'} | x {ms[row['views']] / ms[None]:.1f} | "
        plain = row["views"] is None
        cells = (f"{c['accuracy']:.1f}" if plain else f"{c['gain']:+.1f} ± {c['gain ci95']:.1f}" for c in row["cells"])
        lines.append(start + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(prog="views.py", description=__doc__)
    add_options(parser)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the network's input (default: its own)")
    parser.add_argument("--out", default="benchmarks/results/views", metavar="NAME", help="NAME.json and NAME.md")
    options = parser.parse_args()
    rows = measure(options)
    write(options.out, {**facts("views.py", options.seed), "backbone": options.backbone, "rows": rows}, table(rows))


if __name__ == "__main__":
    main()
