"""What images are given as, and how they are opened: collections, paths, bytes, open files and PIL images.

Everything here is safe to call from several threads.
"""

from __future__ import annotations

import base64
import binascii
import errno
import io
import os
import stat
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image, UnidentifiedImageError

from fewshot.errors import ImageDecodeError, OutOfMemoryError, ReadError, pip_install

#: Formats that Pillow decodes itself. It passes EPS to Ghostscript, metafiles to the operating system, and the content
#: of an IPTC file to any format. Formats of other packages are trusted, since someone has registered them.
# fmt: off
RASTER = frozenset((
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "GIF", "ICNS", "ICO", "IM", "IMT",
    "JPEG", "JPEG2000", "MCIDAS", "MPO", "MSP", "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SPIDER",
    "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM", "XVTHUMB",
))
# fmt: on
#: Brands of HEIC files.
_HEVC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
#: Factors by which Pillow scales greys of fewer than 8 bits; it does not scale the transparent grey.
SPREAD = {"L;2": 85, "L;4": 17}
#: Programs that would draw other formats.
_OUTSIDE = {"EPS": "Ghostscript", "WMF": "the operating system"}
#: System errors caused by the path, or by a damaged file with invalid offsets.
_OF_THE_FILE = (
    *(errno.EACCES, errno.EBADF, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ENOTDIR, errno.EOVERFLOW, errno.EPERM, errno.ESPIPE),
)
#: Bytes per pixel: four in Pillow, three in the array, and the rest for intermediate results.
BYTES_A_PIXEL = 8
#: Additional bytes that decoders need.
_WORKSPACE = 16 << 20
_STRIPES = 64


def _make_locks() -> list[threading.Lock]:
    return [threading.Lock() for _ in range(_STRIPES)]


#: Locks of images, and of the files they are read from; always acquired in this order.
_IMAGES, _FILES = _make_locks(), _make_locks()

if hasattr(os, "register_at_fork"):

    def _renew_locks() -> None:
        """Replace locks that threads of the parent may hold, since the child does not have these threads."""
        _IMAGES[:], _FILES[:] = _make_locks(), _make_locks()

    os.register_at_fork(after_in_child=_renew_locks)


@contextmanager
def held(image: Image.Image) -> Iterator[None]:
    """Keep other threads from decoding the same image, or another image of the same open file.

    Pillow decodes an opened image at first use, which is not thread-safe.
    """
    with _IMAGES[(id(image) >> 4) % _STRIPES]:
        file = getattr(image, "fp", None)
        if file is None:
            yield
        else:
            with _FILES[(id(file) >> 4) % _STRIPES]:
                yield


