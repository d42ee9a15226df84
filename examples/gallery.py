"""What the examples share: their options, how they say a figure, and how they draw a picture."""

from __future__ import annotations

import argparse
import io
import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

if TYPE_CHECKING:  # the example of a device runs without torch
    from fewshot import LabeledImages

INK, SOFT, LINE = "#1c2430", "#5b6573", "#d8dde4"
#: Frames of what was taught, of right and wrong answers, and of things that are no class.
TAUGHT, RIGHT, WRONG, UNKNOWN = "#0072B2", "#009E73", "#D55E00", "#7A5195"
#: Size in inches at 100 dots an inch, and the most bytes of a picture.
SIZE, MOST_BYTES = (10.4, 5.85), 40_000

#: The folder of the photographs that scikit-image ships.
PHOTOGRAPHS = Path(str(find_spec("skimage").origin)).parent / "data"


def options(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return the options that every example has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", default=f"{name}.webp", metavar="FILE", help="the picture (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="which examples are taught (default: %(default)s)")
    return made


def said(right: Any) -> str:
    """Return the share of right answers with its 95 % interval (Wilson 1927)."""
    n, p, z = len(right), float(np.mean(right)), 1.96
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = ((middle + side) / (1 + z**2 / n) for side in (-half, half))
    return f"{100 * p:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def averaged(shares: Any) -> str:
    """Return the mean of shares that were measured one by one, with its 95 % interval."""
    mean, half = 100 * np.mean(shares), 196 * np.std(shares, ddof=1) / len(shares) ** 0.5
    return f"{mean:.1f} % ({max(mean - half, 0):.1f} to {min(mean + half, 100):.1f})"


def taught_and_asked(data: LabeledImages, n: int, seed: int) -> tuple[LabeledImages, LabeledImages]:
    """Return n images of each class, chosen by chance, and the others."""
    rng = np.random.default_rng(seed)
    taught = np.concatenate([rng.permutation(np.flatnonzero(data.labels == c))[:n] for c in data.classes])
    return data.select(taught), data.select(np.setdiff1d(np.arange(len(data)), taught))


class Picture:
    """A sheet with a title, on which tiles, bars and text are placed; positions are shares of the sheet, from the top.

    Parameters
    ----------
    title, subtitle : str
        What is seen.
    """

    def __init__(self, title: str, subtitle: str) -> None:
        self.figure = Figure(figsize=SIZE, dpi=100, facecolor="white")
        self.text(0.04, 0.075, title, size=19, weight="bold")
        self.text(0.04, 0.135, subtitle, size=12.5, color=SOFT)

    def text(self, x: float, y: float, words: str, size: float = 11, **style: Any) -> None:
        """Write words with their base line at y."""
        self.figure.text(x, 1 - y, words.replace("$", r"\$"), fontsize=size, **{"color": INK, **style})

    def tile(self, x: float, y: float, width: float, image: Any, caption: str = "", frame: str = LINE) -> None:
        """Place an image, as high as its proportions ask for, with a frame and a line below."""
        pixels = np.asarray(Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image)
        height = width * SIZE[0] / SIZE[1] * pixels.shape[0] / pixels.shape[1]
        axes = self.figure.add_axes((x, 1 - y - height, width, height))
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="bicubic", aspect="auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(edgecolor=frame, linewidth=3 if frame != LINE else 1)
        colour = SOFT if frame == LINE else frame
        for i, line in enumerate(textwrap.wrap(caption, max(10, int(150 * width)), break_long_words=False)[:2]):
            self.text(x + width / 2, y + height + 0.034 + 0.026 * i, line, size=9.5, ha="center", color=colour)

    def tiles(self, x: float, y: float, width: float, columns: int, shown: Sequence[tuple[Any, str, str]],
              row: float = 0.0) -> None:  # fmt: skip
        """Place images, captions and frames in rows; `row` is the height of one with its caption."""
        step = width / columns
        for i, (image, caption, frame) in enumerate(shown):
            down = row or step * SIZE[0] / SIZE[1] + (0.035 if caption else 0)
            self.tile(x + i % columns * step, y + i // columns * down, 0.88 * step, image, caption, frame)

    def bars(self, x: float, y: float, width: float, rows: Sequence[tuple[str, float, str]], step: float = 0.075,
             names: float = 0.5) -> None:  # fmt: skip
        """Draw shares as bars, each with its name, number and colour."""
        left, room = x + names * width, (1 - names) * width - 0.05
        for i, (name, share, colour) in enumerate(rows):
            line = y + i * step
            self.text(left - 0.012, line + 0.012, name, size=10.5, ha="right")
            for part, tint in ((1.0, "#eef1f5"), (share, colour)):
                if part > 0:
                    place = (left, 1 - line - 0.018), room * part, 0.036
                    self.figure.patches.append(
                        FancyBboxPatch(*place, boxstyle="square,pad=0", color=tint, linewidth=0,
                                       transform=self.figure.transFigure, figure=self.figure))  # fmt: skip
            self.text(left + room + 0.01, line + 0.012, f"{100 * share:.0f} %", size=10.5, color=SOFT)

    def note(self, x: float, y: float, width: int, words: str) -> None:
        """Write small words in lines of `width` characters."""
        for i, line in enumerate(textwrap.wrap(words, width)):
            self.text(x, y + 0.036 * i, line, size=10, color=SOFT)

    def save(self, path: str | Path) -> None:
        """Write the picture as a file of at most 40 KB."""
        drawn = io.BytesIO()
        self.figure.savefig(drawn, format="png")
        image = Image.open(drawn).convert("RGB")
        for quality in range(88, 20, -4):
            packed = io.BytesIO()
            image.save(packed, "webp", quality=quality, method=6)
            if packed.tell() <= MOST_BYTES:
                break
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(packed.getvalue())
        print(f"picture: {path}")
