"""How far a calibrated classifier can be trusted: probabilities and unknown queries, measured on yet other classes.

Temperature and threshold are chosen on the validation classes of CIFAR-FS and measured on its test classes, with
``tf_efficientnet_lite0`` as it is and cosine prototypes, as `FewShotImageClassifier` has them by default. The interval
of the false accepts is that of a bootstrap over the test classes. The data come from ``data_prep/cifar_fs.py``.
"""

from __future__ import annotations

import argparse
from typing import Any

from protocol import facts, write

from fewshot import Embedder, LabeledImages, PrototypicalLearner
from fewshot.calibration.choice import Calibration, area_under_roc, expected_calibration_error, reliability
from fewshot.calibration.episodes import score_episodes
from fewshot.model.defaults import TEMPERATURE

BACKBONE = "tf_efficientnet_lite0"
FALSE_ACCEPTS = 0.05


def measure(val: Any, test: Any, n_shot: int, options: argparse.Namespace) -> dict[str, Any]:
    """Choose on validation classes, (embeddings, labels), and measure on test classes."""
    learner = PrototypicalLearner("cosine", temperature=TEMPERATURE).double()
    sizes = {"n_way": options.way, "n_shot": n_shot, "n_episodes": options.episodes, "seed": options.seed}
    chosen = Calibration.of(score_episodes(learner, *val, **sizes), FALSE_ACCEPTS)
    found = score_episodes(learner, *test, **sizes)
    errors = [expected_calibration_error(reliability(*found.confidence(t))) for t in (1.0, chosen.temperature)]
    rate, low, high = found.false_accepts(chosen.threshold)
    return {
        "shot": n_shot,
        "temperature": round(chosen.temperature, 4),
        "threshold": round(chosen.threshold, 4),
        "calibration error before": round(errors[0], 4),
        "calibration error after": round(errors[1], 4),
        "false accepts, %": [round(100 * share, 2) for share in (rate, low, high)],
        "false rejects, %": round(100 * float((found.known < chosen.threshold).mean()), 2),
        "AUROC": round(area_under_roc(found.known, found.unknown), 4),
    }


def table(rows: list[dict[str, Any]], way: int) -> str:
    """Return the results as Markdown."""
    lines = [
        f"| CIFAR-FS test classes, {way} known and {way} unknown | calibration error, before and after | "
        f"unknown accepted, {100 * FALSE_ACCEPTS:g} % asked for | known rejected | AUROC |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        rate, low, high = row["false accepts, %"]
        lines.append(
            f"| {row['shot']}-shot | {row['calibration error before']:.3f} → {row['calibration error after']:.3f} | "
            f"{rate:.1f} % ({low:.1f} to {high:.1f}) | {row['false rejects, %']:.1f} % | {row['AUROC']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = argparse.ArgumentParser(prog="open_world.py", description=__doc__)
    parser.add_argument("--data", default="data/cifar_fs", metavar="DIR", help="prepared data (default: %(default)s)")
    parser.add_argument("--out", default="benchmarks/results/open_world", metavar="NAME", help="NAME.json, NAME.md")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the images (default: the network's own)")
    parser.add_argument("--way", type=int, default=5, metavar="N", help="known classes (default: %(default)s)")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5], metavar="N", help="default: 1 5")
    parser.add_argument("--episodes", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the episodes (default: %(default)s)")
    options = parser.parse_args()
    embedder = Embedder(BACKBONE, img_size=options.size)
    val, test = (
        (embedder.transform(data), data.labels)
        for data in (LabeledImages.open(options.data, split) for split in ("val", "test"))
    )
    rows = [measure(val, test, n_shot, options) for n_shot in options.shots]
    seen = f"{embedder.preprocessing.height} px"
    results = {**facts("open_world.py", options.seed), "images": seen, "way": options.way, "rows": rows}
    write(options.out, results, table(rows, options.way))


if __name__ == "__main__":
    main()