def decode_pixels(image: Any, name: str = "") -> None:
    """Decode an opened image. If decoding fails, it fails again the next time.

    Raises
    ------
    ImageDecodeError
        If another program would decode the image.
    MemoryError
        If there is too little memory, even if the decoder reports damage.
    """
    before = getattr(image, "fp", None), getattr(image, "tile", None)
    if before[1] and image.format and not is_decoded_here(image.format):
        raise ImageDecodeError(name, refusal(image.format))
    try:
        image.load()
    except Exception:
        if before[1]:  # otherwise Pillow considers the damaged image decoded
            image.fp, image.tile = before
        # Some decoders (JPEG, WebP, ...) report a lack of memory as damage, so test whether there is enough.
        np.empty(BYTES_A_PIXEL * image.width * image.height + _WORKSPACE, np.uint8)
        raise


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Translate any error raised while an image is read.

    Raises
    ------
    ImageDecodeError
        If the image is to blame.
    OutOfMemoryError, ReadError
        If the image may be intact.
    """
    try:
        yield
    except (ImageDecodeError, ReadError, OutOfMemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageDecodeError(name, str(error)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageDecodeError(name, f"it is too large to be opened safely ({error})") from None
    except Warning:  # the user has turned warnings into errors
        raise
    except Exception as error:
        raise _translated(error, name) from error


@contextmanager
def at_index(index: int) -> Iterator[None]:
    """Add the index of an image to the `ImageDecodeError` raised inside the block."""
    try:
        yield
    except ImageDecodeError as error:
        raise ImageDecodeError(error.source, error.reason, index) from error.__cause__


def _translated(error: Exception, name: str, index: int | None = None) -> Exception:
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or "out of memory" in str(error):
        return OutOfMemoryError(name, index)
    interrupted = isinstance(error, (TimeoutError, ConnectionError, InterruptedError, BlockingIOError))
    # Pillow's own OSErrors have no number.
    if interrupted or (isinstance(error, OSError) and number is not None and number not in _OF_THE_FILE):
        return ReadError(name, getattr(error, "strerror", None) or str(error) or type(error).__name__, number, index)
    # Pillow's decoders report damage as RuntimeError, TypeError, struct.error and many others.
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    cure = "; part of the file is missing: copy it again from where it came" if "truncated" in reason.lower() else ""
    return ImageDecodeError(name, f"cannot be decoded: {reason}{cure}", index)


def as_sequence(X: Any, name: str = "X") -> Sequence[Any]:
    """Return a collection of images as a sequence of sources for `decode`.

    Parameters
    ----------
    X : collection of images
        A list, tuple, array or Series of paths, bytes, open files, PIL images, arrays or tensors; an array (n, h, w) or
        (n, h, w, c); a tensor (n, c, h, w); a data frame with one column.
    name : str, default="X"
        Name of the collection in messages.

    Raises
    ------
    TypeError
        If X is a single image, or not a collection of images.
    """
    verb = "are" if name.endswith("s") else "is"
    if isinstance(X, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, io.IOBase)) or is_file(X):
        raise TypeError(f"{name} {verb} one image ({type(X).__name__}); pass a list of images, e.g. [image]")
    X = _column(X, name)
    shape = getattr(X, "shape", None)
    if shape is None or len(shape) == 1:
        return _listed(X, name)
    colour_last = len(shape) == 3 and shape[-1] in (3, 4)
    colour_first = len(shape) == 3 and hasattr(X, "detach") and shape[0] in (1, 3, 4)
    if len(shape) not in (3, 4) or colour_last or colour_first:
        have = "have" if verb == "are" else "has"
        raise TypeError(
            f"{name} {have} shape {tuple(shape)}; expected images (n, h, w) or (n, h, w, c); for a single image pass "
            "[image]"
        )
    return X


def as_rows(X: Any) -> Sequence[Any]:
    """Return a collection of items of any kind as a sequence, with one item per row of an array.

    Parameters
    ----------
    X : collection
        A list, tuple, array, tensor, Series or data frame. The items of a data frame with a single column that is not
        numeric are its values.

    Raises
    ------
    TypeError
        If X is a single item, or has no length.
    """
    if isinstance(X, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)) or is_file(X):
        raise TypeError(f"X is one item ({type(X).__name__}); pass a list of items, e.g. [item]")
    if hasattr(X, "tocsr"):
        raise TypeError("X is a sparse matrix; pass X.toarray(), or shorten it first, e.g. with TruncatedSVD")
    if hasattr(X, "columns") and hasattr(X, "to_numpy"):
        values = X.to_numpy()
        return list(values[:, 0]) if values.shape[1] == 1 and values.dtype.kind not in "biuf" else values
    shape = getattr(X, "shape", None)
    if shape is None or len(shape) == 1:
        return _listed(X, "X")
    if len(shape) == 0:
        raise TypeError("X is a single value; pass a list of items, e.g. [item]")
    return X


def _column(X: Any, name: str) -> Any:
    """Return the only column of a table; return anything else unchanged."""
    columns = getattr(X, "columns", None)
    if columns is not None:
        if len(columns) != 1:
            raise TypeError(f"{name} is a data frame; pass its column of images, e.g. frame['path']")
        return X[columns[0]] if isinstance(columns[0], str) else X.iloc[:, 0]
    is_column = len(getattr(X, "shape", ())) == 2 and X.shape[1] == 1
    return X[:, 0] if is_column and getattr(X.dtype, "kind", "") in ("O", "U", "S", "T") else X


def _listed(X: Any, name: str) -> Sequence[Any]:
    verb = "are a" if name.endswith("s") else "is a"
    if not hasattr(X, "__len__") or isinstance(X, (Mapping, Set)):
        hint = f"; pass list({name})" if hasattr(X, "__iter__") and not isinstance(X, (Mapping, Set)) else ""
        raise TypeError(f"{name} {verb} {type(X).__name__}; expected a list or an array of items{hint}")
    if hasattr(X, "to_pylist"):  # pyarrow
        return X.to_pylist()
    return list(X) if hasattr(X, "iloc") else X


def describe(source: Any) -> str:
    """Return the name of an image for messages: its path, or else its kind."""
    if is_data_url(source):
        return f"<data URL of {len(source)} characters>"
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    for filename in (getattr(source, "filename", ""), getattr(source, "name", "") if is_file(source) else ""):
        if isinstance(filename, str) and filename:
            return filename
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if hasattr(source, "shape"):
        return f"<{type(source).__name__} of shape {tuple(source.shape)}>"
    return f"<{type(source).__name__}>"


def is_name(described: str) -> bool:
    """Whether `describe` returned a name rather than a kind."""
    return not (described.startswith("<") and described.endswith(">"))


def is_data_url(source: Any) -> bool:
    """Whether a source is a data URL, which contains the image itself."""
    return isinstance(source, str) and source[:5].lower() == "data:" and "," in source


def is_file(source: Any) -> bool:
    """Whether a source is an open file, such as the result of `open`, an `io.BytesIO` or an upload."""
    return callable(getattr(source, "read", None)) and not isinstance(source, os.PathLike)


def check_readable(path: str | os.PathLike[str], index: int | None = None) -> None:
    """Raise unless a path is a readable regular file; the file is not read.

    Raises
    ------
    ImageDecodeError
        If the path does not exist, is a folder or a device, or is not readable.
    ReadError
        If a system error prevents the check.
    """
    name = os.fspath(path)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, OSError) and not isinstance(found := _translated(error, name, index), ImageDecodeError):
            raise found from error
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        cure = "; to pass an image as text, write data:image/png;base64,..." if len(name) > 1000 else ""
        raise ImageDecodeError(name, reason + cure, index) from None
    if stat.S_ISDIR(mode):
        raise ImageDecodeError(name, "this is a folder; name the images in it", index)
    if not stat.S_ISREG(mode):
        raise ImageDecodeError(name, "this is not a regular file", index)
    if not os.access(path, os.R_OK):
        raise ImageDecodeError(name, "permission denied", index)


def read_content(source: Any, name: str) -> bytes:
    """Return the bytes of an image file from its path, a data URL, bytes or an open file.

    An open file is read from its start, and its position is restored, so that it can occur in a list twice.

    Raises
    ------
    ImageDecodeError
        If the path does not exist, or the open file is closed, cannot be rewound, or is open as text.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if is_data_url(source):
        return _read_data_url(source, name)
    if is_file(source):
        return _read_file(source, name)
    check_readable(source)
    return Path(source).read_bytes()  # leaves no open file behind


