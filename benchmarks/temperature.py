"""Choose the temperature of cosine prototypes for a backbone that brings no learner, on validation classes alone.

For each image size: the accuracy of prototypes on 5-way episodes under both metrics, and the temperature of cosine
prototypes that makes the right answers likeliest (least mean negative log-likelihood over 1 and 5 shots). Test classes
are not used. The stored results were measured when this script was called ``defaults.py``.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from arguments import Parser, prepared
from numpy.typing import NDArray
from protocol import facts

from fewshot import CosinePrototypicalLearner, Embedder, EpisodeSampler, LabeledImages, PrototypicalLearner, evaluate
from fewshot.persistence.files import write_text

SHOTS = (1, 5)
TEMPERATURES = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2)


@torch.inference_mode()
def negative_log_likelihoods(
    embeddings: NDArray[np.float32], labels: NDArray[Any], n_shot: int, n_episodes: int, seed: int
) -> NDArray[np.float64]:
    """Return the mean negative log-likelihood of the true class at each of `TEMPERATURES`."""
    x, sampler = torch.from_numpy(embeddings), EpisodeSampler(labels, 5, n_shot, 15, seed=seed)
    learner, total = CosinePrototypicalLearner(temperature=1.0), np.zeros(len(TEMPERATURES))
    for i in range(n_episodes):
        episode = sampler[i]
        support, query = (torch.from_numpy(part) for part in (episode.support_labels, episode.query_labels))
        cosines = learner(x[episode.support], support, x[episode.query], 5)  # at temperature 1
        total += [float(torch.nn.functional.cross_entropy(cosines / t, query)) for t in TEMPERATURES]
    return total / n_episodes


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per image size."""
    data, rows = LabeledImages.open(options.data, "val"), []
    for size in options.size:
        embeddings = Embedder(options.backbone, img_size=size).transform(data)
        row: dict[str, Any] = {"pixels": size}
        for metric in ("cosine", "sqeuclidean"):
            for shot in SHOTS:
                result = evaluate(
                    PrototypicalLearner(metric),
                    embeddings,
                    data.labels,
                    n_shot=shot,
                    n_episodes=options.episodes,
                    seed=options.seed,
                )
                row[f"{metric}, {shot}-shot"] = [100 * result.mean, 100 * result.ci95]
        curves = [negative_log_likelihoods(embeddings, data.labels, s, options.episodes, options.seed) for s in SHOTS]
        row["temperature"] = TEMPERATURES[int(np.mean(curves, axis=0).argmin())]
        row["negative log-likelihood"] = {
            str(t): float(v) for t, v in zip(TEMPERATURES, np.mean(curves, 0), strict=True)
        }
        print(json.dumps({k: v for k, v in row.items() if k != "negative log-likelihood"}), flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print and write the results."""
    parser = Parser("temperature.py", __doc__)
    parser.add_argument(
        "data",
        metavar="DATA",
        type=prepared("folder PHOTOS", "val"),
        help="prepared data with a split 'val', see fewshot data",
    )
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--size", type=int, nargs="+", default=[32, 64, 96, 128, 160, 224], metavar="PX")
    parser.add_argument("--episodes", type=int, default=600, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="seed of the episodes (default: %(default)s)")
    parser.add_out("benchmarks/results/temperature.json")
    options = parser.parse_args()
    rows = measure(options)
    results = {**facts("temperature.py", options.seed), "backbone": options.backbone, "rows": rows}
    write_text(options.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
