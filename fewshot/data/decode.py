"""From whatever holds an image to 8-bit pixels, with every mode answered: none saturates, turns black or turns over."""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fewshot.errors import ImageDecodeError

#: Images of more pixels are refused before they are unpacked; Pillow's own limit for a warning.
MAX_PIXELS = 89_478_485
#: The EXIF tag of how an image is turned.
ORIENTATION = 0x0112
#: What lies under transparent pixels.
BACKGROUND = (255, 255, 255)
#: Axes that can hold channels: grey, grey and alpha, colour, colour and alpha.
_CHANNELS = (1, 2, 3, 4)


def decode(source: Any, *, background: tuple[int, int, int] = BACKGROUND, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return an image as an RGB image of 8 bits, upright.

    Parameters
    ----------
    source : path, bytes, PIL image, array or tensor
        Arrays: uint8 or uint16 (h, w) or (h, w, c), floats in 0..1 likewise. Tensors: (h, w) or (c, h, w), uint8 or
        floats in 0..1. Colours are red, green, blue; blue first (OpenCV) cannot be told apart, so turn it round.
    background : tuple of int, default=(255, 255, 255)
        Colour under transparent pixels.
    max_pixels : int, default=89478485
        Larger images are refused before they are unpacked.

    Returns
    -------
    PIL.Image.Image
        Of mode RGB. EXIF orientation is applied; 16-bit greys are scaled to 8 bits, floats in 0..1 to 0..255; of an
        animation or a file of several pages it is the first frame, with a warning. CMYK is converted without a
        colour profile.

    Raises
    ------
    ImageDecodeError
        If it cannot be read: no such file, empty, damaged, truncated, no image, too large, or numbers whose meaning
        would have to be guessed. What cannot be noticed is damage that still decodes, as in most of a JPEG file.
    TypeError
        If `source` is nothing that holds an image.

    Examples
    --------
    >>> import numpy as np
    >>> decode(np.zeros((4, 6, 3), np.uint8)).size
    (6, 4)
    """
    name = describe(source)
    if not _may_hold_an_image(source):
        raise TypeError(
            f"an image is given as {type(source).__name__}; expected a path, bytes, a PIL image, an array or a tensor"
        )
    try:
        image = _open(source, name)
        width, height = image.size
        if not width or not height:
            raise ImageDecodeError(name, f"it has {width} x {height} pixels, so there is nothing to see")
        if width * height > max_pixels:
            raise ImageDecodeError(
                name,
                f"it has {width} x {height} pixels, above the limit of {max_pixels}; shrink it, or raise the limit",
            )
        # MPO is what phones call a JPEG with a preview behind it: one picture.
        # Of a PIL image it is the frame that it shows.
        several = image is not source and image.format != "MPO" and getattr(image, "n_frames", 1) > 1
        if several:
            warnings.warn(
                f"{name} has {getattr(image, 'n_frames', 1)} frames; the first is taken", UserWarning, stacklevel=2
            )
        image.load()
        if image.getexif().get(ORIENTATION, 1) != 1:  # otherwise it would be copied for nothing
            image = ImageOps.exif_transpose(image)
        return _to_rgb(image, name, background)
    except ImageDecodeError:
        raise
    except UnidentifiedImageError:
        raise ImageDecodeError(name, f"this is not an image that Pillow knows{_look_inside(source)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageDecodeError(name, f"it is too large to be opened safely ({error})") from None
    except Warning:  # whoever made warnings errors wants to see them
        raise
    except Exception as error:
        # Pillow's decoders report damage by almost anything, RuntimeError, TypeError and struct.error among them.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageDecodeError(name, f"cannot be decoded: {reason}") from error


def describe(source: Any) -> str:
    """Return a name for an image in messages: its path, or what it is."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    filename = getattr(source, "filename", "")
    if isinstance(filename, str) and filename:
        return filename
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if hasattr(source, "shape"):
        return f"<{type(source).__name__} of shape {tuple(source.shape)}>"
    return f"<{type(source).__name__}>"


def is_name(described: str) -> bool:
    """Whether `describe` found a name, which tells an image from others, and not only what it is."""
    return not (described.startswith("<") and described.endswith(">"))


def check_readable(path: str | os.PathLike[str], index: int | None = None) -> None:
    """Refuse a path that is no readable regular file, without reading it.

    Raises
    ------
    ImageDecodeError
        If there is no such file, it is a folder or a device, or may not be read.
    """
    name = os.fspath(path)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageDecodeError(name, (getattr(error, "strerror", None) or str(error)).lower(), index) from None
    if stat.S_ISDIR(mode):
        raise ImageDecodeError(name, "this is a folder; name the images in it", index)
    if not stat.S_ISREG(mode):
        raise ImageDecodeError(name, "this is not a regular file", index)
    if not os.access(path, os.R_OK):
        raise ImageDecodeError(name, "permission denied", index)


def _may_hold_an_image(source: Any) -> bool:
    known = (Image.Image, str, os.PathLike, bytes, bytearray, memoryview)
    return isinstance(source, known) or (hasattr(source, "shape") and hasattr(source, "dtype"))


def _open(source: Any, name: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, (str, os.PathLike)):
        check_readable(source)
        data = Path(source).read_bytes()  # all at once: no open file is left behind
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    else:
        return _from_array(source, name)
    if not data:
        raise ImageDecodeError(name, "the file is empty")
    return Image.open(io.BytesIO(data))


def _from_array(source: Any, name: str) -> Image.Image:
    is_tensor = hasattr(source, "detach")
    if is_tensor:
        # numpy has no bfloat16
        source = (source.float() if source.is_floating_point() else source).detach().cpu().numpy()
    array = _channels_last(np.asarray(source), is_tensor, name)
    if array.dtype.kind == "f":
        array = _unit_to_bytes(array, name)
    elif array.dtype == np.uint16:
        array = _shift16(array)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise ImageDecodeError(name, f"its numbers are {array.dtype}; expected uint8, uint16, or floats in 0..1")
    if array.size == 0:
        raise ImageDecodeError(name, "it has no pixels")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array))


