"""What the parameters ``temperature=None``, ``centered`` and ``balanced`` change in the learners that have them.

Accuracy, balanced over classes, and calibration error, without and with each parameter on the same draws, as in
``defaults.py``: all classes at once and 5-way, with 1 and 5 images a class, and with 1, 2, 3, 5, 10 or 20, drawn for
each class. Means over data on which nothing was chosen; intervals are Student's, over draws.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from arguments import Parser
from defaults import DRAWS, answer, draw, interval
from protocol import facts, write
from samples import REPORT, Sample, add_options, samples

from fewshot.classifiers.calibration import expected_calibration_error, reliability_bins
from fewshot.learners.registry import learner_class

RAW = {"metric": "sqeuclidean", "temperature": 1.0}
CENTERED, BALANCED = {"centered": True}, {"balanced": True}
#: Learner, its parameters without, and what is added.
ROWS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    *((name, {}, {"temperature": None}) for name in ("prototypical", "multi-prototypical", "soft-k-means")),
    ("simpleshot", {"normalization": "UN"}, {"temperature": None}),
    *((name, RAW, {"temperature": None}) for name in ("matching", "k-nearest")),
    *((name, {}, CENTERED) for name in ("cosine-prototypical", "matching", "k-nearest", "key-value-cache")),
    *((name, {}, BALANCED) for name in ("matching", "key-value-cache")),
    *((name, {}, CENTERED | BALANCED) for name in ("matching", "key-value-cache")),
)
#: 0 shots are uneven support.
SHOTS = (1, 5, 0)


def name_of(name: str, params: dict[str, Any], added: dict[str, Any]) -> str:
    """Return a learner and what is added, in words."""
    metric = " (raw distances)" if params else ""
    return f"{name}{metric}, {', '.join(f'{key}={value}' for key, value in added.items())}"


def measure(sample: Sample, way: int, shots: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per learner and parameter, on the same draws."""
    draws = [draw(sample, way, shots, options.seed, i) for i in range(max(2, DRAWS[way] // options.fewer))]
    found: dict[str, list[Any]] = {}

    def answers(name: str, params: dict[str, Any]) -> list[Any]:
        key = json.dumps([name, params])
        if key not in found:
            found[key] = [answer(learner_class(name)(**params).double().eval(), sample, one) for one in draws]
        return found[key]

    rows = []
    for name, params, added in ROWS:
        before, after = (answers(name, given) for given in (params, params | added))
        accuracy = [[one[0] for one in answered] for answered in (before, after)]
        errors = [
            expected_calibration_error(
                reliability_bins(*(np.concatenate([one[part] for one in answered]) for part in (1, 2)))
            )
            for answered in (before, after)
        ]
        rows.append(
            {
                "learner": name_of(name, params, added),
                "data": sample.name,
                "way": way,
                "shots": shots,
                "accuracy": [interval(values)[0] for values in accuracy],
                "change": interval(np.subtract(accuracy[1], accuracy[0]).tolist()),
                "calibration error": [round(100 * error, 2) for error in errors],
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the means over the data, in Markdown."""
    sizes = [(way, shots) for way in (5, 0) for shots in SHOTS]
    titles = [f"{f'{way}-way' if way else 'all classes'}, {shots or 'uneven'}" for way, shots in sizes]
    lines = []
    for what, digits in (("accuracy", 1), ("calibration error", 1)):
        lines += [f"| {what}, %, without → with | " + " | ".join(titles) + " |", "|---" * (len(sizes) + 1) + "|"]
        for name in dict.fromkeys(row["learner"] for row in rows):
            of = partial(_mean, [row for row in rows if row["learner"] == name], what)
            cells = [" → ".join(f"{value:.{digits}f}" for value in of(way, shots)) for way, shots in sizes]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def _mean(rows: Sequence[dict[str, Any]], what: str, way: int, shots: int) -> list[float]:
    found: list[float] = np.mean([row[what] for row in rows if (row["way"], row["shots"]) == (way, shots)], 0).tolist()
    return found


def main() -> None:
    """Measure, print and write the results."""
    parser = Parser("parameters.py", __doc__)
    add_options(parser, "parameters", text=False)
    options = parser.parse_args()
    options.fewer = 10 if options.quick else 1
    data = [sample for sample in samples(options, styles=()) if sample.role == REPORT]
    rows = [row for sample in data for way in DRAWS for shots in SHOTS for row in measure(sample, way, shots, options)]
    results = {**facts("parameters.py", options.seed), "backbone": options.backbone, "rows": rows}
    write(options.out, results, table(rows))


if __name__ == "__main__":
    main()
