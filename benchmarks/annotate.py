"""Images per second of `fewshot annotate` with one worker and with two, compared with the embedder alone.

The images are JPEG files of 320 x 240, crops of scikit-learn's two sample photographs, in a temporary folder. The
classifier uses the offline tf_efficientnet_lite0 at 224 px. Contestants take turns; figures are medians. Each
annotation runs the command in a separate process, so the time includes starting it, its workers or Ray, and loading the
network, which users wait for too. The embedder alone is already loaded and only embeds. Both it and the command without
workers use torch's default number of threads; several workers divide them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from arguments import Parser
from PIL import Image
from protocol import facts, write
from sklearn.datasets import load_sample_images

from fewshot import Embedder, FewShotImageClassifier

WIDTH, HEIGHT = 320, 240


def make_images(folder: Path, n: int, seed: int) -> list[str]:
    """Write images and return their paths."""
    rng, photos, paths = np.random.default_rng(seed), load_sample_images().images, []
    for i in range(n):
        photo = photos[i % len(photos)]
        top, left = (int(rng.integers(0, a - b)) for a, b in zip(photo.shape, (HEIGHT, WIDTH), strict=False))
        paths.append(str(folder / f"{i % len(photos)}_{i:05d}.jpg"))
        Image.fromarray(photo[top : top + HEIGHT, left : left + WIDTH]).save(paths[-1], quality=90)
    return paths


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row of figures per contestant."""
    with tempfile.TemporaryDirectory() as place:
        photos, model = Path(place) / "photos", Path(place) / "model"
        photos.mkdir()
        paths = make_images(photos, options.images, seed=0)
        embedder = Embedder(progress=False)
        FewShotImageClassifier(embedder, progress=False).fit(paths[:10], [i % 2 for i in range(10)]).save(model)
        runs: dict[str, Callable[[], object]] = {"embedder alone": lambda: embedder.transform(paths)}

        def annotating(executor: str, jobs: int) -> Callable[[], object]:
            out = str(Path(place) / "out.parquet")
            command = [sys.executable, "-m", "fewshot", "annotate", str(photos), "--model", str(model), "--out", out]
            how = ["--shard", str(options.shard), "--executor", executor, "--jobs", str(jobs)]
            return lambda: subprocess.run([*command, *how], check=True, capture_output=True)

        runs["annotate, serial"] = annotating("serial", 1)
        runs["annotate, 2 processes"] = annotating("joblib", 2)
        if find_spec("ray") is not None:
            runs |= {f"annotate, ray, {jobs} workers": annotating("ray", jobs) for jobs in (1, 2)}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        embedder.transform(paths[:8])  # load the network
        for _ in range(options.rounds):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    rates = {name: [options.images / s for s in took] for name, took in seconds.items()}
    return [
        {"what": name, "images a second": round(median(r), 2), "lowest": round(min(r), 2), "highest": round(max(r), 2)}
        for name, r in rates.items()
    ]


def table(rows: list[dict[str, Any]], n: int) -> str:
    """Return the figures as Markdown."""
    lines = [f"| {n} images of {WIDTH} x {HEIGHT}, tf_efficientnet_lite0 at 224 px | images a second |", "|---|---|"]
    lines += [f"| {r['what']} | {r['images a second']:.1f} ({r['lowest']:.1f} to {r['highest']:.1f}) |" for r in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("annotate.py", __doc__)
    parser.add_out("benchmarks/results/annotate")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--shard", type=int, default=100, metavar="N", help="images per shard (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    options = parser.parse_args()
    rows = measure(options)
    write(
        options.out,
        {**facts("annotate.py", 0, packages=("pyarrow", "joblib", "ray")), "images": options.images, "rows": rows},
        table(rows, options.images),
    )


if __name__ == "__main__":
    main()
