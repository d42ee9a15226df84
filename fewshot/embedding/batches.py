"""Embed a collection of images chunk by chunk: decode on threads, then run the network."""

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

from fewshot.data.opening import at_index
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.network import Loaded, evaluating
from fewshot.errors import ImageDecodeError
from fewshot.utils.heap import keeping_memory
from fewshot.utils.isolation import isolated
from fewshot.utils.progress import progress_bar
from fewshot.utils.warning import warn

#: Seconds before a progress bar appears.
BAR_AFTER = 2
#: Longer side of a thumbnail in pixels.
THUMBNAIL = 96
#: Pixels in a chunk, enough to keep every thread busy, and images that a thread takes at once.
CHUNK_PIXELS, BLOCK = 96 * 224 * 224, 4

Prepared = tuple[NDArray[np.uint8] | None, bytes, ImageDecodeError | None]


@dataclass(frozen=True, eq=False)
class Embedded:
    """The embeddings of a collection of images, and the images that could not be read.

    Attributes
    ----------
    embeddings : ndarray of shape (n, d), float32
        NaN in the rows of unreadable images.
    errors : list of ImageDecodeError
        One per unreadable image.
    thumbnails : list of bytes
        Thumbnails of the network's input, if requested; empty bytes for unreadable images.
    """

    embeddings: NDArray[np.float32]
    errors: list[ImageDecodeError]
    thumbnails: list[bytes] = field(default_factory=list)

    def warn(self) -> None:
        """Warn if images could not be read."""
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
    on_error: str = "raise",
    progress: bool = False,
    thumbnails: bool = False,
    keep: Callable[[int, Embedded], object] | None = None,
) -> Embedded:
    """Embed images with a loaded network.

    Parameters
    ----------
    loaded : Loaded
        The network.
    items : sequence of n images
        As returned by `as_items`.
    batch_size, n_jobs : int, optional
        See `Embedder`.
    on_error : {"raise", "skip", "unknown"}, default="raise"
        "raise" raises the first error of a chunk; the other two leave a row of NaN.
    progress, thumbnails : bool, default=False
        Whether to show a progress bar, and to make thumbnails.
    keep : callable, optional
        ``keep(start, embedded)`` is called with each chunk as soon as it is embedded.

    Raises
    ------
    ImageDecodeError
        If an image cannot be read and `on_error` is "raise".
    """
    size, seen = batch_size or loaded.batch_size, loaded.preprocessing
    # On the CPU decoding would compete with the network for cores, so they take turns.
    ahead = 0 if loaded.is_on_cpu else 2
    parts: list[Embedded] = []
    start = 0
    bar = progress_bar(len(items), "image", show=progress, desc="embedding", delay=BAR_AFTER, leave=False)
    with evaluating(loaded.network), keeping_memory(), bar:
        for chunk in prepared_chunks(items, seen, max(_n_chunk(seen), size), default_jobs(n_jobs), ahead, thumbnails):
            errors = [error for _, _, error in chunk if error is not None]
            if errors and on_error == "raise":
                raise errors[0]
            done = []
            for i in range(0, len(chunk), size):
                done.append(loaded.embed([pixels for pixels, _, _ in chunk[i : i + size]]))
                bar.update(len(done[-1]))
            parts.append(Embedded(np.concatenate(done), errors, [picture for _, picture, _ in chunk if thumbnails]))
            if keep is not None:
                keep(start, parts[-1])
            start += len(chunk)
        if not parts:
            parts.append(Embedded(loaded.embed([None])[:0], []))
    return Embedded(
        np.concatenate([part.embeddings for part in parts]),
        [error for part in parts for error in part.errors],
        [picture for part in parts for picture in part.thumbnails],
    )


def draw_items(loaded: Loaded, items: Sequence[Any], n_jobs: int | None = None) -> list[bytes]:
    """Return the thumbnails that `embed_items` would make, without embedding; empty bytes for unreadable images."""
    seen = loaded.preprocessing
    chunks = prepared_chunks(items, seen, _n_chunk(seen), default_jobs(n_jobs), 0, True)
    return [picture for chunk in chunks for _, picture, _ in chunk]


def _n_chunk(preprocessing: Preprocessing) -> int:
    return max(CHUNK_PIXELS // (preprocessing.height * preprocessing.width), 1)


def default_jobs(n_jobs: int | None) -> int:
    """Return the number of decoding threads: `n_jobs`, or two per core but at most 16."""
    return n_jobs or min(16, 2 * (os.cpu_count() or 1))


def prepared_chunks(
    items: Sequence[Any], preprocessing: Preprocessing, size: int, n_jobs: int, ahead: int, thumbnails: bool
) -> Iterator[list[Prepared]]:
    """Yield chunks of `size` (pixels, thumbnail, error), prepared on `n_jobs` threads, `ahead` chunks in advance."""

    def prepare(i: int) -> Prepared:
        try:
            with at_index(i):
                pixels = preprocessing(items[i])
        except ImageDecodeError as error:
            return None, b"", error
        except TypeError as error:
            raise TypeError(f"image {i}: {error}") from None
        return pixels, make_thumbnail(pixels) if thumbnails else b"", None

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
    """Return a thumbnail of an image's pixels: PNG for small images, else JPEG."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if max(image.size) <= THUMBNAIL:
        image.save(buffer, "PNG")
    else:
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=2.0)
        image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