def _channels_last(array: NDArray[Any], is_tensor: bool, name: str) -> NDArray[Any]:
    """Return (h, w) or (h, w, c): arrays have their channels last, tensors first."""
    if array.ndim == 2:
        return array
    if array.ndim != 3:
        raise ImageDecodeError(name, "expected one image: (h, w), an array (h, w, c) or a tensor (c, h, w)")
    first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
    if array.shape[0] == array.shape[2] in (3, 4):
        raise ImageDecodeError(
            name, "its channels could be the first or the last axis; pass a PIL image (Image.fromarray) to say which"
        )
    if is_tensor:
        if first:
            return array.transpose(1, 2, 0)
        hint = "; this one has them last: pass tensor.permute(2, 0, 1)" if last else ""
        raise ImageDecodeError(name, f"a tensor has its 1 to 4 channels first{hint}")
    if last:
        return array
    hint = "; this one has them first: pass array.transpose(1, 2, 0)" if first else ""
    raise ImageDecodeError(name, f"an array has its 1 to 4 channels last{hint}")


def _to_rgb(image: Image.Image, name: str, background: tuple[int, int, int]) -> Image.Image:
    if image.mode.startswith("I"):  # I, I;16, I;16B, I;16L
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageDecodeError(name, f"its greys reach from {values.min()} to {values.max()}; expected 0..65535")
        return Image.fromarray(_shift16(values.astype(np.uint16))).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_unit_to_bytes(np.asarray(image), name)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)  # multiplied by alpha already: undone first
        rgba = (image.convert(straight) if straight else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _shift16(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Scale 0..65535 to 0..255, rounded; ``convert`` would clip at 255."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _unit_to_bytes(values: NDArray[np.floating], name: str) -> NDArray[np.uint8]:
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise ImageDecodeError(name, f"its floats reach from {low:.4g} to {high:.4g}; scale them to 0..1")
    return (values * 255).round().astype(np.uint8)


def _look_inside(source: Any) -> str:
    """Say what a file that is no image begins with, where that helps: error pages are saved as pictures."""
    try:
        if isinstance(source, (str, os.PathLike)):
            with open(source, "rb") as file:
                head = file.read(64)
        else:
            head = bytes(source[:64])
    except (OSError, TypeError):
        return ""
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html", b"<?xml"):
        return " but an HTML or XML page"
    return " but a text" if head.isascii() and head[:16].decode("ascii").isprintable() else ""
