"""Cache decoded pixels on disk by file content, verified and memory-mapped."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.decode import decode
from fewshot.data.opening import at_index, check_readable, describe, is_data_url, is_file, read_content
from fewshot.data.preprocess import Decoded, Preprocessing, default_jobs, prepared_chunks
from fewshot.errors import ImageDecodeError, ReadError, called
from fewshot.persistence.files import digest, leftovers, open_regular, replacing, sync
from fewshot.persistence.sealed import seal, seal_fits
from fewshot.utils.progress import progress_bar
from fewshot.utils.text import counted, listed
from fewshot.utils.warning import warn

_log = logging.getLogger(__name__)
#: Part of every key; bump when the same file decodes to different pixels.
_VERSION = 3
#: Names of cache files, and the default of ``FEWSHOT_CACHE_GB``.
_NAME, _GIGABYTES = r"[0-9a-f]{32}\.npy", "20"
#: Images that are decoded before the first of them is used.
_CHUNK = 64
#: Attempts to decode files that change in the meantime.
_ATTEMPTS = 3


def cache_folder(folder: str | Path | None = None) -> Path:
    """Return the cache folder: `folder`, ``$FEWSHOT_CACHE``, or ``~/.cache/fewshot``."""
    if folder is not None:
        return Path(folder)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FEWSHOT_CACHE") or Path(home) / "fewshot")


def decode_all(
    images: NDArray[Any], preprocessing: Preprocessing, cache: str | Path | None, progress: bool
) -> NDArray[np.uint8]:
    """Return the pixels (n, h, w) or (n, h, w, 3) of images; those of files are cached.

    In addition to the newest pixels, the cache holds at most ``$FEWSHOT_CACHE_GB`` gigabytes, 20 by default. The least
    recently used ones are removed.

    Parameters
    ----------
    images : array of n paths, or uint8 array (n, H, W) or (n, H, W, C)
        Only pixels of files are cached.
    preprocessing : Preprocessing
        Size and channels of the result.
    cache : path or None
        See `cache_folder`.
    progress : bool
        Whether to show a progress bar.

    Raises
    ------
    ImageDecodeError
        If an image cannot be read; nothing is cached.
    """
    shape = (len(images), preprocessing.height, preprocessing.width, *([3] if preprocessing.channels == 3 else []))
    if images.dtype == np.uint8:
        if images.shape == shape and preprocessing.crop_pct == 1:
            return images
        pixels = np.empty(shape, np.uint8)
        _fill(pixels, images, preprocessing, progress)
        return pixels
    folder, limit = cache_folder(cache), _limit()
    _sweep(folder)
    key = _key(images, preprocessing)
    for _ in range(_ATTEMPTS):
        if (mapped := _mapped(folder / f"{key}.npy", shape)) is not None:
            _log.info("the pixels of %d images are in %s", len(images), folder / f"{key}.npy")
            return mapped
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _make_room(folder, limit - math.prod(shape))
            key = _store(folder / f"{key}.npy", images, preprocessing, shape, progress)
        except ReadError:
            raise
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}; decoded images are cached there; set FEWSHOT_CACHE to a folder with enough space",
                str(folder),
            ) from error
    reason = "files keep changing while they are decoded, or the disk does not keep what was written"
    raise OSError(errno.EIO, reason, str(folder))


class _ChangedError(Exception):
    """A file changed while it was decoded."""


def _store(
    path: Path, images: NDArray[Any], preprocessing: Preprocessing, shape: tuple[int, ...], progress: bool
) -> str:
    """Decode images to a cache file and return their key; if files changed meanwhile, it is new and nothing is kept."""
    key = path.stem
    with suppress(_ChangedError), replacing(path) as partial:
        pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        _reserve(partial)
        _fill(pixels, images, preprocessing, progress)
        pixels.flush()
        seal(partial)
        sync(partial)
        if (key := _key(images, preprocessing)) != path.stem:
            raise _ChangedError
    return key


def _limit() -> float:
    """Return the size limit of the cache in bytes."""
    text = os.environ.get("FEWSHOT_CACHE_GB") or _GIGABYTES
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise ValueError(f"FEWSHOT_CACHE_GB is {text!r}; expected gigabytes, such as {_GIGABYTES}")
    return limit * 1e9


def _sweep(folder: Path) -> None:
    """Remove temporary files of killed processes."""
    with suppress(OSError):
        for path in leftovers(folder):
            if re.match(rf"\.{_NAME}\.", path.name):
                path.unlink(missing_ok=True)


def _make_room(folder: Path, most: float) -> None:
    """Remove the least recently used pixels until the rest takes at most `most` bytes."""
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
    """Decode all images and return an error for each that cannot be read."""
    return [error for *_, error in _each(images, preprocessing, "checking", progress) if error is not None]


def warn_of_unreadable(errors: list[ImageDecodeError], n: int) -> None:
    """Warn of those of `n` images that could not be read: of the first its error, of others their names."""
    if errors:
        names = [called(error.source) for error in errors[1:]]
        others = f"; {'also' if len(names) == 1 else 'the others'}: {listed(names, 5)}" if names else ""
        warn(f"{len(errors)} of {counted(n, 'image')} could not be read, first {errors[0]}{others}")


def _mapped(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Return cached pixels, memory-mapped; None if they are missing or damaged."""
    try:
        with open_regular(path) as file:
            if not seal_fits(file):
                return None
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        with suppress(OSError):
            os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if (pixels.shape, pixels.dtype) == (shape, np.uint8) else None


def _reserve(path: Path) -> None:
    """Reserve disk space, since writing to a mapped file on a full disk kills the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _key(images: NDArray[Any], preprocessing: Preprocessing) -> str:
    """Return the cache key of the contents of files and other sources, and the preprocessing."""

    def digest_of(i: int) -> str:
        image = images[i]
        if isinstance(image, str) and not is_data_url(image):
            check_readable(image, i)
            return digest(image)
        with at_index(i):
            if isinstance(image, (str, bytes, bytearray)) or is_file(image):
                return hashlib.sha256(read_content(image, describe(image))).hexdigest()
            pixels = np.asarray(decode(image, max_pixels=preprocessing.max_pixels, bits=preprocessing.bits))
        return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()

    with ThreadPoolExecutor(default_jobs(None)) as pool:
        text = json.dumps([_VERSION, preprocessing.identity(), list(pool.map(digest_of, range(len(images))))])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _fill(pixels: NDArray[np.uint8], images: NDArray[Any], preprocessing: Preprocessing, progress: bool) -> None:
    with closing(_each(images, preprocessing, "decoding", progress)) as found:
        for i, (decoded, _, error) in enumerate(found):
            if error is not None:
                raise error
            pixels[i] = decoded


def _each(images: NDArray[Any], preprocessing: Preprocessing, desc: str, progress: bool) -> Generator[Decoded]:
    """Yield the pixels of each image, or its error."""
    with progress_bar(len(images), "image", show=progress, desc=desc, leave=False) as bar:
        for chunk in prepared_chunks(images, preprocessing, _CHUNK, ahead=2):
            yield from chunk
            bar.update(len(chunk))
