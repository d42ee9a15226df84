"""Small objects in large scenes: embeddings of whole images, means by salience, and learners of local descriptors.

An image of a data set is pasted at 1/16 of the area, at a random place, into a scene: a random part of a photograph of
gravel (for choosing) or of grass (for reporting) from scikit-image. Images that fill the scene show what each row costs
where objects are large. Every row answers the same episodes, so that its gain over the default learner on embeddings of
whole images is paired.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import skimage.data
import torch
from arguments import Parser
from numpy.typing import NDArray
from pictures import add_options, pictures
from PIL import Image
from protocol import facts, write
from samples import CHOOSE

from fewshot import DN4Learner, Embedder, Learner, MutualNearestLearner, evaluate
from fewshot.embedding.maps import salient_mean
from fewshot.episodes.evaluate import EvalResult
from fewshot.learners.local import LocalLearner
from fewshot.utils.text import signed

#: The side of the object is the scene's divided by these; parts of the photograph are this large, in pixels.
SHARES, PARTS = (4, 1), (200, 400)
#: Shots and their numbers of episodes, which are 5-way with `N_QUERY` queries a class.
SHOTS, N_QUERY = {1: 100, 5: 50}, 5
DEFAULT = "discriminant"
WHOLE = (DEFAULT, "cosine-prototypical")
LOCAL: tuple[LocalLearner, ...] = (
    DN4Learner(),
    DN4Learner(salience=8),
    MutualNearestLearner(),
)


def scene(image: Image.Image, texture: Image.Image, side: int, share: int, rng: np.random.Generator) -> Image.Image:
    """Return a square scene that shows an image somewhere, with a side that is divided by `share`."""
    size = int(rng.integers(*PARTS))
    left, top = (int(rng.integers(0, length - size + 1)) for length in texture.size)
    made = texture.crop((left, top, left + size, top + size)).resize((side, side), Image.Resampling.BICUBIC)
    small = image.resize((side // share, side // share), Image.Resampling.BICUBIC)
    place = rng.integers(0, side - side // share + 1, 2).tolist()
    made.paste(small, (place[0], place[1]))
    return made


def embedded(images: Sequence[Image.Image], options: argparse.Namespace) -> dict[str, NDArray[np.float32]]:
    """Return the embeddings of images by the name of their pooling, of one pass through the network.

    They are those of ``"auto"``, if the network itself pools by the mean, as the default does; of ``"salient"``; and
    the maps of None.
    """
    maps = Embedder(options.backbone, img_size=options.size, pool=None, progress=False).transform(images)
    return {"auto": maps.mean(1), "salient": salient_mean(torch.from_numpy(maps)).numpy(), "none": maps}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per data set, size of objects, pooling and learner."""
    rows = []
    for (name, role, images, y), share in product(pictures(options), SHARES):
        rng = np.random.default_rng(options.seed)
        photograph = skimage.data.gravel() if role == CHOOSE else skimage.data.grass()
        texture = Image.fromarray(photograph).convert("RGB")
        x, best = embedded([scene(image, texture, options.size, share, rng) for image in images], options), None
        for pool, learner in ((p, one) for p in x for one in (LOCAL if p == "none" else WHOLE)):
            found = [answered(learner, x[pool], y, shot, options) for shot in SHOTS]
            if (pool, learner) == ("auto", DEFAULT):
                best = found
            gains = None if best is None else [over(*pair) for pair in zip(found, best, strict=True)]
            area = "all" if share == 1 else f"1/{share**2}"
            row = {"data": name, "role": role, "area": area, "pool": pool, **described(learner)}
            rows.append({**row, "cells": [percent(r.mean, r.ci95) for r in found], "gain": gains})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def answered(
    learner: str | Learner, x: NDArray[np.float32], y: NDArray[Any], shot: int, options: argparse.Namespace
) -> EvalResult:
    """Return the result of a learner on the episodes."""
    return evaluate(learner, x, y, n_shot=shot, n_query=N_QUERY, n_episodes=SHOTS[shot], seed=options.seed)


def described(learner: str | LocalLearner) -> dict[str, Any]:
    """Return the name of a learner, and its salience."""
    return {"learner": learner if isinstance(learner, str) else f"{learner.name}, salience {learner.salience:g}"}


def over(found: EvalResult, base: EvalResult) -> list[float]:
    """Return the paired gain over another result."""
    return percent(*found.difference(base))


def percent(mean: float, ci95: float) -> list[float]:
    """Return a figure and its interval in %."""
    return [round(100 * mean, 2), round(100 * ci95, 2)]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    places = ["data", "role", "area", "pool", "learner"]
    columns = list(places)
    columns += [text for shot in SHOTS for text in (f"{shot}-shot", f"gain, {shot}-shot")]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [row[key] for key in places]
        for (mean, ci95), (gain, gain_ci95) in zip(row["cells"], row["gain"], strict=True):
            cells += [f"{mean:.1f} ± {ci95:.1f}", f"{signed(gain)} ± {gain_ci95:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print a table and write the results."""
    parser = Parser("small_objects.py", __doc__)
    add_options(parser)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--size", type=int, default=320, metavar="PX", help="side of a scene (default: %(default)s)")
    parser.add_out("benchmarks/results/small_objects")
    options = parser.parse_args()
    rows = measure(options)
    of = {"backbone": options.backbone, "size": options.size, "n_query": N_QUERY, "episodes": SHOTS}
    results = {**facts("small_objects.py", options.seed, packages=("scikit-image",)), **of, "rows": rows}
    write(options.out, results, table(rows))


if __name__ == "__main__":
    main()
