"""How far to trust a calibrated classifier: probabilities and unknown queries, measured on classes not calibrated on.

Temperature and threshold are chosen on some classes and measured on others, with a frozen ``tf_efficientnet_lite0`` and
cosine prototypes, the defaults of `FewShotImageClassifier`. They are chosen once on the validation classes, and once on
the training and validation classes, none of which the network was trained on. The expected false accepts are those that
the calibration promises for other classes; the interval of the measured ones is a bootstrap over the test classes. Test
classes may be easier or harder than the others. To separate that from the method, temperature and threshold are also
chosen on random halves of the training and validation classes and measured on the other halves.
``data_prep/cifar_fs.py`` or ``data_prep/omniglot.py`` prepares the data.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from protocol import facts, write

from fewshot import CosinePrototypicalLearner, Embedder, LabeledImages
from fewshot.classifiers.calibration import (
    Calibration,
    area_under_roc,
    expected_calibration_error,
    reliability,
    score_episodes,
)
from fewshot.utils.streams import SPLIT, episode_rng

BACKBONE = "tf_efficientnet_lite0"
FALSE_ACCEPTS = 0.05
#: Images used of each training class.
N_TRAIN = 100
#: Embeddings and labels.
Data = tuple[NDArray[np.floating], NDArray[Any]]


def measure(chosen_on: Data, test: Data, n_shot: int, options: argparse.Namespace) -> dict[str, Any]:
    """Calibrate on some classes and measure on others."""
    learner = CosinePrototypicalLearner().double()
    sizes = {"n_way": options.way, "n_shot": n_shot, "n_episodes": options.episodes, "seed": options.seed}
    chosen = Calibration.of(score_episodes(learner, *chosen_on, **sizes), FALSE_ACCEPTS)
    found = score_episodes(learner, *test, **sizes)
    errors = [expected_calibration_error(reliability(*found.confidence(t))) for t in (1.0, chosen.temperature)]
    rate, low, high = found.false_accepts(chosen.threshold)
    return {
        "shot": n_shot,
        "classes chosen on": len(np.unique(chosen_on[1])),
        "temperature": round(chosen.temperature, 4),
        "threshold": round(chosen.threshold, 4),
        "calibration error before": round(errors[0], 4),
        "calibration error after": round(errors[1], 4),
        "expected false accepts, %": [round(100 * share, 2) for share in chosen.false_accept_interval],
        "false accepts, %": [round(100 * share, 2) for share in (rate, low, high)],
        "false rejects, %": round(100 * float((found.known < chosen.threshold).mean()), 2),
        "AUROC": round(area_under_roc(found.known, found.unknown), 4),
    }


def halve(data: Data, n_shot: int, options: argparse.Namespace) -> dict[str, Any]:
    """Calibrate on random halves of the classes and measure on the other halves."""
    X, y = data
    classes = np.unique(y)
    found = []
    for i in range(options.halves):
        first = np.isin(y, episode_rng(options.seed, i, SPLIT).permutation(classes)[: len(classes) // 2])
        found.append(measure((X[first], y[first]), (X[~first], y[~first]), n_shot, options))
    rates = [row["false accepts, %"][0] for row in found]
    expected = [row["expected false accepts, %"] for row in found]
    held = sum(low <= rate <= high for rate, (low, high) in zip(rates, expected, strict=True))
    error = {when: [row[f"calibration error {when}"] for row in found] for when in ("before", "after")}
    return {
        "shot": n_shot,
        "classes chosen on": len(classes) // 2,
        "halves": len(found),
        "calibration error before, median": round(float(np.median(error["before"])), 4),
        "calibration error after, median": round(float(np.median(error["after"])), 4),
        "calibration error fell": sum(after < before for before, after in zip(*error.values(), strict=True)),
        "false accepts, %: median, least, most": [round(float(np.median(rates)), 2), min(rates), max(rates)],
        "rate within the expected interval": held,
    }


def table(rows: list[dict[str, Any]], halves: list[dict[str, Any]], way: int, name: str) -> str:
    """Return the results as Markdown."""
    lines = [
        f"| {name}, test classes, {way} known and {way} unknown | chosen on | calibration error, before and after | "
        f"unknown accepted, {100 * FALSE_ACCEPTS:g} % asked for | expected | known rejected | AUROC |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate, low, high = row["false accepts, %"]
        before, after = row["calibration error before"], row["calibration error after"]
        expected = " to ".join(f"{share:.1f}" for share in row["expected false accepts, %"])
        lines.append(
            f"| {row['shot']}-shot | {row['classes chosen on']} classes | {before:.3f} → {after:.3f} | "
            f"{rate:.1f} % ({low:.1f} to {high:.1f}) | {expected} % | {row['false rejects, %']:.1f} % | "
            f"{row['AUROC']:.3f} |"
        )
    lines += [
        "",
        f"| {name}, halves of the training and validation classes | chosen on | calibration error, median before and "
        "after | fell | unknown accepted, median (range) | within what was expected |",
        "|---|---|---|---|---|---|",
    ]
    for row in halves:
        rate, low, high = row["false accepts, %: median, least, most"]
        before, after = (row[f"calibration error {when}, median"] for when in ("before", "after"))
        lines.append(
            f"| {row['shot']}-shot | {row['classes chosen on']} classes | {before:.3f} → {after:.3f} | "
            f"{row['calibration error fell']} of {row['halves']} | {rate:.1f} % ({low:.1f} to {high:.1f}) | "
            f"{row['rate within the expected interval']} of {row['halves']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(prog="open_world.py", description=__doc__)
    parser.add_argument("--data", default="data/cifar_fs", metavar="DIR", help="prepared data (default: %(default)s)")
    parser.add_argument("--out", default="benchmarks/results/open_world", metavar="NAME", help="NAME.json, NAME.md")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the images (default: the native size)")
    parser.add_argument("--way", type=int, default=5, metavar="N", help="known classes (default: %(default)s)")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5], metavar="N", help="default: 1 5")
    parser.add_argument("--episodes", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--halves", type=int, default=20, metavar="N", help="random halves (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the episodes (default: %(default)s)")
    options = parser.parse_args()
    embedder = Embedder(BACKBONE, img_size=options.size)
    train, val, test = (LabeledImages.open(options.data, split) for split in ("train", "val", "test"))
    some = np.concatenate([np.flatnonzero(train.labels == label)[:N_TRAIN] for label in np.unique(train.labels)])
    train_x, val_x, test_x = (embedder.transform(data) for data in (train.select(some), val, test))
    both = np.concatenate([train_x, val_x]), np.concatenate([train.labels[some], val.labels])
    rows = [
        measure(chosen_on, (test_x, test.labels), n_shot, options)
        for n_shot in options.shots
        for chosen_on in ((val_x, val.labels), both)
    ]
    halves = [halve(both, n_shot, options) for n_shot in options.shots]
    seen = f"{embedder.preprocessing.height} px"
    data = {"data": Path(options.data).name, "test classes": len(test.classes)}
    results = {**facts("open_world.py", options.seed), **data, "images": seen, "way": options.way, "rows": rows}
    results["halves"] = halves
    write(options.out, results, table(rows, halves, options.way, Path(options.data).name))


if __name__ == "__main__":
    main()
