"""Cache embeddings on disk by image content, so that no image is embedded twice."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot.data.decode import ORIENTATION
from fewshot.data.depth import file_content
from fewshot.data.opening import (
    decode_pixels,
    describe,
    held,
    is_data_url,
    is_file,
    is_known_before_decoding,
    read_content,
)
from fewshot.data.preprocess import default_jobs
from fewshot.embedding.network import Embedded
from fewshot.errors import ImageDecodeError, OutOfMemoryError
from fewshot.utils.containers import to_numpy
from fewshot.utils.warning import warn

_log = logging.getLogger(__name__)
#: Part of the file name; bump when the embedding of an image changes.
VERSION = 3
#: Keys per query, and seconds to wait for another process that is writing.
_CHUNK, _PATIENCE = 500, 60.0
Row = tuple[NDArray[np.float32], bytes]


class EmbeddingCache:
    """Embeddings and thumbnails in one SQLite file per network, which any number of processes may share.

    Parameters
    ----------
    folder : path
        Created if needed.
    fingerprint : str
        SHA-256 of network and preprocessing; see `Embedder`.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self.path = Path(folder) / f"embeddings-{VERSION}-{fingerprint[:32]}.sqlite"

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Row]:
        """Return the embedding and thumbnail (empty if none was made) of each key with an intact entry."""
        wanted = list(dict.fromkeys(keys))
        parts = [wanted[start : start + _CHUNK] for start in range(0, len(wanted), _CHUNK)]
        rows = self._try("read", lambda base: [row for part in parts for row in _select(base, part)]) or []
        # An image whose entry is damaged is embedded again; a flipped bit can also change the type of a value.
        return {
            key: (np.frombuffer(vector, np.float32), picture)
            for key, vector, picture, checksum in rows
            if isinstance(vector, bytes) and isinstance(picture, bytes) and checksum == _checksum(key, vector, picture)
        }

    def put(self, rows: dict[bytes, Row]) -> None:
        """Store embeddings in one transaction, replacing existing ones."""
        values = [(key, vector.tobytes(), picture) for key, (vector, picture) in rows.items()]
        if values:
            insert = "INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?)"
            self._try("written", lambda base: base.executemany(insert, [(*row, _checksum(*row)) for row in values]))

    def _try(self, what: str, use: Callable[[sqlite3.Connection], Any]) -> Any:
        """Use the database; if that fails, warn and continue, since a cache holds nothing of value."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._use(use)
            except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # sqlite3 may fail to decode a damaged name
                # SQLite waits for other processes, but not when it sets the mode of a new file.
                if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY and time.monotonic() < end:
                    time.sleep(0.01)
                    continue
                failed = f"the cache {self.path} cannot be {what} ({error})"
                warn(f"{failed}; continuing without it; delete it to start afresh")
                return None

    def _use(self, use: Callable[[sqlite3.Connection], Any]) -> Any:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as base, base:  # the second one commits
            base.text_factory = bytes  # damaged text may not be UTF-8
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=NORMAL")
            base.execute(
                "CREATE TABLE IF NOT EXISTS embeddings "
                "(key BLOB PRIMARY KEY, vector BLOB NOT NULL, picture BLOB NOT NULL, checksum BLOB NOT NULL)"
            )
            return use(base)


def _select(base: sqlite3.Connection, keys: Sequence[bytes]) -> Iterable[tuple[bytes, bytes, bytes, bytes]]:
    marks = ", ".join("?" * len(keys))
    return base.execute(f"SELECT key, vector, picture, checksum FROM embeddings WHERE key IN ({marks})", keys)


Draw = Callable[[Sequence[Any]], list[bytes]]


def embed_through(
    cache: EmbeddingCache, items: Sequence[Any], embed: Callable[..., Embedded], draw: Draw | None, n_jobs: int | None
) -> Embedded:
    """Return the result of ``embed(items)``, but call it only for images that are not in the cache, once each.

    Each chunk is stored as soon as it is embedded, so an interruption loses at most one chunk.

    Parameters
    ----------
    cache : EmbeddingCache
        The cache.
    items : sequence of n images
        As returned by `as_items`.
    embed : callable
        ``embed(items, keep=keep)`` calls ``keep(start, embedded)`` for each chunk.
    draw : callable or None
        ``draw(items)`` makes thumbnails of images that were cached without one; None if none are wanted.
    n_jobs : int or None
        Threads for reading files.
    """
    with ThreadPoolExecutor(default_jobs(n_jobs)) as pool:
        keys = [i if key is None else key for i, key in enumerate(pool.map(content_key, items))]
    item_of: dict[Any, Any] = {}
    for key, item in zip(keys, items, strict=True):
        item_of.setdefault(key, item)
    rows: dict[Any, Row] = dict(cache.get(key for key in item_of if isinstance(key, bytes)))
    _log.info("%d of %d images are in the cache %s", len(rows), len(item_of), cache.path)
    if draw is not None:
        bare = [key for key, (_, picture) in rows.items() if not picture]
        pictures = draw([item_of[key] for key in bare]) if bare else []
        drawn = {key: (rows[key][0], picture) for key, picture in zip(bare, pictures, strict=True)}
        cache.put(drawn)
        rows |= drawn
    new, errors = [key for key in item_of if key not in rows], {}

    def keep(start: int, part: Embedded) -> None:
        errors.update({new[error.index or 0]: error for error in part.errors})
        made = _rows(new[start : start + len(part.embeddings)], part)
        cache.put({key: row for key, row in made.items() if isinstance(key, bytes) and key not in errors})

    fresh = embed([item_of[key] for key in new], keep=keep)
    rows |= _rows(new, fresh)
    return Embedded(
        np.stack([rows[key][0] for key in keys]) if keys else fresh.embeddings,
        [ImageDecodeError(errors[k].source, errors[k].reason, i) for i, k in enumerate(keys) if k in errors],
        [] if draw is None else [rows[key][1] for key in keys],
    )


def _rows(keys: Sequence[Any], embedded: Embedded) -> dict[Any, Row]:
    thumbnails = embedded.thumbnails or [b""] * len(keys)
    return dict(zip(keys, zip(embedded.embeddings, thumbnails, strict=True), strict=True))


def content_key(item: Any) -> bytes | None:
    """Return the SHA-256 of an image's content, whatever its name; None if it cannot be read.

    Examples
    --------
    >>> content_key(np.zeros((2, 2), np.uint8)) == content_key(np.zeros((4, 1), np.uint8))
    False
    """
    found = hashlib.sha256()
    try:
        if isinstance(item, Image.Image):
            return _key_of_pil(item)
        if is_data_url(item) or is_file(item):
            item = read_content(item, "")
        if isinstance(item, (str, os.PathLike)):
            if not Path(item).is_file():
                return None
            with Path(item).open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        if isinstance(item, (bytes, bytearray, memoryview)):
            return hashlib.sha256(item).digest()
        tensor = "tensor" if hasattr(item, "detach") else "array"  # channels first or last
        array = np.asarray(to_numpy(item))
        found.update(f"{tensor} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    except MemoryError as error:
        raise OutOfMemoryError(describe(item)) from error
    except Exception:  # Pillow's formats and the caller's files may raise anything; decoding reports what is wrong
        return None
    return None if array.dtype.kind not in "biuf" else found.digest()


def _key_of_pil(image: Image.Image) -> bytes:
    found = hashlib.sha256()
    with held(image):
        if getattr(image, "fp", None) is not None and is_known_before_decoding(image):
            opened = image.mode, image.size, image.tell(), getattr(image, "tile", None)
            found.update(f"file {opened!r}\n".encode())
            found.update(file_content(image))
            return found.digest()
        decode_pixels(image)
        described = image.mode, image.size, image.info.get("transparency"), image.getexif().get(ORIENTATION)
        palette = image.palette.tobytes() if image.palette is not None else b""
        found.update(f"PIL {described!r}\n".encode() + palette + image.tobytes())
    return found.digest()


def _checksum(key: bytes, vector: bytes, picture: bytes) -> bytes:
    return hashlib.blake2b(key + vector + picture, digest_size=8).digest()
