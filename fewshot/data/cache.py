"""Images decoded once: pixels on disk by the content of the files, checked and mapped into memory."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.opening import check_readable
from fewshot.data.preprocess import Preprocessing
from fewshot.errors import ImageDecodeError, ReadError
from fewshot.persistence.files import digest, leftovers, open_regular, replacing, sync
from fewshot.persistence.sealed import seal, seal_fits
from fewshot.utils.progress import progress_bar

#: Part of every key: raised when the same file would be decoded to other pixels.
_VERSION = 3
#: Files of decoded pixels, and how much of them is kept where ``FEWSHOT_CACHE_GB`` does not say.
_NAME, _GIGABYTES = r"[0-9a-f]{32}\.npy", "20"
#: Times that images are decoded before it is an error that they change meanwhile.
_ATTEMPTS = 3


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

    The cache holds at most ``$FEWSHOT_CACHE_GB`` gigabytes, 20 by default, beside what was made last: pixels that were
    not used for longest are removed.

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
    folder, most = cache_folder(cache), _limit()
    _sweep(folder)
    key = _key(images, preprocessing)
    for _ in range(_ATTEMPTS):
        path = folder / f"{key}.npy"
        if (mapped := _mapped(path, shape)) is not None:
            return mapped
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _make_room(folder, most - math.prod(shape))
            with replacing(path) as partial:
                pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
                _reserve(partial)
                _fill(pixels, images, preprocessing, progress)
                pixels.flush()
                seal(partial)
                sync(partial)
                before, key = key, _key(images, preprocessing)
                if key != before:
                    raise _ChangedError
        except _ChangedError:
            continue
        except (ImageDecodeError, ReadError):
            raise
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}; decoded images are kept there, set FEWSHOT_CACHE to a folder with room",
                str(folder),
            ) from error
    reason = "files change while they are decoded, or decoded images do not stay as they were written"
    raise OSError(errno.EIO, reason, str(folder))


class _ChangedError(Exception):
    """A file has changed while it was decoded."""


def _limit() -> float:
    """Return the bytes that decoded images may take."""
    text = os.environ.get("FEWSHOT_CACHE_GB") or _GIGABYTES
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise ValueError(f"FEWSHOT_CACHE_GB is {text!r}; expected gigabytes, such as {_GIGABYTES}")
    return limit * 1e9


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed have left."""
    with suppress(OSError):
        for path in leftovers(folder):
            if re.match(rf"\.{_NAME}\.", path.name):
                path.unlink(missing_ok=True)


def _make_room(folder: Path, most: float) -> None:
    """Remove what has not been used for longest, until the others take at most so many bytes."""
    found = []
    for path in folder.iterdir():
        if re.fullmatch(_NAME, path.name):
            with suppress(OSError):
                found.append((path.stat(), path))
    taken = sum(status.st_size for status, _ in found)
    for status, path in sorted(found, key=lambda one: one[0].st_mtime_ns):
        if taken <= most:
            break
        with suppress(OSError):
            path.unlink()
            taken -= status.st_size


def find_unreadable(images: NDArray[Any], preprocessing: Preprocessing, progress: bool) -> list[ImageDecodeError]:
    """Return an error for each image that cannot be read; all are decoded, and nothing is kept."""

    def check(i: int) -> ImageDecodeError | None:
        try:
            preprocessing(images[i])
        except ImageDecodeError as error:
            return ImageDecodeError(error.source, error.reason, i)
        return None

    with (
        ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool,
        progress_bar(len(images), "image", show=progress, desc="checking", delay=1, leave=False) as bar,
    ):
        found = []
        for error in pool.map(check, range(len(images))):
            bar.update()
            found += [error] if error else []
    return found


def _mapped(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Return the pixels of an earlier time; None where they are not there, or not as they were written."""
    try:
        with open_regular(path) as file:
            if not seal_fits(file):
                return None
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        with suppress(OSError):
            os.utime(path)  # used now
    except (OSError, ValueError, EOFError):
        return None
    return pixels if (pixels.shape, pixels.dtype) == (shape, np.uint8) else None


def _reserve(path: Path) -> None:
    """Take the room on the disk now: a mapped file for which there is none ends the process when it is written to."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _key(paths: NDArray[Any], preprocessing: Preprocessing) -> str:
    """Name what is decoded: the content of every file, and how it becomes pixels."""

    def digest_of(i: int) -> str:
        check_readable(paths[i], i)
        return digest(paths[i])

    with _pool() as pool:
        text = json.dumps([_VERSION, preprocessing.identity(), list(pool.map(digest_of, range(len(paths))))])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, os.cpu_count() or 1))


def _fill(pixels: NDArray[np.uint8], images: NDArray[Any], preprocessing: Preprocessing, progress: bool) -> None:
    def fill(i: int) -> None:
        try:
            pixels[i] = preprocessing(images[i])
        except ImageDecodeError as error:
            raise ImageDecodeError(error.source, error.reason, i) from error

    with (
        _pool() as pool,
        progress_bar(len(images), "image", show=progress, desc="decoding", delay=1, leave=False) as bar,
    ):
        try:
            for _ in pool.map(fill, range(len(images))):
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
