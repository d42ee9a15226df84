"""Embeddings kept on disk by the content of their images, so that no image is embedded twice."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot.data.decode import ORIENTATION
from fewshot.data.depth import file_content, is_known_before_decoding
from fewshot.data.opening import decode_pixels, describe, held, is_data_url, is_file, read_content
from fewshot.embedding.batches import Embedded, default_jobs
from fewshot.errors import ImageDecodeError, OutOfMemoryError
from fewshot.utils.containers import to_numpy
from fewshot.utils.warning import warn

#: Part of every file's name: raised when the same image would be embedded otherwise.
VERSION = 3
#: Keys that one question to the database may name, and seconds that one process waits for another to write.
_CHUNK, _PATIENCE = 500, 60.0
Row = tuple[NDArray[np.float32], bytes]


class EmbeddingCache:
    """Embeddings and small pictures in one SQLite file for each network; any number of processes may share it.

    Parameters
    ----------
    folder : path
        Made if needed.
    fingerprint : str
        Of network and preprocessing, see `Embedder`.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self.path = Path(folder) / f"embeddings-{VERSION}-{fingerprint[:32]}.sqlite"

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Row]:
        """Return embedding and picture (empty if none was made) of each key that is there and whole."""
        wanted = list(dict.fromkeys(keys))
        parts = [wanted[start : start + _CHUNK] for start in range(0, len(wanted), _CHUNK)]
        rows = self._try("read", lambda base: [row for part in parts for row in _select(base, part)]) or []
        # Where a bit has flipped the image is embedded again; the type of a value is in such a bit as well.
        return {
            key: (np.frombuffer(vector, np.float32), picture)
            for key, vector, picture, checksum in rows
            if isinstance(vector, bytes) and isinstance(picture, bytes) and checksum == _checksum(key, vector, picture)
        }

    def put(self, rows: dict[bytes, Row]) -> None:
        """Keep embeddings, all of them or none; those that are there are replaced."""
        values = [(key, vector.tobytes(), picture) for key, (vector, picture) in rows.items()]
        if values:
            insert = "INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?)"
            self._try("written", lambda base: base.executemany(insert, [(*row, _checksum(*row)) for row in values]))

    def _try(self, what: str, use: Callable[[sqlite3.Connection], Any]) -> Any:
        """Use the database; where it cannot be used, say so and go on without: a cache holds nothing of value."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as base, base:  # the second commits
                base.text_factory = bytes  # what a flipped bit has made text may not be UTF-8
                base.execute("PRAGMA journal_mode=WAL")
                base.execute("PRAGMA synchronous=NORMAL")
                base.execute(
                    "CREATE TABLE IF NOT EXISTS embeddings "
                    "(key BLOB PRIMARY KEY, vector BLOB NOT NULL, picture BLOB NOT NULL, checksum BLOB NOT NULL)"
                )
                return use(base)
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # the last of an error about a damaged name
            warn(f"the cache {self.path} cannot be {what} ({error}); going on without, delete it to begin a new one")
            return None


def _select(base: sqlite3.Connection, keys: Sequence[bytes]) -> Iterable[tuple[bytes, bytes, bytes, bytes]]:
    marks = ", ".join("?" * len(keys))
    return base.execute(f"SELECT key, vector, picture, checksum FROM embeddings WHERE key IN ({marks})", keys)


#: Embeds images, and gives each chunk away as soon as it is there; draws images without embedding them.
Embed = Callable[[Sequence[Any], Callable[[int, Embedded], object]], Embedded]
Draw = Callable[[Sequence[Any]], list[bytes]]


def embed_through(
    cache: EmbeddingCache, items: Sequence[Any], embed: Embed, draw: Draw | None, n_jobs: int | None
) -> Embedded:
    """Return what `embed` would, which is asked only for images whose embedding is not in the cache, each once.

    Each chunk is kept as soon as it is embedded: whoever interrupts this, or is interrupted, loses one chunk at most.

    Parameters
    ----------
    cache : EmbeddingCache
        Where embeddings are looked up and kept.
    items : sequence of n images
        As `as_items` returns them.
    embed : callable
        ``embed(items, keep)`` calls ``keep(first, embedded)`` for each chunk.
    draw : callable or None
        ``draw(items)`` makes the small pictures of images whose embeddings were kept without one; None if no pictures
        are wanted.
    n_jobs : int or None
        Threads that read files.
    """
    with ThreadPoolExecutor(default_jobs(n_jobs)) as pool:
        keys = list(pool.map(content_key, items))
    rows = cache.get(key for key in keys if key is not None)
    first: dict[Any, int] = {}  # the place of each image that is to be embedded, by its key
    for i, key in enumerate(keys):
        if key is None or key not in rows:
            first.setdefault(i if key is None else key, i)
    names, reasons = list(first), {}

    def keep(start: int, part: Embedded) -> None:
        """Put a chunk into the cache."""
        own = names[start : start + len(part.embeddings)]
        unread = {names[error.index or 0]: error for error in part.errors}
        reasons.update(unread)
        made = zip(own, part.embeddings, part.thumbnails or [b""] * len(own), strict=True)
        cache.put({name: (x, picture) for name, x, picture in made if isinstance(name, bytes) and name not in unread})

    fresh = embed([items[i] for i in first.values()], keep)
    made = dict(zip(first, zip(fresh.embeddings, fresh.thumbnails or [b""] * len(first), strict=True), strict=True))
    if draw is not None:
        rows |= _drawn(cache, rows, dict(zip(keys, items, strict=True)), draw)
    embeddings = np.empty((len(items), fresh.embeddings.shape[1]), np.float32)
    errors, shown = [], []
    for i, key in enumerate(keys):
        name = i if key is None else key
        embeddings[i], picture = rows[key] if key in rows else made[name]
        shown.append(picture)
        if name in reasons:
            errors.append(ImageDecodeError(reasons[name].source, reasons[name].reason, i))
    return Embedded(embeddings, errors, [] if draw is None else shown)


def _drawn(
    cache: EmbeddingCache, rows: dict[bytes, Row], item_of: dict[bytes | None, Any], draw: Draw
) -> dict[bytes, Row]:
    """Return rows with the pictures that they were kept without."""
    bare = [key for key, (_, picture) in rows.items() if not picture]
    pictures = draw([item_of[key] for key in bare]) if bare else []
    drawn = {key: (rows[key][0], picture) for key, picture in zip(bare, pictures, strict=True)}
    cache.put(drawn)
    return drawn


def content_key(item: Any) -> bytes | None:
    """Return the SHA-256 of what an image holds, whatever it is called; None where that cannot be read.

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
        tensor = "tensor" if hasattr(item, "detach") else "array"  # channels come first in one, last in the other
        array = np.asarray(to_numpy(item))
        found.update(f"{tensor} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    except MemoryError as error:
        raise OutOfMemoryError(describe(item)) from error
    except Exception:  # of Pillow's formats and of the caller's files: whoever decodes it says what is wrong
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
        told = image.mode, image.size, image.info.get("transparency"), image.getexif().get(ORIENTATION)
        palette = image.palette.tobytes() if image.palette is not None else b""
        found.update(f"PIL {told!r}\n".encode() + palette + image.tobytes())
    return found.digest()


def _checksum(key: bytes, vector: bytes, picture: bytes) -> bytes:
    return hashlib.blake2b(key + vector + picture, digest_size=8).digest()
