"""Microseconds of an episode with every method, beside what the machine allows; and answers beside easyfsl's.

Episodes are 5-way 1-shot with 15 queries per class. Embeddings have 640 numbers and lie around 64 class centres. They
are cut off at 0, like those of networks that end in a ReLU, and scaled to the sum 1: easyfsl's PT-MAP, which does not
scale them after its power transform, gives NaN otherwise. A whole episode means drawing it, gathering its embeddings
and answering: `evaluate` here, easyfsl's sampler, data set and loader there. Answering alone starts from the embeddings
of one episode at a time there, and of as many as `evaluate` batches here.

Arithmetic is what the matrix products of an answer take at the speed of a large product on this core; bytes, what
reading the embeddings of the episode once takes at the speed of reading a large array. No program can be faster than
the larger of the two, but for what stays in a cache; sums, roots and comparisons come on top.

With ``--data`` accuracies are those of a pretrained network's embeddings of the test classes, on the same episodes for
both packages. One torch thread; contestants take turns; figures are medians. The extra ``peers`` installs easyfsl.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np
import torch
from arguments import Parser, prepared
from numpy.typing import NDArray
from protocol import facts, restore_sampler_init, write
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from fewshot import Embedder, EpisodeSampler, LabeledImages, Learner, evaluate, list_learners
from fewshot.data.digest import digest_images
from fewshot.episodes.evaluate import BATCH_ELEMENTS
from fewshot.errors import pip_install
from fewshot.learners.registry import learner_class
from fewshot.utils.text import signed

D, N_CLASSES, N_IMAGES, SPREAD = 640, 64, 100, 3.0
N_WAY, N_SHOT, N_QUERY = 5, 1, 15
#: Episodes per call when answering alone, as in `evaluate`.
BATCH = BATCH_ELEMENTS // (N_WAY * (N_SHOT + N_QUERY) * D)
#: The network of real embeddings, and the side to which it sees images scaled.
BACKBONE, SIZE = "tf_efficientnet_lite0", 96
#: Rows and columns of the product, and numbers of the array, that measure the machine; and how often.
LARGE_PRODUCT, LARGE_ARRAY, TIMES = 1536, 2**26, 9
#: Target duration of a round in milliseconds.
LONGEST = 6000
#: Episodes of easyfsl per round, for methods that take most of a second per episode.
FEW = {"pt-map": 3}
#: easyfsl's class for each method, and our parameters that make both the same up to a monotone map; but for
#: LaplacianShot, where easyfsl counts a query among its own neighbours.
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "prototypical": ("PrototypicalNetworks", {}),
    "simpleshot": ("SimpleShot", {"normalization": "UN", "metric": "cosine"}),
    "bd-cspn": ("BDCSPN", {"shift": "prototypes", "sharpness": 1.0, "normalization": "UN"}),
    "laplacian-shot": ("LaplacianShot", {"shift": "prototypes", "sharpness": 1.0}),
    "pt-map": ("PTMAP", {"prior": "uniform", "regularization": 10}),
}


def make_data(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return embeddings and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(N_CLASSES).repeat(N_IMAGES)
    centres = rng.normal(size=(N_CLASSES, D))
    X = np.maximum(centres[labels] + SPREAD * rng.normal(size=(len(labels), D)), 0)
    return (X / X.sum(1, keepdims=True)).astype(np.float32), labels


def real_data(folder: str) -> tuple[NDArray[np.float32], NDArray[np.int64], str]:
    """Return embeddings and labels of the test classes of prepared data, scaled to the sum 1, and its digest."""
    test = LabeledImages.open(folder, "test")
    X = Embedder(BACKBONE, img_size=SIZE, device="cpu").transform(test.images)
    return np.asarray(X / X.sum(1, keepdims=True), np.float32), test.labels, digest_images(test)


def limits() -> dict[str, float]:
    """Return the floating-point operations and the bytes read that one core manages in a microsecond."""
    a, x = torch.rand(LARGE_PRODUCT, LARGE_PRODUCT), torch.rand(LARGE_ARRAY)
    product, reading = (
        1000 * min(milliseconds(run, 1) for _ in range(TIMES)) for run in (lambda: a @ a, lambda: x.sum())
    )
    return {"operations per us": 2 * LARGE_PRODUCT**3 / product, "bytes per us": x.nbytes / reading}


class Ours:
    """A method of this package."""

    def __init__(self, name: str, X: NDArray[np.float32], y: NDArray[np.int64]) -> None:
        params: dict[str, Any] = PEERS[name][1] if name in PEERS else {}
        self.learner: Learner = learner_class(name)(**params).sized(D).eval()
        self.X, self.y = X, y
        self.whole_episodes = partial(evaluate, self.learner, X, y, n_way=N_WAY, n_shot=N_SHOT, n_query=N_QUERY)
        episodes = [EpisodeSampler(y, N_WAY, N_SHOT, N_QUERY)[i] for i in range(BATCH)]
        parts = ([getattr(e, part) for e in episodes] for part in ("support", "support_labels", "query"))
        support, self.labels, query = (torch.from_numpy(np.stack(part)) for part in parts)
        x = torch.from_numpy(X)
        self.support, self.query = x[support], x[query]

    def whole(self, n: int) -> float:
        """Return the milliseconds per whole episode."""
        return milliseconds(lambda: self.whole_episodes(n_episodes=n), n)

    @torch.inference_mode()
    def answering(self, n: int) -> float:
        """Return the milliseconds per episode of answering alone."""
        rounds = max(1, n // BATCH)
        return milliseconds(
            lambda: [self.learner(self.support, self.labels, self.query, N_WAY) for _ in range(rounds)], rounds * BATCH
        )

    def accuracy(self, n: int) -> NDArray[np.float64]:
        """Return the accuracy of each of the first episodes."""
        return self.whole_episodes(n_episodes=n).accuracies

    def bound(self, limits: dict[str, float]) -> dict[str, float]:
        """Return the microseconds of the products of an episode, and of reading its embeddings."""
        support, query = (part[:1].clone().requires_grad_() for part in (self.support, self.query))
        with FlopCounterMode(display=False) as counter, torch.enable_grad():  # all products are then torch's
            self.learner(support, self.labels[:1], query, N_WAY)
        return {
            "us arithmetic": counter.get_total_flops() / limits["operations per us"],
            "us bytes": (support.nbytes + query.nbytes) / limits["bytes per us"],
        }


class EasyFsl:
    """A method of easyfsl."""

    def __init__(self, name: str, X: NDArray[np.float32], y: NDArray[np.int64]) -> None:
        import easyfsl.methods
        from easyfsl.datasets import FeaturesDataset
        from easyfsl.samplers import TaskSampler

        restore_sampler_init()
        self.model = getattr(easyfsl.methods, PEERS[name][0])().eval()
        self.few = FEW.get(name)
        self.x, self.y = torch.from_numpy(X), y
        self.data = FeaturesDataset(y.tolist(), self.x, [str(label) for label in np.unique(y)])
        self.sampler = partial(TaskSampler, self.data, N_WAY, N_SHOT, N_QUERY)

    @torch.no_grad()
    def whole(self, n: int) -> float:
        """Return the milliseconds per whole episode."""
        n = self.few or n
        random.seed(0)
        sampler = self.sampler(n)

        def run() -> None:
            loader = DataLoader(self.data, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)
            for support, labels, queries, _, _ in loader:
                self.answer(support, labels, queries)

        return milliseconds(run, n)

    @torch.no_grad()
    def answering(self, n: int) -> float:
        """Return the milliseconds per episode of answering alone."""
        n = self.few or n
        tasks = [self._task(i) for i in range(n)]
        return milliseconds(lambda: [self.answer(*task[:3]) for task in tasks], n)

    @torch.no_grad()
    def accuracy(self, n: int) -> NDArray[np.float64]:
        """Return the accuracy of each of the first episodes."""
        right = []
        for i in range(n):
            *task, expected = self._task(i)
            right.append((self.answer(*task).argmax(1).numpy() == expected).mean())
        return np.array(right)

    def answer(self, support: torch.Tensor, labels: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """Answer one episode."""
        self.model.process_support_set(support, labels)
        return self.model(queries)

    def _task(self, i: int) -> tuple[Any, ...]:
        episode = EpisodeSampler(self.y, N_WAY, N_SHOT, N_QUERY)[i]
        support_labels = torch.from_numpy(episode.support_labels)
        return self.x[episode.support], support_labels, self.x[episode.query], episode.query_labels


def milliseconds(run: Callable[[], Any], n: int) -> float:
    """Return the milliseconds of a run, divided by `n`."""
    began = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - began) / n


def measure(
    name: str, contestants: list[Any], machine: dict[str, float], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the times of a method; contestants take turns, ours first."""
    times: list[dict[str, list[float]]] = [{"whole": [], "answering": []} for _ in contestants]
    for contestant in contestants:  # warm up
        contestant.whole(2)
    # The first two episodes are slower than later ones; a round of the slowest method still takes seconds.
    episodes = min(options.episodes, max(BATCH, int(LONGEST / contestants[0].whole(2))))
    for _ in range(options.rounds):
        for found, contestant in zip(times, contestants, strict=True):
            for what, values in found.items():
                values.append(1000 * getattr(contestant, what)(episodes if contestant is contestants[0] else 50))
    kind = learner_class(name)
    row: dict[str, Any] = {"learner": name, "transductive": kind.transductive, "trained": not kind.learned}
    for who, found in zip(("fewshot", "easyfsl"), times, strict=False):
        row |= {f"{who}, us {what}": round(median(values), 1) for what, values in found.items()}
    bound = contestants[0].bound(machine)
    row |= {what: round(value, 1) for what, value in bound.items()}
    row["times the bound"] = round(median(times[0]["answering"]) / max(bound.values()), 2)
    return row


