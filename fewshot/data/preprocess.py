"""The preprocessing of a network, for one image or a collection: size, crop, interpolation, mean and deviation."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot.data.crop import AUTO, CROPS, DEFAULT, LONG, TILED, tile_boxes, whole_size
from fewshot.data.decode import BACKGROUND, decode
from fewshot.data.opening import at_index, describe
from fewshot.data.views import MIDDLE, VIEWS, are_views, check_views, offsets, shown
from fewshot.errors import ImageDecodeError, OutOfMemoryError, brief

#: Interpolations by timm name.
INTERPOLATIONS = {name.lower(): getattr(Image.Resampling, name) for name in Image.Resampling.__members__}
#: Crops of timm, and with those of `fewshot.data.crop`.
CROP_MODES = ("center", "squash", "border")
ALL_CROP_MODES = (*CROP_MODES, "pad", "stretch", *TILED)
#: Written for "no limit" in files; formerly the limit of all images.
NO_LIMIT = 89_478_485
#: Longest side of input images, so that a forged file cannot exhaust memory.
MOST_SIDE = 4096
#: Images are scaled as a whole and then cropped up to this number of pixels; beyond it, only the crop is computed.
WHOLE_PIXELS = 1 << 23
#: Longer side of a thumbnail in pixels.
THUMBNAIL = 96
#: Images that a thread takes at once.
BLOCK = 4

#: Values that older versions did not know: left out of files unless set.
_ADDED = {"bits", "views", "pool"}
#: What is made of the features of places if not what the network itself makes of them: maps, and means by salience.
MAPS, SALIENT = "maps", "salient"

#: Pixels and thumbnail of an image, without an error; or None, empty bytes and the error of an unreadable one.
Decoded = tuple[Any, bytes, ImageDecodeError | None]


class Prepared(list[Decoded]):
    """Images that are decoded and scaled already, in place of a collection of images."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the pixels, and the pixels the values, that a network expects.

    The steps are those of timm's evaluation transform: scale the image to cover ``size / crop_pct``, then crop the
    centre. The pixels equal timm's bit for bit, with two exceptions. Before 1.0.31, timm always scaled images for
    networks that are not square by bilinear interpolation. And if the scaled image would exceed ``WHOLE_PIXELS`` (at
    224 pixels: if it is over a hundred times as long as wide), only the crop is computed, so that an image of 1 x 20000
    pixels costs no more than others; its pixels differ by a few levels, in noise by up to twenty.

    Parameters
    ----------
    channels, height, width : int
        Shape of the result; 1 channel is grey, 3 are red, green and blue.
    mean, std : tuple of float
        Mean and standard deviation of values scaled to 0..1; one per channel, or one for all.
    interpolation : str, default="bilinear"
        A Pillow filter: ``bilinear``, ``bicubic``, ``lanczos``, ``nearest``, ``box``, ``hamming``.
    crop_pct : float, default=1.0
        Fraction of the scaled image's side to keep; above 1 a black border is added.
    crop_mode : {"center", "squash", "border", "pad", "stretch", "overlap", "adaptive"}, default="center"
        Whether the scaled image covers the square, is squashed into it, or is padded with the mean to fit into it;
        these three are timm's, which then keeps `crop_pct` of each side. The next two show the longer side of a long
        image whole: padded with grey, or squashed. ``overlap`` is the whole image, padded, and up to five
        overlapping squares along its longer side; ``adaptive`` is the same for images over twice as long as wide, and
        ``pad`` for others. All of them give a square image the same pixels.
    background : tuple of int, default=(255, 255, 255)
        Colour under transparent pixels.
    max_pixels : int, optional
        Larger images are refused; see `decode`.
    bits : int, optional
        The range of 16-bit images; see `decode`.
    views : str, optional
        More than one look at each image, averaged: names of `fewshot.data.views.VIEWS`, joined by "+".
    pool : {"maps", "salient"}, optional
        How the features of places become an embedding, if not in the network's own way; see `fewshot.embedding.maps`.
        ``maps`` allows neither tiles nor views, whose maps show other places.

    Raises
    ------
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> Preprocessing(3, 32, 32)(np.zeros((60, 40, 3), np.uint8)).shape
    (32, 32, 3)
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    crop_mode: str = "center"
    background: tuple[int, int, int] = BACKGROUND
    max_pixels: int | None = None
    bits: int | None = None
    views: str | None = None
    pool: str | None = None

    def __post_init__(self) -> None:
        for name, expected, ok in (
            ("channels", "1 or 3", _is_whole(self.channels) and self.channels in (1, 3)),
            ("height", f"a whole number from 1 to {MOST_SIDE}", _is_whole(self.height, MOST_SIDE)),
            ("width", f"a whole number from 1 to {MOST_SIDE}", _is_whole(self.width, MOST_SIDE)),
            ("mean", "a tuple of numbers", _are_numbers(self.mean)),
            ("std", "a tuple of numbers above 0", _are_numbers(self.std) and min(self.std) > 0),
            ("interpolation", ", ".join(INTERPOLATIONS), self.interpolation in list(INTERPOLATIONS)),
            ("crop_pct", "a number above 0, from 1e-6", _are_numbers((self.crop_pct,)) and self.crop_pct >= 1e-6),
            ("crop_mode", ", ".join(ALL_CROP_MODES), self.crop_mode in ALL_CROP_MODES),
            (
                "background",
                "a tuple of red, green and blue, each from 0 to 255",
                _are_numbers(self.background) and len(self.background) == 3 and set(self.background) <= set(range(256)),
            ),
            ("max_pixels", "a whole number from 1, or None", self.max_pixels is None or _is_whole(self.max_pixels)),
            ("views", f"some of {'+'.join(VIEWS)}, or None", are_views(self.views)),
            ("pool", "maps, without tiles and views, salient or None", self._is_pool),
        ):
            if not ok:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected {expected}")
        check_bits(self.bits)

    @classmethod
    def of(cls, config: Mapping[str, Any], size: int | None = None) -> Self:
        """Return the preprocessing of a timm configuration (``model.pretrained_cfg``), optionally for another size."""
        channels, height, width = config.get("input_size", (3, 224, 224))
        interpolation = config.get("interpolation", "bilinear")
        return cls(
            channels,
            size or height,
            size or width,
            tuple(config.get("mean", (0.0,))),
            tuple(config.get("std", (1.0,))),
            interpolation if interpolation in INTERPOLATIONS else "bilinear",  # timm has "random" for training
            config.get("crop_pct") or 0.875,
            config.get("crop_mode") or "center",
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the preprocessing that `to_dict` described.

        Raises
        ------
        ValueError
            If a value is missing, unknown or out of range.
        """
        known = {field.name for field in fields(cls)}
        if not known - _ADDED <= set(values) <= known:
            raise ValueError(f"preprocessing has {list(values)!s:.200}; expected {sorted(known)}")
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if given["max_pixels"] == NO_LIMIT:
            given["max_pixels"] = None
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Return all values in the JSON form that older versions read."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        values["max_pixels"] = self.max_pixels or NO_LIMIT
        return {key: value for key, value in values.items() if key not in _ADDED or value is not None}

    def identity(self) -> dict[str, Any]:
        """Return the values on which pixels depend: all but the limit."""
        return {**self.to_dict(), "max_pixels": NO_LIMIT}

    @property
    def _is_pool(self) -> bool:
        """Whether `pool` is valid: maps of several looks would be averaged, place by place."""
        blurs = self.pool == MAPS and (self.views is not None or self.crop_mode in TILED)
        return self.pool in (None, MAPS, SALIENT) and not blurs

    def changed(
        self,
        *,
        bits: int | None,
        max_pixels: int | None,
        crop: str | None = None,
        views: str | None = None,
        pool: str | None = None,
    ) -> Self:
        """Return a copy with the values that are not None; `crop` is one of `CROPS`, or "auto"."""
        if crop == AUTO:
            crop = DEFAULT if self.crop_mode == "center" else None
        pool = pool or self.pool
        if pool == MAPS and (crop == DEFAULT or (crop is None and self.crop_mode in TILED)):
            crop = "pad"  # DEFAULT without its tiles
        return replace(
            self,
            crop_mode=self.crop_mode if crop is None else CROPS[crop],
            bits=self.bits if bits is None else bits,
            max_pixels=self.max_pixels if max_pixels is None else max_pixels,
            views=check_views(views) or self.views,
            pool=pool,
        )

    def __call__(self, source: Any) -> NDArray[np.uint8]:
        """Return the pixels of a source for `decode`, (height, width) or (height, width, 3); of `t` parts, (t, ...)."""
        image = decode(source, background=self.background, max_pixels=self.max_pixels, bits=self.bits)
        try:
            if self.channels == 1:
                image = image.convert("L")
            parts = [*self._scales(image), *(self._tiles(image) if self.crop_mode in TILED else [])]
            return np.stack(parts) if len(parts) > 1 else parts[0]
        except MemoryError as error:
            raise OutOfMemoryError(describe(source)) from error

    def _scales(self, image: Image.Image) -> list[NDArray[np.uint8]]:
        """Return what is seen of an image; with the view ``scales`` also the whole or, if that is it, the middle."""
        if not self._has("scales"):
            return [self._seen(image)]
        other = replace(self, crop_pct=max(self.crop_pct, 1.0))
        if other._scaled(image.size) == self._scaled(image.size):
            other = replace(self, crop_mode="center", crop_pct=min(self.crop_pct, MIDDLE))
        return [self._seen(image), other._seen(image)]

    def _has(self, view: str) -> bool:
        return view in (self.views or "").split("+")

    def _tiles(self, image: Image.Image) -> list[NDArray[np.uint8]]:
        boxes = tile_boxes(image.size, self._wanted, LONG if self.crop_mode == "adaptive" else 1.0)
        part = replace(self, crop_pct=max(self.crop_pct, 1.0))  # a square loses a rim; tiles lose nothing
        return [part._seen(image.crop(box)) for box in boxes]

    def _seen(self, image: Image.Image) -> NDArray[np.uint8]:
        if (self.width, self.height) != image.size or self.crop_pct != 1:
            image = self._pad(self._cut(image))
        return np.array(image)

    @property
    def _wanted(self) -> tuple[int, int]:
        """Width and height of a square image after scaling and before cropping."""
        return max(int(self.width / self.crop_pct), 1), max(int(self.height / self.crop_pct), 1)

    def stack(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the pixels of images as one array of what the network sees, (n, ...): all parts of the first, ..."""
        return np.concatenate([self.parts(image) for image in images])

    def parts(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the pixels (t, ...) of the parts of an image: of it as a whole, at one scale or two, and its tiles."""
        return image.reshape(-1, *self._shape)

    def embed(
        self, images: Sequence[NDArray[np.uint8]], forward: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return the embeddings (n, d) that `forward` computes of the pixels of images.

        That of an image is the mean over its views; with tiles it is the mean of this and the maximum over the tiles.
        """
        pixels, size = self.stack(images), len(images)
        starts = range(0, len(pixels), size)
        rows = np.concatenate([self._averaged(pixels[start : start + size], forward) for start in starts])
        if len(pixels) == size:
            return rows
        ends = np.cumsum([0, *(len(self.parts(image)) for image in images)])
        return np.stack([self._combined(rows[start:end]) for start, end in pairwise(ends)])

    def _averaged(
        self, pixels: NDArray[np.uint8], forward: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return the mean over mirror images and shifts of pixels."""
        shifts = offsets(min(self.height, self.width)) if self._has("shifts") else [(0, 0)]
        found = [forward(view) for view in shown(pixels, shifts, self._has("mirror"))]
        return found[0] if len(found) == 1 else np.mean(found, axis=0)

    def _combined(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        n_scales = 1 + self._has("scales")
        whole, tiles = rows[:n_scales].mean(axis=0), rows[n_scales:]
        return (whole + tiles.max(axis=0)) / 2 if len(tiles) else whole

    def blank(self) -> NDArray[np.uint8]:
        """Return the pixels of a black square."""
        return np.zeros(self._shape, np.uint8)

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.height, self.width, 3)[: 2 + (self.channels == 3)]

    def _cut(self, image: Image.Image) -> Image.Image:
        """Scale, then crop the centre; cropping first would change the weights, because Pillow rounds boxes."""
        scaled, filter_ = self._scaled(image.size), INTERPOLATIONS[self.interpolation]
        kept = min(self.width, scaled[0]), min(self.height, scaled[1])
        left, top = (round((s - k) / 2) for s, k in zip(scaled, kept, strict=True))  # rounded like torchvision
        box = left, top, left + kept[0], top + kept[1]
        if scaled[0] * scaled[1] <= WHOLE_PIXELS:
            return image.resize(scaled, filter_).crop(box)
        part = [min(b * n / s, n) for b, n, s in zip(box, image.size * 2, scaled * 2, strict=True)]
        return image.resize(kept, filter_, box=(part[0], part[1], part[2], part[3]))

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the width and height of the image after scaling and before cropping."""
        wanted = self._wanted
        if self.crop_mode == "squash":
            return wanted
        if self.crop_mode in ("pad", "stretch", *TILED):
            return whole_size(size, wanted, (self.width, self.height), self.crop_mode == "stretch")
        if self.crop_mode == "center" and wanted[0] == wanted[1]:  # torchvision's Resize, which timm uses for squares
            width, height = (wanted[0] * n // min(size) for n in size)
            return width, height
        ratios = [n / w for n, w in zip(size, wanted, strict=True)]  # timm's ResizeKeepRatio
        ratio = max(ratios) if self.crop_mode == "border" else min(ratios)
        return max(round(size[0] / ratio), 1), max(round(size[1] / ratio), 1)

    def _pad(self, image: Image.Image) -> Image.Image:
        """Pad the image to the full size."""
        wanted = (self.width, self.height)
        if image.size == wanted:
            return image
        means = self.mean if self.crop_mode == "border" else (0.0,)
        if self.crop_mode in ("pad", *TILED) and self.crop_pct <= 1:  # above 1, training has shown black borders
            means = (0.5,)  # whatever the mean, so that training need not know it
        levels = means if len(means) == self.channels else [sum(means) / len(means)] * self.channels
        fill = tuple(min(max(round(255 * level), 0), 255) for level in levels)
        whole = Image.new(image.mode, wanted, fill if self.channels == 3 else fill[0])
        whole.paste(image, ((wanted[0] - image.width) // 2, (wanted[1] - image.height) // 2))
        return whole


def _is_whole(value: object, most: int = 2**53) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(1 <= value <= most)


def _are_numbers(values: object) -> bool:
    return (
        isinstance(values, tuple) and bool(values) and all(isinstance(v, (int, float)) and abs(v) < 1e9 for v in values)
    )


def check_bits(bits: object) -> None:
    """Raise `ValueError` unless `bits` is None or a whole number from 8 to 16."""
    if bits is not None and (not isinstance(bits, (int, np.integer)) or not 8 <= bits <= 16):
        raise ValueError(f"bits is {brief(repr(bits))}; expected a whole number from 8 to 16, or None")


def default_jobs(n_jobs: int | None) -> int:
    """Return the number of decoding threads: `n_jobs`, or two per core but at most 16."""
    return n_jobs or min(16, 2 * (os.cpu_count() or 1))


def prepared_chunks(
    items: Sequence[Any] | NDArray[Any],
    preprocessing: Preprocessing,
    size: int,
    *,
    n_jobs: int | None = None,
    ahead: int = 0,
    thumbnails: bool = False,
) -> Iterator[list[Decoded]]:
    """Yield chunks of `size` (pixels, thumbnail, error), prepared on `n_jobs` threads, `ahead` chunks in advance.

    A few items are prepared here: starting threads would take longer.
    """

    def prepare_block(rows: range) -> list[Decoded]:
        return [_prepare(items, i, preprocessing, thumbnails) for i in rows]

    if 0 < len(items) <= BLOCK:
        yield prepare_block(range(len(items)))
        return
    pool = ThreadPoolExecutor(default_jobs(n_jobs), thread_name_prefix="fewshot-decode")
    waiting: deque[list[Future[list[Decoded]]]] = deque()
    try:
        for start in range(0, len(items) + ahead * size, size):
            rows = range(start, min(start + size, len(items)))
            waiting.append([pool.submit(prepare_block, rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK)])
            if len(waiting) > ahead and (futures := waiting.popleft()):
                yield [image for future in futures for image in future.result()]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _prepare(items: Sequence[Any] | NDArray[Any], i: int, preprocessing: Preprocessing, thumbnails: bool) -> Decoded:
    try:
        with at_index(i):
            pixels = preprocessing(items[i])
    except ImageDecodeError as error:
        return None, b"", error
    except TypeError as error:
        raise TypeError(f"image {i}: {error}") from None
    return pixels, make_thumbnail(preprocessing.parts(pixels)[0]) if thumbnails else b"", None


def make_thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """Return a thumbnail of an image's pixels: PNG for small images, else JPEG."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if max(image.size) <= THUMBNAIL:
        image.save(buffer, "PNG")
    else:
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=2.0)
        image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
