"""The ladder of backbones: accuracy against milliseconds an image on one thread, for each network and size.

By default those whose weights are in the extra `offline`. ``--backbones dinov2-small@224 clip-base`` measures others:
presets, whose weights come from the hub, or with ``--pretrained`` any timm name; ``@PX`` is the side of the images.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from arguments import Parser
from pictures import CELLS, Accuracies, accuracies, add_options, milliseconds, pictures, summed
from protocol import facts, write

from fewshot import Embedder
from fewshot.errors import DownloadError

RUNGS = tuple(
    f"tf_efficientnet_lite{i}@{size}"
    for i, sizes in enumerate(((96, 128, 160, 224), (128, 160, 240), (128, 160, 260)))
    for size in sizes
)
#: The rung that others are compared with: the default backbone.
BASE = "tf_efficientnet_lite0@224"


def embedder_of(rung: str, options: argparse.Namespace) -> Embedder:
    """Return the embedder of NAME or NAME@PX."""
    found = re.fullmatch(r"(.+)@(\d+)", rung)
    name, size = (found[1], int(found[2])) if found else (rung, None)
    return Embedder(name, img_size=size, pretrained=options.pretrained, weights=options.weights, progress=False)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per rung."""
    data, base, rows = pictures(options), {}, []
    embedders = [embedder_of(rung, options) for rung in options.backbones]
    took = milliseconds(embedders, data[0][2])
    for rung, embedder, ms in zip(options.backbones, embedders, took, strict=True):
        cells = {}
        for name, _, images, y in data:
            x = embedder.transform(images)
            cells[name] = accuracies(x, y, options.seed)
        if rung == BASE:
            base = cells
        numbers = sum(parameter.numel() for parameter in embedder.network.parameters())
        row = {"backbone": rung.partition("@")[0], "px": embedder.preprocessing.height, "ms": ms}
        row |= {"million parameters": round(numbers / 1e6, 1), "numbers": x.shape[1], "found": cells}
        rows.append(row)
        print(json.dumps({key: value for key, value in row.items() if key != "found"}), flush=True)
    return [row | {"found": _with_gains(row["found"], base)} for row in rows]


def _with_gains(found: dict[str, Accuracies], base: dict[str, Accuracies]) -> dict[str, list[dict[str, Any]]]:
    return {name: summed(values, base.get(name)) for name, values in found.items()}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return accuracy in % by network and data set, at 1 and 5 shots: 5-way, then all classes at once."""
    names = list(rows[0]["found"])
    lines: list[str] = []
    for way in dict.fromkeys(way for way, _ in CELLS):
        title = f"{way}-way 1 / 5 shots" if way else "all classes 1 / 5 shots"
        head = ["backbone", "px", "ms", f"mean, {title}", *names]
        lines += ["", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        for row in rows:
            found = [[c["accuracy"] for c in row["found"][name] if c["way"] == way] for name in names]
            cells = " | ".join(_pair(one) for one in [np.mean(found, axis=0), *found])
            lines.append(f"| {row['backbone']} | {row['px']} | {row['ms']:.0f} | {cells} |")
    return "\n".join(lines[1:]) + "\n"


def _pair(values: Any) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("ladder.py", __doc__)
    add_options(parser)
    parser.add_argument("--backbones", nargs="+", default=RUNGS, metavar="NAME[@PX]", help="networks, and their sizes")
    parser.add_argument("--pretrained", action="store_true", help="download the weights of timm names from the hub")
    parser.add_argument("--weights", metavar="FILE", help="weights of the one network: a local file, or 'random'")
    parser.add_out("benchmarks/results/ladder")
    options = parser.parse_args()
    try:
        rows = measure(options)
    except DownloadError as error:
        raise SystemExit(f"ladder.py: error: {error}") from None
    write(options.out, {**facts("ladder.py", options.seed), "rows": rows}, table(rows))


if __name__ == "__main__":
    main()
