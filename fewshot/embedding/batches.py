"""From images to their embeddings, one chunk after another: decoding on threads, then the network."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.loaded import Loaded
from fewshot.embedding.network import evaluating
from fewshot.errors import ImageDecodeError
from fewshot.utils.heap import keeping_memory
from fewshot.utils.isolation import isolated
from fewshot.utils.progress import progress_bar
from fewshot.utils.warning import warn

#: Seconds before a progress bar appears.
BAR_AFTER = 2


@dataclass(frozen=True, eq=False)
class Embedded:
    """What became of a collection of images.

    Attributes
    ----------
    embeddings : ndarray of shape (n, d), float32
        NaN in the rows of images that could not be read.
    errors : list of ImageDecodeError
        Why, one for each such image.
    thumbnails : list of bytes
        Small pictures of what the network saw, if they were asked for; empty where an image could not be read.
    """

    embeddings: NDArray[np.float32]
    errors: list[ImageDecodeError]
    thumbnails: list[bytes] = field(default_factory=list)

    def warn(self) -> None:
        """Warn of what could not be read, if anything."""
        if self.errors:
            n, first = len(self.embeddings), self.errors[0]
            warn(f"{len(self.errors)} of {n} images could not be read, first {first}")


@isolated(gradients=False)
def embed_items(
    loaded: Loaded,
    items: Sequence[Any],
    *,
    batch_size: int | None = None,
    n_jobs: int | None = None,
    stop: bool = True,
    progress: bool = False,
    thumbnails: bool = False,
    keep: Callable[[int, Embedded], object] | None = None,
) -> Embedded:
    """Embed images with a network that is in place.

    Parameters
    ----------
    loaded : Loaded
        The network.
    items : sequence of n images
        As `as_items` returns them.
    batch_size, n_jobs : int, optional
        See `Embedder`.
    stop : bool, default=True
        Whether an image that cannot be read is raised; else its row is NaN.
    progress, thumbnails : bool, default=False
        Whether to show a bar, and to make small pictures.
    keep : callable, optional
        Is given each chunk as soon as it is embedded: where it begins, and what became of its images.

    Raises
    ------
    ImageDecodeError
        If `stop`, for the first image that cannot be read.
    """
    size, seen = batch_size or loaded.batch_size, loaded.preprocessing
    n_chunk = CHUNK_PIXELS // (seen.height * seen.width)
    # A network on the CPU has no core to spare for decoding beside it: there the two take turns.
    ahead = 0 if loaded.is_on_cpu else 2
    parts: list[NDArray[np.float32]] = []
    errors: list[ImageDecodeError] = []
    pictures: list[bytes] = []
    first = 0
    bar = progress_bar(len(items), "image", show=progress, desc="embedding", delay=BAR_AFTER, leave=False)
    with evaluating(loaded.network), keeping_memory(), bar:
        for chunk in prepared_chunks(items, seen, max(n_chunk, size), default_jobs(n_jobs), ahead, thumbnails):
            failed = [error for _, _, error in chunk if error is not None]
            if failed and stop:
                raise failed[0]
            drawn, done = [picture or b"" for _, picture, _ in chunk] if thumbnails else [], []
            for start in range(0, len(chunk), size):
                done.append(loaded.embed([pixels for pixels, _, _ in chunk[start : start + size]]))
                bar.update(len(done[-1]))
            if keep is not None:
                keep(first, Embedded(np.concatenate(done), failed, drawn))
            parts += done
            errors += failed
            pictures += drawn
            first += len(chunk)
        if not parts:
            parts.append(loaded.embed([None])[:0])
    return Embedded(np.concatenate(parts), errors, pictures)


def draw_items(loaded: Loaded, items: Sequence[Any], n_jobs: int | None = None) -> list[bytes]:
    """Return a small picture of each image, as `embed_items` does, without embedding; empty for one that fails."""
    seen, jobs = loaded.preprocessing, default_jobs(n_jobs)
    size = max(1, CHUNK_PIXELS // (seen.height * seen.width))
    return [picture or b"" for chunk in prepared_chunks(items, seen, size, jobs, 0, True) for _, picture, _ in chunk]


#: Longer side of a thumbnail in pixels.
THUMBNAIL = 96
#: Pixels that are prepared at a time, enough to keep every thread busy, and images that a thread takes at once.
CHUNK_PIXELS, BLOCK = 96 * 224 * 224, 4

Prepared = tuple[NDArray[np.uint8] | None, bytes | None, ImageDecodeError | None]


def default_jobs(n_jobs: int | None) -> int:
    """Return how many threads decode: as many as asked for, by default two a core, at most 16."""
    return n_jobs or min(16, 2 * (os.cpu_count() or 1))


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
