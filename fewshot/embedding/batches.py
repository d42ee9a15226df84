"""From images to their embeddings, one chunk after another: decoding on threads, then the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.embedding.items import CHUNK_PIXELS, default_jobs, prepared_chunks
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
