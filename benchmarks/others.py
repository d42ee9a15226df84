"""Answer frozen episodes with scikit-learn, and write a file of results as others would.

python benchmarks/others.py   # data/cifar_fs; about a minute
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from arguments import Parser
from numpy.typing import NDArray
from protocol import facts
from sklearn.neighbors import KNeighborsClassifier

from fewshot import Embedder, EpisodeSampler, LabeledImages, evaluate
from fewshot.benchmark.frozen import digest_episodes
from fewshot.persistence.files import write_text

#: The frozen episodes, the network that embeds, and the learners of the library to compare with.
FROZEN, DATASET = "benchmarks/results/methods_cifar_fs_episodes.json", "CIFAR-FS"
BACKBONE, SIZE = "tf_efficientnet_lite0", 96
LEARNERS = ("cosine-prototypical", "discriminant")


def nearest_neighbour(x: NDArray[np.float32], labels: NDArray[Any], queries: NDArray[np.float32]) -> NDArray[Any]:
    """Return the answers to queries; any function of support, labels and queries can be in its place."""
    return KNeighborsClassifier(1).fit(x, labels).predict(queries)


def rows_of(cell: dict[str, Any], x: NDArray[np.float32], y: NDArray[Any]) -> list[dict[str, Any]]:
    """Answer one set of frozen episodes; return rows for the file."""
    sizes, n = {name: cell["protocol"][name] for name in ("n_way", "n_shot", "n_query")}, cell["episodes"]
    sampler = EpisodeSampler(y, **sizes, seed=cell["protocol"]["seed"])
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    mine = [
        np.mean(nearest_neighbour(unit[e.support], e.support_labels, unit[e.query]) == e.query_labels)
        for e in sampler.between(0, n)
    ]
    found = {"nearest neighbour of unit vectors, scikit-learn": np.array(mine)}
    for name in LEARNERS:
        found[name] = evaluate(name, x, y, **sizes, n_episodes=n, seed=sampler.seed).accuracies
    common = {"dataset": DATASET, "split": "test", "backbone": BACKBONE, **sizes, "against": LEARNERS[0]}
    flags = {"external": True, "transductive": False, "supposes_balance": False}
    # The digest is that of the episodes that were answered, not a copy of what the frozen file says.
    digest = {"episodes": digest_episodes(sampler, n)}
    return [
        {"method": name, **common, **flags, **digest, "accuracies": np.round(values, 4).tolist()}
        for name, values in found.items()
    ]


def main() -> None:
    """Answer the episodes and write the file."""
    parser = Parser("others.py", __doc__)
    parser.add_data("cifar-fs", "data/cifar_fs", "test")
    parser.add_argument("--cache", metavar="DIR", help="folder of embeddings to share with other runs")
    parser.add_out("benchmarks/results/others.json")
    options = parser.parse_args()
    test = LabeledImages.open(options.data, "test")
    x = Embedder(BACKBONE, img_size=SIZE, cache=options.cache).transform(test)
    cells = json.loads(Path(FROZEN).read_text(encoding="utf-8"))["datasets"][DATASET]["cells"]
    rows = [row for cell in cells for row in rows_of(cell, x, test.labels)]
    head = json.dumps({"schema": "fewshot-results-1", **facts("others.py", 0)}, indent=1)
    lines = ",\n".join(json.dumps(row) for row in rows)  # a row a line, or each accuracy would be one
    write_text(options.out, f'{head[:-2]},\n "results": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
