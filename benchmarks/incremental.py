"""The time to learn one more class, however many classes are known; and what a writer costs readers.

`PrototypicalClassifier`, and then the default `DiscriminantClassifier`, learn one row a class at once; for
prototypes the time is compared with numpy's sorted sum by class. Then they learn one more class after another from
five rows and answer one query of each, rename and remove it. Beside them scikit-learn's NearestCentroid, fitted
again, and a plain numpy array of prototypes that grows. Then four threads ask prototypes and one learns and
removes, each again after a pause; each answer must be right at the moment when it was asked. Python hands its lock
over every 5 ms unless told otherwise, so this is measured with that interval and with 0.1 ms. Each size has its own
process.

Up to 100,000 classes, centred prototypes, several prototypes, matching and k-nearest do the same as prototypes.

Then a classifier learns one class after another from the first on, and is compared with one that learned all at once:
their sums, and their answers to one query per class.

Last the default learner, which keeps its support, learns embeddings of 1280 numbers, up to 20,000: CPU time of one
thread, and how far the peak memory of the process rises above what it holds with the data. ``--bounds`` measures this
part alone.

Embeddings lie on a manifold of 32 dimensions with noise. One torch thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import Parser
from numpy.typing import NDArray
from protocol import facts, kibibytes, write
from sklearn.neighbors import NearestCentroid

from fewshot import (
    DiscriminantClassifier,
    KNearestClassifier,
    MatchingClassifier,
    MultiPrototypicalClassifier,
    PrototypicalClassifier,
)
from fewshot.classifiers.base import BaseFewShotClassifier

D, MANIFOLD, SHOTS = 256, 32, 5
#: Numbers of known classes; scikit-learn is fitted again up to the limit.
KNOWN, REFIT_LIMIT = (100, 1000, 10_000, 100_000, 1_000_000), 10_000
#: Other learners that change what they learn alone, and the most classes that they learn here.
OTHERS: dict[str, Callable[[], BaseFewShotClassifier]] = {
    "centred": lambda: PrototypicalClassifier("cosine", centered=True),
    "several": MultiPrototypicalClassifier,
    "matching": MatchingClassifier,
    "k-nearest": KNearestClassifier,
}
OTHERS_LIMIT = 100_000
#: Turns of learning, answering, removing and renaming; the first ones are not counted.
TURNS, WARM = 100, 10
#: Readers beside a writer, and the classes that they know.
READERS, LOADED = 4, 100_000
#: Seconds between two reads of a thread, and between two changes.
PAUSE = 0.01
#: Seconds after which Python's lock is handed over: by default, and for services.
INTERVALS = (0.005, 0.0001)
#: Embedding length, classes and shots of the default learner.
WIDE, SIZES = 1280, ((5, 5), (100, 5), (1000, 5), (100, 200))
#: Times of the default learner are the least of this many.
REPEATS = 3
#: A time is the median over this many classes.
WINDOW = 25


def make_data(
    n_classes: int, seed: int, d: int = D, shots: int = SHOTS
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return support (n_classes, shots, d) and one query per class."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(MANIFOLD, d)) / MANIFOLD**0.5
    centres = rng.normal(size=(n_classes, 1, MANIFOLD)) @ basis
    images = centres + 0.3 * rng.normal(size=(n_classes, shots + 1, MANIFOLD)) @ basis
    images = (images + 0.05 * rng.normal(size=images.shape)).astype(np.float32)
    return images[:, :shots], images[:, shots]


def grow(support: NDArray[np.float32], order: NDArray[np.int64]) -> tuple[PrototypicalClassifier, list[float]]:
    """Learn one class after another; return the classifier and the seconds per class."""
    model, took = PrototypicalClassifier("cosine", 0.05), []
    for label in order.tolist():
        start = time.perf_counter()
        model.partial_fit(support[label], [label] * SHOTS)
        took.append(time.perf_counter() - start)
    return model, took


def rows_of(n: int, seed: int) -> NDArray[np.float32]:
    """Return embeddings of `n` classes, one each, made a part at a time."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((MANIFOLD, D), np.float32) / np.float32(MANIFOLD**0.5)
    rows = np.empty((n, D), np.float32)
    for start in range(0, n, 65536):
        part = rows[start : start + 65536]
        part[:] = rng.standard_normal((len(part), MANIFOLD), np.float32) @ basis
        part += np.float32(0.05) * rng.standard_normal(part.shape, np.float32)
    return rows


