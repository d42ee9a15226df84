"""Data sets that defaults are chosen on and reported on, embedded once each."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from arguments import Parser
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from sentences import sentences

from fewshot import Embedder, LabeledImages, digits, glyphs
from fewshot.errors import pip_install

#: Images per class; of those, the first ones that are support where queries come in another style.
MOST, PHOTOS = 70, 50
#: Classes of one data set, evenly spaced in their order; drawings that a glyph needs.
CLASSES, DRAWINGS = 100, 15
#: Which classes a default may be chosen on, and which only report what it gives.
CHOOSE, REPORT = "choose", "report"

Images = Sequence[Image.Image]


@dataclass(frozen=True, eq=False)
class Sample:
    """Embeddings of one data set.

    Attributes
    ----------
    name : str
        Name in tables.
    role : {"choose", "report"}
        Whether defaults may be chosen on it.
    X, y : arrays of shape (n, d) and (n,)
        Embeddings, and classes 0..c-1.
    power : float
        Power of the default learner.
    asked : bool array of shape (n,), optional
        Queries in another style; the other rows are support. By default every row may be either.
    """

    name: str
    role: str
    X: NDArray[np.float32]
    y: NDArray[np.int64]
    power: float = 0.5
    asked: NDArray[np.bool_] | None = None


def grey(image: Image.Image) -> Image.Image:
    """Return the image without colour."""
    return image.convert("L").convert("RGB")


def edges(image: Image.Image) -> Image.Image:
    """Return bright edges on black."""
    return image.convert("L").resize((128, 128)).filter(ImageFilter.FIND_EDGES).convert("RGB")


def blurred(image: Image.Image) -> Image.Image:
    """Return the image at 64 px, moderately blurred."""
    return image.resize((64, 64), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))


STYLES: tuple[Callable[[Image.Image], Image.Image], ...] = (grey, edges, blurred, ImageOps.invert)


def add_options(parser: Parser, results: str, text: bool = True) -> None:
    """Add the options of benchmarks on these data, with or without text; `results` names the result files."""
    parser.set_defaults(text=False)
    parser.add_pictures()
    if text:
        parser.add_argument("--text", action="store_true", help=f"sentences too; needs {pip_install('peers')}")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--cache", metavar="DIR", help="store embeddings there, and reuse them")
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: %(default)s)")
    parser.add_out(f"benchmarks/results/{results}")


def samples(options: argparse.Namespace, styles: Sequence[Any] = STYLES, training: bool = False) -> list[Sample]:
    """Return the data sets that the options name, and those that need no file; some also in other `styles`.

    Where nothing is trained, the `training` classes of CIFAR-FS can join its test classes, to report on.
    """
    embed = Embedder(options.backbone, cache=options.cache).transform
    small = glyphs("val")
    drawn = small.with_classes(small.classes[small.counts >= DRAWINGS])
    found = [
        _sample("glyphs", CHOOSE, *pictures_of(_some_classes(drawn)), embed),
        _sample("digits", REPORT, *pictures_of(digits(size=28)), embed),
    ]
    if options.cifar:
        found += _with_styles("CIFAR-FS validation", CHOOSE, options.cifar, "val", styles, embed)
        tested = _with_styles("CIFAR-FS test", REPORT, options.cifar, "test", styles, embed)
        if training:
            others = _sample("", REPORT, *pictures_of(LabeledImages.open(options.cifar, "train")), embed)
            tested = [_joined("CIFAR-FS training and test", tested[0], others)]
        found += tested
    if options.eurosat:
        found += _with_styles("EuroSAT", REPORT, options.eurosat, None, styles, embed)
    if options.omniglot:
        for role, part in ((CHOOSE, "background"), (REPORT, "evaluation")):
            found.append(_sample(f"Omniglot {part}", role, *drawings(Path(options.omniglot), part), embed))
    if options.text:
        X, topics = sentences()
        found.append(Sample("sentences, MiniLM", CHOOSE, X, _codes(topics), power=1.0))
    return found


def _sample(name: str, role: str, images: Images, labels: Sequence[Any], embed: Callable[..., Any]) -> Sample:
    return Sample(name, role, embed(images), _codes(labels))


def _joined(name: str, one: Sample, other: Sample) -> Sample:
    y = np.concatenate([one.y, other.y + one.y.max() + 1])
    return Sample(name, one.role, np.concatenate([one.X, other.X]), y)


def _with_styles(
    name: str, role: str, source: str, split: str | None, styles: Sequence[Any], embed: Callable[..., Any]
) -> list[Sample]:
    """Return a data set, and for each style one whose queries have that style, if every class has enough images."""
    images, labels = pictures_of(LabeledImages.open(source, split))
    plain, found = _sample(name, role, images, labels, embed), []
    if np.bincount(plain.y).min() <= PHOTOS:
        return [plain]
    asked = _rank(plain.y) >= PHOTOS
    y = np.concatenate([plain.y[~asked], plain.y[asked]])
    for style in styles:
        queries = embed([style(images[i]) for i in np.flatnonzero(asked)])
        title = f"{name}, {'inverted' if style is ImageOps.invert else style.__name__}"
        found.append(Sample(title, role, np.concatenate([plain.X[~asked], queries]), y, asked=np.sort(asked)))
    return [plain, *found]


def pictures_of(data: LabeledImages) -> tuple[list[Image.Image], list[Any]]:
    """Return the first images of each class, and their labels."""
    rows = np.flatnonzero(_rank(_codes(data.labels)) < MOST)
    opened = (Image.fromarray(data.images[i]) if data.is_decoded else Image.open(data.images[i]) for i in rows)
    return [image.convert("RGB") for image in opened], data.labels[rows].tolist()


def _some_classes(data: LabeledImages) -> LabeledImages:
    return data.with_classes(data.classes[_spaced(len(data.classes))])


def drawings(folder: Path, part: str) -> tuple[list[Image.Image], list[str]]:
    """Return drawings of the official archive, and their characters."""
    with zipfile.ZipFile(folder / f"images_{part}.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        characters = sorted({name.rpartition("/")[0] for name in names})
        kept = {characters[i] for i in _spaced(len(characters))}
        names = [name for name in names if name.rpartition("/")[0] in kept]
        images = [Image.open(BytesIO(archive.read(name))).convert("RGB") for name in names]
    return images, [name.rpartition("/")[0] for name in names]


def _spaced(n: int) -> NDArray[np.int64]:
    return np.linspace(0, n - 1, min(n, CLASSES)).astype(int)


def _codes(labels: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
    return np.unique(np.asarray(labels), return_inverse=True)[1]


def _rank(y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each row, how many earlier rows have its class."""
    order = np.argsort(y, kind="stable")
    rank = np.empty(len(y), np.int64)
    rank[order] = np.arange(len(y)) - np.searchsorted(y[order], y[order])
    return rank
