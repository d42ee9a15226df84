"""Images decoded once: pixels on disk, mapped into memory, made anew when a file changes."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.decode import check_readable
from fewshot.data.preprocess import Preprocessing
from fewshot.errors import ImageDecodeError, ReadError
from fewshot.files import replacing, sync
from fewshot.progress import progress_bar

#: Part of every key: raised when the same file would be decoded to other pixels.
_VERSION = 3


def cache_folder(folder: str | Path | None = None) -> Path:
    """Return the folder of what can be made again: the one given, ``$FEWSHOT_CACHE``, or ``~/.cache/fewshot``."""
    if folder is not None:
        return Path(folder)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FEWSHOT_CACHE") or Path(home) / "fewshot")


def decode_all(
    images: NDArray[Any], preprocessing: Preprocessing, cache: str | Path | None, progress: bool
) -> NDArray[np.uint8]:
    """Return the pixels (n, h, w) or (n, h, w, 3) of images; those of files come from, or go to, the cache.

    Parameters
    ----------
    images : array of n paths, or uint8 array (n, H, W) or (n, H, W, C)
        Pixels in memory are not cached.
    preprocessing : Preprocessing
        Size and channels of the result.
    cache : path or None
        See `cache_folder`.
    progress : bool
        Whether to show a progress bar.

    Raises
    ------
    ImageDecodeError
        If one cannot be read; nothing is cached then.
    """
    shape = (len(images), preprocessing.height, preprocessing.width, *([3] if preprocessing.channels == 3 else []))
    if images.dtype == np.uint8:
        if images.shape == shape and preprocessing.crop_pct == 1:
            return images
        pixels = np.empty(shape, np.uint8)
        _fill(pixels, images, preprocessing, progress)
        return pixels
    folder = cache_folder(cache)
    path = folder / f"{_key(images, preprocessing)}.npy"
    if (mapped := _mapped(path, shape)) is not None:
        return mapped
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
            _reserve(partial)
            _fill(pixels, images, preprocessing, progress)
            pixels.flush()
            sync(partial)
    except (ImageDecodeError, ReadError):
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; decoded images are kept there, set FEWSHOT_CACHE to a folder with room",
            str(folder),
        ) from error
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _mapped(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Return the pixels of an earlier time; None where they are not there, or not whole."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if (pixels.shape, pixels.dtype) == (shape, np.uint8) else None


def _reserve(path: Path) -> None:
    """Take the room on the disk now: a mapped file for which there is none ends the process when it is written to."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _key(paths: NDArray[Any], preprocessing: Preprocessing) -> str:
    """Name what is decoded: every file with its size and time, and how it becomes pixels."""
    files = []
    for i, path in enumerate(paths.tolist()):
        check_readable(path, i)
        status = os.stat(path)
        files.append((os.path.abspath(path), status.st_size, status.st_mtime_ns))
    text = json.dumps([_VERSION, preprocessing.identity(), files])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _fill(pixels: NDArray[np.uint8], images: NDArray[Any], preprocessing: Preprocessing, progress: bool) -> None:
    def fill(i: int) -> None:
        try:
            pixels[i] = preprocessing(images[i])
        except ImageDecodeError as error:
            raise ImageDecodeError(error.source, error.reason, i) from error

    with (
        ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool,
        progress_bar(len(images), "image", show=progress, desc="decoding", delay=1, leave=False) as bar,
    ):
        try:
            for _ in pool.map(fill, range(len(images))):
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
