"""A collection of images, whatever they come in, prepared on threads while the network works."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot.data import collection
from fewshot.data.decode import check_readable, is_data_url
from fewshot.data.images import LabeledImages
from fewshot.data.preprocess import Preprocessing
from fewshot.errors import ImageDecodeError

#: Longer side of a thumbnail in pixels.
THUMBNAIL = 96
#: Pixels that are prepared at a time, enough to keep every thread busy, and images that a thread takes at once.
CHUNK_PIXELS, BLOCK = 96 * 224 * 224, 4

Prepared = tuple[NDArray[np.uint8] | None, bytes | None, ImageDecodeError | None]


def default_jobs(n_jobs: int | None) -> int:
    """Return how many threads decode: as many as asked for, by default two a core, at most 16."""
    return n_jobs or min(16, 2 * (os.cpu_count() or 1))


def as_items(X: Any) -> Sequence[Any]:
    """Return a collection of images as something with a length whose elements `decode` takes.

    Parameters
    ----------
    X : collection of images
        As `fewshot.data.collection.as_sequence` takes them, or `LabeledImages`.

    Raises
    ------
    TypeError
        If it is one image and not a collection, or nothing that holds images.
    """
    if isinstance(X, LabeledImages):
        paths_or_pixels: Any = X.images
        return paths_or_pixels
    return collection.as_sequence(X)


def check_paths(items: Sequence[Any]) -> Iterator[ImageDecodeError]:
    """Yield an error for each path among `items` that is no readable file, before the first image is decoded."""
    for i, item in enumerate(items):
        if isinstance(item, (str, os.PathLike)) and not is_data_url(item):
            try:
                check_readable(item, i)
            except ImageDecodeError as error:
                yield error


def prepared_chunks(
    items: Sequence[Any], preprocessing: Preprocessing, size: int, n_jobs: int, ahead: int, thumbnails: bool
) -> Iterator[list[Prepared]]:
    """Yield `size` images at a time, (pixels, thumbnail, error), from `n_jobs` threads, `ahead` chunks early."""

    def prepare(i: int) -> Prepared:
        try:
            pixels = preprocessing(items[i])
        except ImageDecodeError as error:
            return None, None, ImageDecodeError(error.source, error.reason, i)
        except TypeError as error:
            raise TypeError(f"image {i}: {error}") from None
        return pixels, make_thumbnail(pixels) if thumbnails else None, None

    def prepare_block(rows: range) -> list[Prepared]:
        return [prepare(i) for i in rows]

    pool = ThreadPoolExecutor(n_jobs, thread_name_prefix="fewshot-decode")
    waiting: deque[list[Future[list[Prepared]]]] = deque()

    def first() -> list[Prepared]:
        return [image for future in waiting.popleft() for image in future.result()]

    try:
        for start in range(0, len(items), size):
            rows = range(start, min(start + size, len(items)))
            waiting.append([pool.submit(prepare_block, rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK)])
            if len(waiting) > ahead:
                yield first()
        while waiting:
            yield first()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def make_thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """Return a small picture of an image's pixels: PNG where they are small already, else JPEG."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if max(image.size) <= THUMBNAIL:
        image.save(buffer, "PNG")
    else:
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=2.0)
        image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