def _read_data_url(url: str, name: str) -> bytes:
    header, _, body = url.partition(",")
    content = unquote_to_bytes(body)
    if not header.lower().endswith(";base64"):
        return content
    try:
        return base64.b64decode(b"".join(content.split()), validate=True)
    except binascii.Error as error:
        raise ImageDecodeError(name, f"its base64 text is damaged ({error})") from None


def _read_file(file: Any, name: str) -> bytes:
    if isinstance(file, io.TextIOBase):
        raise ImageDecodeError(name, "the file is open as text; open it with mode 'rb'")
    with _FILES[(id(file) >> 4) % _STRIPES]:
        if getattr(file, "closed", False):
            raise ImageDecodeError(name, "the file is closed; pass it while it is open, or pass its path or bytes")
        try:
            place = file.tell()
            file.seek(0)
        except (AttributeError, io.UnsupportedOperation):
            raise ImageDecodeError(name, "this stream cannot be rewound; pass its bytes (stream.read())") from None
        try:
            content = file.read()
        finally:
            file.seek(place)
    if not isinstance(content, (bytes, bytearray)):
        raise ImageDecodeError(name, f"its read() returns a {type(content).__name__}; pass the bytes themselves")
    return bytes(content)


@cache
def register_heif() -> None:
    """Let Pillow open HEIC, the photographs of many phones, if the package of the extra ``heif`` is installed."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener(thumbnails=False)


def open_content(content: bytes, name: str) -> Image.Image:
    """Open an image from the bytes of a file, without decoding it.

    Unlike `Image.open`, this does not apply Pillow's process-wide size limit.

    Raises
    ------
    ImageDecodeError
        If the file is empty, or Pillow would pass its format to another program.
    PIL.UnidentifiedImageError
        If Pillow does not know the format.
    """
    if not content:
        raise ImageDecodeError(name, "the file is empty")
    register_heif()
    head, tried, hints = content[:16], set(), []
    for prepare in (Image.preinit, Image.init):  # a few common formats, then all
        prepare()
        for kind in [kind for kind in Image.ID if kind not in tried and is_decoded_here(kind)]:
            tried.add(kind)
            factory, accepts = Image.OPEN[kind]
            try:
                accepted = accepts is None or accepts(head)
                if isinstance(accepted, str):
                    hints.append(accepted)
                elif accepted:
                    return factory(io.BytesIO(content), "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # not this format
                continue
    for kind, (_, accepts) in list(Image.OPEN.items()):
        if kind not in tried and accepts is not None and accepts(head) is True:
            raise ImageDecodeError(name, refusal(kind))
    hint = f" ({hints[-1]})" if hints else _look_inside(content[:64])
    if is_heif(content[:64]) and "HEIF" not in Image.OPEN:
        hint = f" without the package for HEIC; {pip_install('heif')}, or convert it to JPEG or PNG"
    raise UnidentifiedImageError(f"this is not an image that Pillow knows{hint}")


def raw_mode(image: Image.Image) -> str:
    """Return the raw mode of an image, which is the layout in its file; empty once it is decoded."""
    tiles = getattr(image, "tile", None)
    arguments: Any = tiles[0][3] if tiles else ""
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""


def is_deep(image: Image.Image) -> bool:
    """Whether an image has 16-bit values; for colours this is known only before decoding."""
    return image.mode[0] == "I" or ";16" in raw_mode(image)


def is_known_before_decoding(image: Image.Image) -> bool:
    """Whether decoding would lose information about an opened image, so that a copy must be decoded."""
    return bool(raw_mode(image)) and (is_deep(image) or raw_mode(image) in SPREAD)


def is_decoded_here(kind: str) -> bool:
    """Whether Pillow or a registered package decodes a format in this process."""
    factory = Image.OPEN[kind][0] if kind in Image.OPEN else None
    return kind in RASTER or not getattr(factory, "__module__", "PIL.").startswith("PIL.")


def refusal(kind: str) -> str:
    """Return the message for a refused format."""
    drawn = f", which would be drawn by {_OUTSIDE[kind]}" if kind in _OUTSIDE else ", which holds no pixels of its own"
    return f"this is a file in the {kind} format{drawn}; convert it to PNG"


def is_heif(head: bytes) -> bool:
    """Whether a file begins as HEIC does: its brand, or one of those it is compatible with, is that of HEVC."""
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(len(head), int.from_bytes(head[:4])), 4))}
    return head[4:8] == b"ftyp" and not brands.isdisjoint(_HEVC)


def _look_inside(head: bytes) -> str:
    """Describe a file that is not an image by its first bytes, since error pages are often saved as pictures."""
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html", b"<?xml"):
        return " but an HTML or XML page"
    if head.startswith(b"PK\x03\x04"):
        return " but a zip archive or a document of Word and the like; save its pictures as JPEG or PNG"
    if head.startswith(b"%PDF-"):
        return " but a PDF; save its pages as JPEG or PNG"
    return " but text" if head.isascii() and head[:16].decode("ascii").isprintable() else ""


def check_paths(items: Sequence[Any]) -> Iterator[ImageDecodeError]:
    """Yield an error for each path among `items` that is not a readable file; nothing is decoded."""
    for i, item in enumerate(items):
        if isinstance(item, (str, os.PathLike)) and not is_data_url(item):
            try:
                check_readable(item, i)
            except ImageDecodeError as error:
                yield error