def sorted_sums(rows: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the seconds that numpy takes to sum rows by class in float64."""
    start = time.perf_counter()
    order = np.argsort(labels, kind="stable")
    first = np.flatnonzero(np.diff(labels[order], prepend=-1))
    np.add.reduceat(rows[order], first, dtype=np.float64)
    return time.perf_counter() - start


def known(n: int, seed: int, load: float) -> dict[str, Any]:
    """Return what it takes to learn `n` classes, and one more; readers and a writer share it for `load` seconds."""
    rows, labels = rows_of(n, seed), np.random.default_rng(seed).permutation(n)
    sums = sorted_sums(rows, labels)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of fit alone
    before = kibibytes("VmRSS")
    start = time.perf_counter()
    model = PrototypicalClassifier().fit(rows, labels)
    fit, peak = time.perf_counter() - start, kibibytes("VmHWM") - before
    sums = min(sums, sorted_sums(rows, labels))
    start = time.perf_counter()
    right = int(model.predict(rows[:1])[0]) == int(labels[0])
    first = time.perf_counter() - start
    choice = model.model_.build()
    found: dict[str, Any] = {
        "classes": n,
        "fit, s": round(fit, 3),
        "numpy's sorted sums, s": round(sums, 3),
        "MiB of the rows": round(rows.nbytes / 2**20, 1),
        "MiB above at the peak of fit": round(peak / 1024, 1),
        "first answer, s": round(first, 3),
        "found by": choice.kind,
        "built after, s": choice.seconds,
        **turns(model, rows, seed),
        "MiB above with keys and index": round((kibibytes("VmRSS") - before) / 1024, 1),
    }
    queries, asked = rows[-1000:], labels[-1000:]
    found["right"] = float(np.mean([right, *(model.predict(queries) == asked)]))
    if n <= REFIT_LIMIT:
        found["NearestCentroid, ms"] = refitted(rows, labels)
    found["numpy, ms"] = grown(rows, labels)
    if load:
        found["load"] = [loaded(model, rows, labels, load, interval) for interval in INTERVALS]
    del model
    rows = np.abs(rows, out=rows)  # as after a ReLU
    start = time.perf_counter()
    default = DiscriminantClassifier().fit(rows, labels)
    found["default: fit, s"] = round(time.perf_counter() - start, 3)
    found["default: found by"] = default.model_.build().kind
    found |= {f"default: {name}": value for name, value in turns(default, rows, seed).items()}
    found["default: right"] = float(np.mean(default.predict(rows[-1000:]) == asked))
    return found


def others(n: int, seed: int) -> dict[str, Any]:
    """Return what it takes other learners to learn one more class than `n`."""
    rows, labels = rows_of(n, seed), np.random.default_rng(seed).permutation(n)
    found: dict[str, Any] = {"classes": n}
    for name, make in OTHERS.items():
        start = time.perf_counter()
        model = make().fit(rows, labels)
        found[f"{name}: fit, s"] = round(time.perf_counter() - start, 3)
        right = model.predict(rows[-1000:]) == labels[-1000:]
        found |= {f"{name}: {what}": value for what, value in turns(model, rows, seed).items()}
        found[f"{name}: right"] = float(np.mean(right))
    return found


def turns(model: BaseFewShotClassifier, rows: NDArray[np.float32], seed: int) -> dict[str, float]:
    """Return the median times to learn one class and answer one query, and to remove and rename a class, in ms."""
    rng, n, took = np.random.default_rng(seed + 1), len(rows), []
    for i in range(TURNS):
        x = rows[rng.integers(n)] + 0.3 * rng.standard_normal(D, np.float32)
        x = x + np.float32(0.05) * rng.standard_normal((SHOTS + 1, D), np.float32)
        times = [time.perf_counter()]
        for act in (
            lambda: model.partial_fit(x[:SHOTS], [n + i] * SHOTS),  # noqa: B023
            lambda: model.predict(x[SHOTS:]),  # noqa: B023
            lambda: model.rename_class(n + i, 2 * n + i),  # noqa: B023
            lambda: model.remove_class(2 * n + i),  # noqa: B023
        ):
            act()
            times.append(time.perf_counter())
        took.append(1000 * np.diff(times))
    learn, answer, rename, remove = np.median(took[WARM:], 0).round(3).tolist()
    return {
        "learn one, ms": learn,
        "answer, ms": answer,
        "learn and answer, ms": round(learn + answer, 3),
        "rename, ms": rename,
        "remove, ms": remove,
    }


def refitted(rows: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the milliseconds in which NearestCentroid is fitted with one more class and answers one query."""
    more = np.concatenate([rows, rows[:SHOTS] + 1])
    classes = np.concatenate([labels, np.full(SHOTS, len(labels))])
    warnings.simplefilter("ignore")  # of one row a class
    took = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        NearestCentroid().fit(more, classes).predict(more[-1:])
        took.append(time.perf_counter() - start)
    return round(1000 * float(np.median(took)), 3)


def grown(rows: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the milliseconds in which an array of prototypes gets one more and is compared with one query."""
    n, took = len(rows), []
    keys, names = np.empty((2 * n, D), np.float32), [*labels.tolist(), *[0] * n]
    keys[:n] = rows
    squares = np.einsum("ij,ij->i", keys[:n], keys[:n])
    squares = np.concatenate([squares, np.zeros(n, np.float32)])
    for i in range(n, n + min(n, 20)):
        start = time.perf_counter()
        keys[i] = rows[:SHOTS].mean(0)
        squares[i], names[i] = keys[i] @ keys[i], i
        names[int((squares[: i + 1] - 2 * (keys[: i + 1] @ keys[i])).argmin())]
        took.append(time.perf_counter() - start)
    return round(1000 * float(np.median(took)), 3)


def loaded(
    model: PrototypicalClassifier,
    rows: NDArray[np.float32],
    labels: NDArray[np.int64],
    seconds: float,
    interval: float,
) -> dict[str, Any]:
    """Return the times of readers beside a writer, and how many answers were wrong when they were asked."""
    stop, wrong, n = threading.Event(), [0], len(rows)
    news = rows[:64] + 5

    def read(took: list[float], until: Callable[[int], bool]) -> None:
        rng = np.random.default_rng(threading.get_ident())
        while not until(len(took)):
            i, now = int(rng.integers(n)), model.view()
            start = time.perf_counter()
            answer = now.predict(rows[i : i + 1])
            took.append(time.perf_counter() - start)
            if answer[0] != labels[i]:
                wrong[0] += 1
            new = [label for label in range(n, n + len(news)) if now.model_.known_among([label])]
            if new and now.predict(news[new[-1] - n : new[-1] - n + 1])[0] != new[-1]:
                wrong[0] += 1
            time.sleep(PAUSE)

    def write(count: list[int]) -> None:
        while not stop.is_set():
            for i in range(len(news)):
                model.partial_fit(news[i : i + 1], [n + i])
                time.sleep(PAUSE)
            for i in range(len(news)):
                model.remove_class(n + i)
                time.sleep(PAUSE)
            count[0] += 2 * len(news)

    alone: list[float] = []
    read(alone, lambda done: done >= 500)
    times: list[list[float]] = [[] for _ in range(READERS)]
    changes = [0]
    sys.setswitchinterval(interval)
    threads = [threading.Thread(target=read, args=(took, lambda _: stop.is_set())) for took in times]
    threads.append(threading.Thread(target=write, args=(changes,)))
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(INTERVALS[0])
    together = np.concatenate(times)
    return {
        "switch interval, ms": 1000 * interval,
        "seconds of load": seconds,
        "changes": changes[0],
        "reads": len(together),
        "wrong": wrong[0],
        "read alone, ms (p50)": round(1000 * float(np.median(alone)), 3),
        "read under load, ms (p50, p99)": (1000 * np.quantile(together, [0.5, 0.99])).round(3).tolist(),
    }


def measure(n_classes: int, seed: int) -> dict[str, Any]:
    """Return the figures."""
    support, queries = make_data(n_classes, seed)
    order = np.random.default_rng(seed).permutation(n_classes)  # new labels fall between known ones
    model, took = grow(support, order)
    at_once = PrototypicalClassifier("cosine", 0.05).fit(support.reshape(-1, D), np.arange(n_classes).repeat(SHOTS))
    sums, expected = (m.model_.statistics.sums["x"].numpy() for m in (model, at_once))
    scale = np.abs(support.astype(np.float64)).sum(1)
    counts = [n for n in (10, 100, 1000, 10_000, 100_000) if n <= n_classes]

    def at(seconds: list[float], n: int) -> float:
        return round(1000 * float(np.median(seconds[max(0, n - WINDOW) : n])), 3)

    return {
        "classes": n_classes,
        "one after another": [{"classes": n, "learn one, ms": at(took, n)} for n in counts],
        "all, s": round(sum(took), 1),
        "largest difference of sums, by the sum of absolute values": float((np.abs(sums - expected) / scale).max()),
        "same answers": float((model.predict(queries) == at_once.predict(queries)).mean()),
        "accuracy": float((model.predict(queries) == np.arange(n_classes)).mean()),
    }


def bounds(n_classes: int, shots: int, seed: int) -> dict[str, Any]:
    """Return time and memory of the default learner."""
    support, queries = make_data(n_classes, seed, WIDE, shots)
    X, y = support.reshape(-1, WIDE), np.arange(n_classes).repeat(shots)
    before = kibibytes("VmRSS")
    model = DiscriminantClassifier().fit(X, y)
    fit = _least(lambda: DiscriminantClassifier().fit(X, y))
    grow = _least(lambda: model.partial_fit(queries[:1], [0]))
    model.predict(queries[:1])
    return {
        "classes": n_classes,
        "shots": shots,
        "fit, s": fit,
        "partial_fit of one row, s": grow,
        "predict one, ms": round(1000 * _least(lambda: model.predict(queries[:1])), 3),
        "MiB of the rows": round(X.nbytes / 2**20, 1),
        "MiB above": round((kibibytes("VmHWM") - before) / 1024, 1),
        "accuracy": float((model.predict(queries) == np.arange(n_classes)).mean()),
    }


def _least(act: Callable[[], Any]) -> float:
    """Return the least CPU time of an act, in seconds."""
    took = []
    for _ in range(REPEATS):
        start = time.process_time()
        act()
        took.append(time.process_time() - start)
    return round(min(took), 5)


def apart(part: str, *sizes: float, seed: int) -> dict[str, Any]:
    """Measure one size in a process of its own."""
    command = [sys.executable, __file__, "--seed", str(seed), "--worker", part, *map(str, sizes)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps(found), flush=True)
    return found


def table_of_bounds(rows: list[dict[str, Any]]) -> str:
    """Return the bounds as Markdown."""
    titles = ("default learner, classes x shots", "fit, s", "partial_fit of one row, s", "predict one, ms", "MiB")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    lines += [
        f"| {r['classes']} x {r['shots']} | {r['fit, s']:.3f} | {r['partial_fit of one row, s']:.3f} "
        f"| {r['predict one, ms']:.2f} | {r['MiB above']:.0f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    own = ("learn one, ms", "answer, ms", "rename, ms", "remove, ms")
    titles = (*own, *(f"default: {name}" for name in own), "NearestCentroid, ms", "numpy, ms")
    lines = [
        f"| classes known | {' | '.join(titles)} | fit / sums | MiB: rows, peak of fit, with index | found by |",
        "|---" * (len(titles) + 4) + "|",
    ]
    for row in results["rows"]:
        shown = [f"{row[title]:.2f}" if title in row else "" for title in titles]
        sums = row["numpy's sorted sums, s"]
        ratio = f"{row['fit, s'] / sums:.1f}" if sums else ""
        memory = [
            row[f"MiB {what}"] for what in ("of the rows", "above at the peak of fit", "above with keys and index")
        ]
        lines.append(
            f"| {row['classes']} | {' | '.join(shown)} | {ratio} | {', '.join(f'{m:.0f}' for m in memory)} "
            f"| {row['found by']} |"
        )
    return "\n".join(lines) + "\n"


def table_of_others(rows: list[dict[str, Any]]) -> str:
    """Return what other learners take as Markdown: ms to learn a class, to answer, to rename and to remove."""
    own = ("learn one, ms", "answer, ms", "rename, ms", "remove, ms")
    lines = [f"| classes known | {' | '.join(f'{name}: ' + ', '.join(own) for name in OTHERS)} |"]
    lines.append("|---" * (len(OTHERS) + 1) + "|")
    for row in rows:
        shown = (", ".join(f"{row[f'{name}: {what}']:.2f}" for what in own) for name in OTHERS)
        lines.append(f"| {row['classes']} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("incremental.py", __doc__)
    parser.add_argument("--known", type=int, default=KNOWN[-1], metavar="N", help="most classes (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=10_000, metavar="N", help="one by one (default: %(default)s)")
    parser.add_argument("--load", type=float, default=60, metavar="S", help="seconds of load (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the embeddings (default: %(default)s)")
    parser.add_out("benchmarks/results/incremental")
    parser.add_argument("--bounds", action="store_true", help="the default learner alone, to NAME_bounds")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        part, *sizes = options.worker
        if part == "known":
            print(json.dumps(known(int(sizes[0]), options.seed, float(sizes[1]))))
        elif part == "others":
            print(json.dumps(others(int(sizes[0]), options.seed)))
        else:
            print(json.dumps(bounds(int(sizes[0]), int(sizes[1]), options.seed)))
        return
    if not options.bounds:
        most = min(LOADED, options.known)
        rows = [apart("known", n, options.load * (n == most), seed=options.seed) for n in KNOWN if n <= options.known]
        most = min(OTHERS_LIMIT, options.known)
        more = [apart("others", n, seed=options.seed) for n in KNOWN if n <= most]
        grow_all = measure(options.classes, options.seed)
        results = {**facts("incremental.py", options.seed), "rows": rows, "others": more, "one by one": grow_all}
        write(options.out, results, f"{table(results)}\n{table_of_others(more)}")
        print(grow_all)
    rows = [apart("bounds", *size, seed=options.seed) for size in SIZES if size[0] <= options.classes]
    write(f"{options.out}_bounds", {**facts("incremental.py", options.seed), "rows": rows}, table_of_bounds(rows))


if __name__ == "__main__":
    main()
