"""How to show long images to the network: accuracy of each crop, and what each costs.

Long images are made from square ones: each is placed at a random position along a longer canvas of smoothed noise (or
in its middle, as a photographer would), and `parts` are drawn: long plates, whole, with a hole, or with a scratch near
one end. Each crop answers all classes at once, on the same draws. Those of the default were chosen on other parts and
on CIFAR-FS validation classes.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from typing import Any

import numpy as np
from arguments import Parser, named
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from protocol import facts

from fewshot import Embedder, FewShotClassifier, LabeledImages, digits
from fewshot.data.crop import Crop
from fewshot.persistence.files import write_text

CROPS: tuple[Crop, ...] = ("center", "pad", "squash", "tiles", "adaptive")
LEARNERS = ("cosine-prototypical", "discriminant")
HEIGHT = 240
#: Lowest and highest width of the canvas, and whether the object is anywhere along it or in the middle.
CANVASES = {
    "640 x 240": (640, 640, False),
    "240 to 720 x 240": (240, 720, False),
    "320 x 240": (320, 320, False),
    "320 x 240, centred": (320, 320, True),
}
WIDTHS = (640, 480)
SHOTS = (1, 5)
Noise = np.random.Generator


def background(rng: Noise, width: int) -> Image.Image:
    """Return smoothed noise."""
    noise = Image.fromarray(rng.integers(60, 196, (HEIGHT // 8, width // 8, 3), np.uint8))
    return noise.resize((width, HEIGHT), Image.Resampling.BICUBIC)


def lengthen(image: NDArray[np.uint8], low: int, high: int, centred: bool, rng: Noise) -> NDArray[np.uint8]:
    """Place a square image on a canvas of `low` to `high` pixels."""
    width = int(rng.integers(low, high + 1))
    canvas, square = background(rng, width), Image.fromarray(image).convert("RGB")
    left = (width - HEIGHT) // 2 if centred else int(rng.integers(0, width - HEIGHT + 1))
    canvas.paste(square.resize((HEIGHT, HEIGHT), Image.Resampling.BICUBIC), (left, 0))
    return np.array(canvas)


def part(kind: str, width: int, rng: Noise) -> NDArray[np.uint8]:
    """Draw a plate on a bench: whole, or with a hole or scratch within 90 pixels of an end."""
    image = background(rng, width).filter(ImageFilter.GaussianBlur(6))
    draw, grey = ImageDraw.Draw(image), int(rng.integers(150, 200))
    top, bottom = int(rng.integers(30, 50)), int(rng.integers(190, 210))
    draw.rounded_rectangle((12, top, width - 12, bottom), 14, fill=(grey, grey, grey + 8))
    x, y = int(rng.integers(45, 90)), int(rng.integers(top + 40, bottom - 40))
    x = x if rng.random() < 0.5 else width - 1 - x
    if kind == "hole":
        r = int(rng.integers(16, 26))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(25, 25, 28))
    if kind == "scratch":
        for _ in range(4):
            (a, b), (c, d) = rng.integers(-32, 33, (2, 2)).tolist()
            draw.line((x + a, y + b, x + c, y + d), fill=(250, 250, 250), width=5)
    noise = rng.normal(0, 6, (HEIGHT, width, 1))
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)


def sets(options: argparse.Namespace) -> dict[str, tuple[list[NDArray[np.uint8]], NDArray[Any]]]:
    """Return the sets of long images by name."""
    rng = np.random.default_rng(options.seed)
    kinds = np.repeat(["whole", "hole", "scratch"], options.images * 2)
    found = {f"parts, {width} x {HEIGHT}": ([part(kind, width, rng) for kind in kinds], kinds) for width in WIDTHS}
    sources = {"digits": digits()} | {f"{name.split('=')[0]}": _open(name.split("=")[1]) for name in options.data}
    for name, data in sources.items():
        keep = np.concatenate(
            [rng.permutation(np.flatnonzero(data.labels == label))[: options.images] for label in data.classes[:20]]
        )
        few = data.select(keep).decoded(64, progress=False)
        for canvas, (low, high, centred) in CANVASES.items():
            found[f"{name}, {canvas}"] = [lengthen(i, low, high, centred, rng) for i in few.images], few.labels
    return found


def _open(path: str) -> LabeledImages:
    folder, _, split = path.partition("@")
    return LabeledImages.open(folder, split or None)


def accuracies(x: NDArray[np.float32], y: NDArray[Any], shot: int, draws: int, learner: str) -> NDArray[np.float64]:
    """Return the accuracy of each draw of the support, all classes at once."""
    found = []
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        rows = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:shot] for c in np.unique(y)])
        rest = np.setdiff1d(np.arange(len(y)), rows)
        found.append(FewShotClassifier(learner).fit(x[rows], y[rows]).score(x[rest], y[rest]))
    return np.array(found)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per set, learner, shot and crop, with the paired difference from the middle crop."""
    rows = []
    for name, (images, labels) in sets(options).items():
        embedded = {}
        for crop in CROPS:
            start = time.perf_counter()
            embedder = Embedder(options.backbone, img_size=options.size, crop=crop, progress=False)
            embedded[crop] = embedder.transform(images), 1e3 * (time.perf_counter() - start) / len(images)
        for learner, shot in product(LEARNERS, SHOTS):
            middle = accuracies(embedded["center"][0], labels, shot, options.draws, learner)
            for crop, (x, ms) in embedded.items():
                found = accuracies(x, labels, shot, options.draws, learner)
                gain = 100 * (found - middle)
                row = {"images": name, "learner": learner, "shot": shot, "crop": crop, "accuracy": 100 * found.mean()}
                row |= {"gain": gain.mean(), "ci95": 1.96 * gain.std() / len(gain) ** 0.5, "ms": ms}
                rows.append({key: round(v, 2) if isinstance(v, float) else v for key, v in row.items()})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measure, print and write the results."""
    parser = Parser("crops.py", __doc__)
    parser.add_argument(
        "data", nargs="*", metavar="NAME=DATA", type=named(mark="@"), help="square images, of a split: NAME=DATA@SPLIT"
    )
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the network's input (default: its own)")
    parser.add_argument("--images", type=int, default=15, metavar="N", help="images of a class (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=50, metavar="N", help="draws of the support (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the long images (default: %(default)s)")
    parser.add_out("benchmarks/results/crops.json")
    options = parser.parse_args()
    rows = measure(options)
    results = {**facts("crops.py", options.seed), "backbone": options.backbone, "rows": rows}
    write_text(options.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
