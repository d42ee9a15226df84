"""A picture of which several parts are read: decoded once, and not for each of them."""

from __future__ import annotations

import math
import os
from collections import deque
from threading import Lock
from typing import Any
from weakref import ref

from PIL import Image

from fewshot.data.decode import ORIENTATION, decode
from fewshot.data.opening import describe, open_content, read_content, reading

#: Pictures that stay decoded, while parts of them are held.
KEPT = 2
#: From this orientation of EXIF on, width and height are swapped.
_TURNED = 5
_kept: deque[ref[Picture]] = deque()
_lock = Lock()


class Picture:
    """A picture that stays decoded for its next part, until other pictures are read, or nobody holds it.

    Any number of threads may read it.

    Parameters
    ----------
    path : path
        The picture.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/street.png"
    >>> Image.new("RGB", (90, 60)).save(path)
    >>> picture = Picture(path)
    >>> picture.size, picture.decoded().size
    ((90, 60), (90, 60))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._decoded: tuple[Any, Image.Image] | None = None
        self._own = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Picture, (self.path,)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture, of which no pixel is decoded.

        Raises
        ------
        ImageDecodeError
            If the picture cannot be read.
        """
        name = describe(self.path)
        with reading(name), open_content(read_content(self.path, name), name) as opened:
            width, height = opened.size
            return (height, width) if opened.getexif().get(ORIENTATION, 1) >= _TURNED else (width, height)

    def decoded(self) -> Image.Image:
        """Return the upright picture in RGB.

        Raises
        ------
        ImageDecodeError
            If the picture cannot be read.
        """
        with self._own:
            version, held = _version(self.path), self._decoded
            if held is not None and held[0] == version:
                return held[1]
            found = decode(self.path)
            self._decoded = version, found
            _keep(self)
        return found


def _version(path: str) -> Any:
    """Return what tells whether a file has changed; NaN, which is not even equal to itself, if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return math.nan
    return status.st_mtime_ns, status.st_size


def _keep(picture: Picture) -> None:
    """Let go of the picture that was decoded first, if too many are."""
    with _lock:
        _kept.append(ref(picture))
        old = _kept.popleft()() if len(_kept) > KEPT else None
    if old is not None:
        old._decoded = None
