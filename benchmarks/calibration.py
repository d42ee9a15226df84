"""What `calibrate` does to calibration error, by the number of held-out classes.

On draws of each data set, 40 % of the classes are known, at most 40, and others are held out, 20 images each: the
calibration error of the probabilities before and after, the change with its 95 % interval, and in how many draws
probabilities changed; of the default learner, which is nearly right after `fit`, and of cosine prototypes, which are
far too unsure. How `calibrate` judges was chosen on CIFAR-FS validation classes, Omniglot background and glyphs;
the other data only report.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from arguments import Parser
from open_world import Drawn, room, split_of
from protocol import facts, write
from samples import REPORT, Sample, add_options, samples

from fewshot import FewShotClassifier
from fewshot.classifiers.calibration import expected_calibration_error, reliability_bins
from fewshot.utils.text import signed

LEARNERS = ("discriminant", "cosine-prototypical")
SHOTS, DRAWS, HELD_OUT = (1, 5), 12, (2, 3, 4, 6, 16, 40)


def measure(learner: str, sample: Sample, shots: int, spare: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the calibration error before and after `calibrate`, and how often it changed."""
    known = split_of(sample)[0]
    errors = []
    for i in range(options.draws):
        drawn = Drawn(sample, shots, i, options.seed, known, spare)
        model, pair = FewShotClassifier(learner).fit(drawn.x, drawn.y), []
        for _ in range(2):
            proba = model.predict_proba(drawn.q)
            pair.append(expected_calibration_error(reliability_bins(proba.max(1), proba.argmax(1) == drawn.true)))
            if len(pair) == 1:
                model.calibrate(drawn.spare, drawn.spare_y, n_episodes=30)
        errors.append(pair)
    before, after = 100 * np.array(errors).T
    change = after - before
    cell = {
        "learner": learner, "data": sample.name, "role": sample.role, "shots": shots, "known": known, "spare": spare,
        "before": round(float(before.mean()), 2), "after": round(float(after.mean()), 2),
        "change": f"{signed(change.mean(), 2)} ± {1.96 * change.std(ddof=1) / len(change) ** 0.5:.2f}",
        "moved": f"{int((change != 0).sum())} of {len(change)}",
    }  # fmt: skip
    print(json.dumps(cell), flush=True)
    return cell


def main() -> None:
    """Run the benchmark."""
    parser = Parser("calibration.py", __doc__)
    add_options(parser, "calibration", text=False)
    options = parser.parse_args()
    options.draws = 2 if options.quick else DRAWS
    torch.set_num_threads(1)
    cells = []
    for sample in sorted(samples(options, styles=(), training=True), key=lambda sample: sample.role == REPORT):
        n = int(sample.y.max()) + 1 - split_of(sample)[0]
        for spare in [one for one in HELD_OUT if one < n]:
            few = [shots for shots in SHOTS if shots <= room(sample)]
            cells += [measure(learner, sample, shots, spare, options) for learner in LEARNERS for shots in few]
    cells.sort(key=lambda cell: LEARNERS.index(cell["learner"]))
    lines = [f"| {' | '.join(cells[0])} |", "|" + "---|" * len(cells[0])]
    lines += [f"| {' | '.join(map(str, cell.values()))} |" for cell in cells]
    results = {**facts("calibration.py", options.seed), "backbone": options.backbone, "cells": cells}
    write(options.out, results, "Calibration error in points.\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
