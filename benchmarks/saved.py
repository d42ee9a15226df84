"""What a saved classifier costs: each command in a process of its own, and a model of up to a million classes on disk.

Commands: seconds of CPU and of the clock, beside importing torch and timm, which alternate; medians and quartiles. A
model of many prototypes, and one of the default learner, which keeps its rows: written whole, opened, the first answer,
which makes the keys, and one class after another learned and saved, each of five embeddings of 256 numbers; medians and
quartiles, the part of the time in which the disk is waited for, and the bytes of each save. Then a class is renamed in
the folder without the model. The folder's files are in the page cache when it is opened; otherwise the disk decides.
One thread.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from arguments import Parser
from numpy.typing import NDArray
from PIL import Image
from protocol import facts, write

from fewshot import FewShotModel, OwnEmbedder, digits
from fewshot.images.stored import StoredModel
from fewshot.persistence.artifact import size_of

D, SHOTS, SAVES, REPEATS = 256, 5, 100, 5
IMPORT = ("-c", "import torch, timm")


def as_they_are(items: Any) -> NDArray[np.float32]:
    """Return embeddings, which are the items."""
    return np.asarray(items, np.float32)


EMBEDDER = OwnEmbedder(as_they_are, "as they are")


def process(*arguments: str) -> tuple[float, float]:
    """Return the seconds of CPU and of the clock of a Python process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, end - start


def commands(rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Return a row for each command."""
    data, model = digits(), str(folder / "model")
    for i in range(30):
        place = folder / "images" / str(data.labels[i])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images[i]).save(place / f"{i}.png")
    image = str(next((folder / "images" / "3").iterdir()))
    process("-m", "fewshot", "fit", str(folder / "images"), "--out", model)
    run: dict[str, Callable[[int], tuple[str, ...]]] = {
        "predict of one image": lambda i: ("predict", model, image),
        "show": lambda i: ("show", model),
        "rename": lambda i: ("rename", model, *(("3", "three") if i % 2 == 0 else ("three", "3"))),
        "remove an image": lambda i: ("remove", model, "0", "--images", str(sorted(folder.glob("images/0/*"))[0])),
        "undo": lambda i: ("undo", model),
    }
    took: dict[str, list[tuple[float, float]]] = {"import torch, timm": [], **{name: [] for name in run}}
    for i in range(rounds):
        took["import torch, timm"].append(process(*IMPORT))
        for name, command in run.items():
            took[name].append(process("-m", "fewshot", *command(i)))
    usual = took["import torch, timm"]
    return [
        {
            "what": name,
            "cpu": quartiles([cpu for cpu, _ in found]),
            "seconds": quartiles([seconds for _, seconds in found]),
            "cpu, in imports": quartiles([cpu / other for (cpu, _), (other, _) in zip(found, usual, strict=True)]),
        }
        for name, found in took.items()
    ]


def large(learner: str, n_classes: int, folder: Path) -> dict[str, Any]:
    """Return the row of a model of this many classes."""
    rng = np.random.default_rng(0)
    labels = [f"class {i:07d}" for i in range(n_classes)]
    model = FewShotModel(EMBEDDER, learner, keep_support=False)
    model.fit(rng.standard_normal((n_classes, D), dtype=np.float32), labels)
    _, whole, _ = timed(lambda: model.save(folder))
    opened = [timed(lambda: FewShotModel.load(folder, embedder=EMBEDDER))[1:] for _ in range(3)]
    model = FewShotModel.load(folder, embedder=EMBEDDER)
    adds, saves, cpus, waits, sizes = [], [], [], [], []
    sync = os.fsync
    waited = [0.0]

    def counted(handle: Any) -> None:
        waited[0] += timed(partial(sync, handle))[1]

    with patch.object(os, "fsync", counted):
        for i in range(SAVES):
            x, there, waited[0] = rng.standard_normal((SHOTS, D), dtype=np.float32), names(folder), 0.0
            adds.append(timed(partial(model.partial_fit, x, [f"new {i}"] * SHOTS))[1])
            _, seconds, cpu = timed(partial(model.save, folder, note=f"add new {i}"))
            saves.append(seconds)
            cpus.append(cpu)
            waits.append(waited[0])
            sizes.append(sum(os.stat(folder / name).st_size for name in names(folder) - there | {"manifest.json"}))
    again = FewShotModel.load(folder, embedder=EMBEDDER)
    mine, theirs = (one.classifier_.model_.statistics for one in (model, again))
    x, others = (one.sums["x"] if one.sums else one.support["x"] for one in (mine, theirs))
    same = bool((x == others).all()) and model.classes_.tolist() == again.classes_.tolist()
    first = timed(lambda: again.predict(rng.standard_normal((1, D), dtype=np.float32)))[1]
    edits = [timed(partial(rename, folder, f"new {i}", f"newer {i}"))[1] for i in range(REPEATS)]
    return {
        "learner": learner, "classes": n_classes,
        "megabytes": round(size_of(folder) / 1e6, 1), "save whole, s": round(whole, 3),
        "open, s": quartiles([seconds for seconds, _ in opened]), "open, s of CPU": quartiles([c for _, c in opened]),
        "first answer, s": round(first, 3), "learn one class, ms": quartiles([1000 * s for s in adds]),
        "save it, ms": quartiles([1000 * s for s in saves]), "of that CPU, ms": quartiles([1000 * s for s in cpus]),
        "of that waiting for the disk, ms": quartiles([1000 * s for s in waits]),
        "kilobytes": quartiles([n / 1000 for n in sizes]), "the same bits": same,
        "rename without the model, ms": quartiles([1000 * s for s in edits]),
    }  # fmt: skip


def rename(folder: Path, old: str, new: str) -> None:
    """Rename a class in a folder."""
    StoredModel.open(folder).rename_class(old, new).save("rename")


def names(folder: Path) -> set[str]:
    """Return the names of the files of a folder."""
    return set(os.listdir(folder))


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the result, the seconds of the clock and those of CPU."""
    start, cpu = time.perf_counter(), time.process_time()
    return work(), time.perf_counter() - start, time.process_time() - cpu


def quartiles(values: list[float]) -> list[float]:
    """Return the first quartile, the median and the third quartile."""
    return [round(float(value), 3) for value in np.quantile(values, (0.25, 0.5, 0.75))]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return rows as Markdown, medians with quartiles."""

    def cell(value: Any) -> str:
        return f"{value[1]:.3g} ({value[0]:.3g} to {value[2]:.3g})" if isinstance(value, list) else str(value)

    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    return [*lines, *("| " + " | ".join(map(cell, row.values())) + " |" for row in rows)]


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("saved.py", __doc__)
    parser.add_out("benchmarks/results/saved")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: %(default)s")
    parser.add_argument("--classes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N")
    options = parser.parse_args()
    before = os.getloadavg()
    with tempfile.TemporaryDirectory(dir=Path(options.out).parent) as work:
        own = commands(options.rounds, Path(work))
        many = []
        for n_classes in options.classes:
            for learner in ("prototypical", "discriminant"):
                many.append(large(learner, n_classes, Path(work) / "many"))
                shutil.rmtree(Path(work) / "many")
    content = {**facts("saved.py", 0), "load average before": before, "commands": own, "models": many}
    write(options.out, content, "\n".join([*table(own), "", *table(many)]) + "\n")


if __name__ == "__main__":
    main()