def compare(name: str, X: NDArray[np.float32], y: NDArray[np.int64], n: int) -> dict[str, Any]:
    """Return the accuracies of both packages on the same episodes, and the mean paired difference, in %."""
    n = max(n // 20, 2) if name in FEW else n
    ours, theirs = (100 * kind(name, X, y).accuracy(n) for kind in (Ours, EasyFsl))
    change = ours - theirs
    return {
        "episodes of accuracy": n,
        "fewshot, accuracy %": round(float(ours.mean()), 3),
        "easyfsl, accuracy %": round(float(theirs.mean()), 3),
        "difference": round(float(change.mean()), 3),
        "difference, ci95": round(float(1.96 * change.std(ddof=1) / np.sqrt(n)), 3),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "| 5-way 1-shot, 15 queries a class, 640 numbers | answering, µs | arithmetic | bytes | times the larger "
        "| whole episode, µs | easyfsl: answering | whole | accuracy, % | easyfsl | difference |",
        "|" + "---|" * 11,
    ]
    names = ("fewshot, us answering", "us arithmetic", "us bytes", "times the bound", "fewshot, us whole")
    for row in rows:
        cells = [row["learner"] + (" †" if row["transductive"] else "") + ("" if row["trained"] else " (untrained)")]
        for name in (*names, "easyfsl, us answering", "easyfsl, us whole"):
            value = row.get(name)
            cells.append("" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}")
        if "difference" in row:
            cells += [f"{row[f'{who}, accuracy %']:.2f}" for who in ("fewshot", "easyfsl")]
            cells.append(f"{signed(row['difference'], 2)} ± {row['difference, ci95']:.2f}")
        else:
            cells += ["", "", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "† transductive"]) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("methods.py", __doc__)
    parser.add_out("benchmarks/results/methods")
    parser.add_argument("--episodes", type=int, default=600, metavar="N", help="per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--accuracy", type=int, default=1000, metavar="N", help="episodes of accuracies")
    parser.add_argument(
        "--data",
        type=prepared("cifar-fs", "test"),
        metavar="DIR",
        help="prepared data, such as data/cifar_fs, whose accuracies to tell",
    )
    parser.add_argument("--methods", nargs="+", default=list_learners(), metavar="NAME", help="default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.peers = find_spec("easyfsl") is not None
    if not options.peers:
        print(f"easyfsl is not installed and is left out; run: {pip_install('peers')}", file=sys.stderr)
    X, y = make_data(0)
    real, labels, digest = real_data(options.data) if options.data else (X, y, None)
    machine, rows = limits(), []
    for name in options.methods:
        has_peer = name in PEERS and options.peers
        contestants = [Ours(name, X, y), *([EasyFsl(name, X, y)] if has_peer else [])]
        rows.append(measure(name, contestants, machine, options))
        rows[-1] |= compare(name, real, labels, options.accuracy) if has_peer else {}
        print(rows[-1], file=sys.stderr, flush=True)
    told = {"torch threads": 1, "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", ""), "machine": machine}
    told |= {"accuracy on": f"{BACKBONE} at {SIZE} px" if options.data else "synthetic embeddings", "data": digest}
    write(options.out, {**facts("methods.py", 0), **told, "rows": rows}, table(rows))


if __name__ == "__main__":
    main()
