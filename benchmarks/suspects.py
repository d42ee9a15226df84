"""How many wrong labels `audit` finds, how many right ones it suspects, and which copies it takes for near-duplicates.

On draws of each data set, a twentieth of the labels is replaced by any other class: the share of these that is flagged,
and the share of what is flagged that is wrong. On the same draws with right labels: the share that is flagged, and that
which the audit states. Then copies of images, changed a little, are compared with their originals, and different images
of a class with each other. What this assumes was chosen on CIFAR-FS validation classes, Omniglot background and glyphs,
for copies also on EuroSAT and digits; the other data only report.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import Parser
from defaults import draw
from numpy.typing import NDArray
from PIL import Image
from protocol import facts, write
from samples import CHOOSE, REPORT, Sample, add_options, drawings, pictures_of, samples

from fewshot import DiscriminantLearner, Embedder, LabeledImages, digits
from fewshot.images.duplicates import near_duplicates
from fewshot.images.support import Support
from fewshot.images.suspects import Judged, judge
from fewshot.utils.streams import episode_rng

SHOTS, DRAWS, WRONG = (5, 10, 20, 50), {0: 10, 5: 160}, 0.05
#: Classes whose images are copied, and images of each.
CLASSES, EACH = 20, 10


@torch.inference_mode()
def judged(sample: Sample, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> tuple[Judged, NDArray[np.int64]]:
    """Return how suspect labels are, and the places of those that could be left out."""
    learner, x = DiscriminantLearner(power=sample.power).double().eval(), torch.from_numpy(sample.X[rows]).double()
    found = learner.leave_out(x, torch.from_numpy(labels), int(labels.max()) + 1, every=True)
    left_out = found.rows.numpy()
    return judge(found.logits.numpy(), labels[left_out]), left_out


def measure(sample: Sample, way: int, shots: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one data set, way and number of shots, over all draws."""
    n = max(2, DRAWS[way] // (10 if options.quick else 1))
    clean, stated, flagged, wrong = [], [], [], []
    for i in range(n):
        rows, labels, _, _ = draw(sample, way, shots, options.seed, i)
        found, _ = judged(sample, rows, labels)
        clean.append(found.implausible.mean())
        stated.append(found.rate)
        rng, n_way = episode_rng(options.seed + 1, i), int(labels.max()) + 1
        bad = rng.permutation(len(labels)) < max(1, round(WRONG * len(labels)))
        given = np.where(bad, (labels + rng.integers(1, n_way, len(labels))) % n_way, labels)
        found, left_out = judged(sample, rows, given)
        flagged.append(np.isin(np.arange(len(labels)), left_out[found.implausible]))
        wrong.append(bad)
    is_flagged, is_wrong = np.concatenate(flagged), np.concatenate(wrong)
    cell = {
        "data": sample.name, "role": sample.role, "way": way, "shots": shots, "draws": n,
        "wrong ones flagged": _percent(is_flagged[is_wrong]), "of flagged, wrong": _percent(is_wrong[is_flagged]),
        "right ones flagged": _percent(clean), "stated": _percent(stated),
    }  # fmt: skip
    print(json.dumps(cell), flush=True)
    return cell


def _percent(values: Any) -> float:
    return round(100 * float(np.mean(values)), 1) if len(values) else 0.0


def copies() -> dict[str, Callable[[Image.Image], Image.Image]]:
    """Return what makes a near-duplicate of an image, by name."""

    def recompressed(quality: int) -> Callable[[Image.Image], Image.Image]:
        def copy(image: Image.Image) -> Image.Image:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality)
            return Image.open(buffer).convert("RGB")

        return copy

    def shifted(share: float) -> Callable[[Image.Image], Image.Image]:
        def copy(image: Image.Image) -> Image.Image:
            by = max(1, round(share * image.width))
            return Image.fromarray(np.pad(np.asarray(image), ((0, 0), (by, 0), (0, 0)), "edge")[:, : image.width])

        return copy

    def cropped(share: float) -> Callable[[Image.Image], Image.Image]:
        def copy(image: Image.Image) -> Image.Image:
            by = max(1, round(share * image.width / 2))
            return image.crop((by, by, image.width - by, image.height - by))

        return copy

    return {
        "JPEG 75": recompressed(75),
        "JPEG 50": recompressed(50),
        "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
        "shifted by 2 %": shifted(0.02),
        "shifted by 5 %": shifted(0.05),
        "cropped by 5 %": cropped(0.05),
        "cropped by 10 %": cropped(0.1),
    }


def measure_copies(name: str, role: str, data: tuple[list[Image.Image], Any], embedder: Embedder) -> dict[str, Any]:
    """Return the share of copies that are found, by kind, and of different images taken for near-duplicates."""
    images, y = data[0], np.unique(data[1], return_inverse=True)[1]
    kept = [i for c in range(CLASSES) for i in np.flatnonzero(y == c)[:EACH].tolist()]
    support = _support([images[i] for i in kept], embedder)
    known, n = near_duplicates(support) >= 0, len(kept)
    cell = {"data": name, "role": role, "images": n, "different ones": _percent(known)}
    for kind, make in copies().items():
        found = near_duplicates(support + _support([make(images[i]) for i in kept], embedder))[n:]
        cell[kind] = _percent(found == np.arange(n))
    print(json.dumps(cell), flush=True)
    return cell


def _support(images: list[Image.Image], embedder: Embedder) -> Support:
    found = embedder.embed(images, thumbnails=True)
    n = len(images)
    return Support(tuple(map(str, range(n))), np.zeros(n, np.int64), found.embeddings, tuple(found.thumbnails))


def all_copies(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the figures of near-duplicates on the data sets that the options name."""
    embedder = Embedder(options.backbone, cache=options.cache)
    sources: list[tuple[str, str, Callable[[], Any]]] = [("digits", CHOOSE, lambda: pictures_of(digits(size=28)))]
    if options.cifar:
        for split, role in (("val", CHOOSE), ("test", REPORT)):
            sources.append((f"CIFAR-FS {split}", role, partial(pictures_of, LabeledImages.open(options.cifar, split))))
    if options.eurosat:
        sources.append(("EuroSAT", CHOOSE, partial(pictures_of, LabeledImages.open(options.eurosat))))
    if options.omniglot:
        for part, role in (("background", CHOOSE), ("evaluation", REPORT)):
            sources.append((f"Omniglot {part}", role, partial(drawings, Path(options.omniglot), part)))
    return [measure_copies(name, role, read(), embedder) for name, role, read in sources]


def table(cells: list[dict[str, Any]], copied: list[dict[str, Any]]) -> str:
    """Return the results as Markdown; all shares in %."""
    lines = []
    for rows in (cells, copied):
        lines += [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
        shown = ([("all" if k == "way" and not v else str(v)) for k, v in row.items()] for row in rows)
        lines += [*(f"| {' | '.join(row)} |" for row in shown), ""]
    for role in dict.fromkeys(cell["role"] for cell in cells):
        for few in (True, False):
            own = [c for c in cells if c["role"] == role and (c["shots"] == min(SHOTS)) == few]
            mean = {k: np.mean([c[k] for c in own]) for k in list(own[0])[5:]} if own else {}
            kept = (
                ("wrong ones flagged", "90 % or more", lambda v: v >= 90),
                ("of flagged, wrong", "50 % or more", lambda v: v >= 50),
                ("right ones flagged", "5 % or fewer", lambda v: v <= 5),
            )
            told = (f"{name} {mean[name]:.1f} %, {goal} in {sum(map(ok, [c[name] for c in own]))} of {len(own)} cells"
                    for name, goal, ok in kept if own)  # fmt: skip
            shots = f"{min(SHOTS)} shots" if few else f"more than {min(SHOTS)} shots"
            lines.append(f"{role}, {shots}: {'; '.join(told)}.\n")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = Parser("suspects.py", __doc__)
    add_options(parser, "suspects", text=False)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = [
        measure(sample, way, shots, options)
        for sample in sorted(samples(options, styles=()), key=lambda sample: sample.role == REPORT)
        for way in DRAWS
        for shots in SHOTS
        if shots <= np.bincount(sample.y).min()
    ]
    copied = all_copies(options)
    results = {**facts("suspects.py", options.seed), "backbone": options.backbone, "cells": cells, "copies": copied}
    write(options.out, results, table(cells, copied))


if __name__ == "__main__":
    main()
