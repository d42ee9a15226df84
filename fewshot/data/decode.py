"""Decode images of any source and mode to upright 8-bit RGB, without saturating or blackening any."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fewshot.data.depth import (
    NOTHING,
    correct_transparency,
    reopen,
    scale,
    to_8_bits,
)
from fewshot.data.opening import (
    BYTES_A_PIXEL,
    decode_pixels,
    describe,
    held,
    is_deep,
    is_file,
    is_known_before_decoding,
    open_content,
    read_content,
    reading,
)
from fewshot.errors import ImageDecodeError, OutOfMemoryError
from fewshot.utils.containers import is_missing
from fewshot.utils.heap import available_memory
from fewshot.utils.locks import lock_of
from fewshot.utils.warning import warn

#: Default limit of pixels, enough for photographs of 200 megapixels. Larger images are refused before decoding.
MAX_PIXELS, MAX_PIXELS_VARIABLE = 1 << 28, "FEWSHOT_MAX_PIXELS"
#: Larger images are decoded one at a time, since each takes about a gigabyte and there may be a thread per core.
LARGE = 1 << 26
#: EXIF tag of the orientation.
ORIENTATION = 0x0112
#: Colour under transparent pixels.
BACKGROUND = (255, 255, 255)
#: How far floats may lie outside 0..1, as after bicubic or Lanczos scaling. They are clipped.
TOLERANCE = 0.125
#: Types that name or hold a file; must be checked before arrays, since numpy strings have a dtype.
_FILES = (str, os.PathLike, bytes, bytearray, memoryview)
#: Axes that can hold channels: grey, grey and alpha, colour, colour and alpha.
_CHANNELS = (1, 2, 3, 4)


def decode(
    source: Any,
    *,
    background: tuple[int, int, int] = BACKGROUND,
    max_pixels: int | None = None,
    bits: int | None = None,
) -> Image.Image:
    """Decode an image to an upright 8-bit RGB image.

    Parameters
    ----------
    source : path, bytes, data URL, open file, PIL image, array or tensor
        Arrays are (h, w) or (h, w, c) and tensors (h, w) or (c, h, w), of uint8, uint16, or floats in 0..1. Floats up
        to 0.125 outside 0..1, as after scaling, are clipped. The order of colours is red, green, blue; reverse images
        from OpenCV, since the order cannot be detected. An open file is read from its start, and its position is
        restored.
    background : tuple of int, default=(255, 255, 255)
        Colour under transparent pixels.
    max_pixels : int, optional
        Larger images are refused before decoding; by default ``$FEWSHOT_MAX_PIXELS``, or 268435456.
    bits : int, optional
        The range of 16-bit images, 0..2**bits - 1, if the file does not specify it (MaxSampleValue of TIFF, sBIT of
        PNG, the maximum of PGM). By default the smallest of 8, 10, 12, 14 and 16 bits that holds all values, with a
        warning below 16.

    Returns
    -------
    PIL.Image.Image
        An RGB image. EXIF orientation is applied. 16-bit values are scaled to 8 bits, floats in 0..1 to 0..255. The
        first frame of an animation or multi-page file is used, with a warning, and the current frame of a PIL image.
        CMYK is converted without a colour profile.

    Raises
    ------
    ImageDecodeError
        If the file does not exist or is empty, damaged, truncated, not an image or too large, or if the meaning of its
        values is ambiguous. Damage that still decodes, as in most of a JPEG file, goes unnoticed.
    OutOfMemoryError, ReadError
        If memory, file handles or the disk fail; the image may be intact.
    TypeError
        If `source` cannot hold an image.

    Examples
    --------
    >>> import numpy as np
    >>> decode(np.zeros((4, 6, 3), np.uint8)).size
    (6, 4)
    """
    holds_a_file = isinstance(source, _FILES) or is_file(source)
    if not holds_a_file and not isinstance(source, Image.Image):
        _check_array(source)
    name, limit = describe(source), largest_allowed(max_pixels)
    with reading(name):
        if isinstance(source, Image.Image):
            return _decode_given(source, name, background, limit, bits)
        if not holds_a_file:
            return _decode_opened(_from_array(source, name, bits), name, background, limit, None)
        image = open_content(read_content(source, name), name)
        _check_size(image, name, limit)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # phones save a JPEG with a preview as MPO
            warn(f"{name} has {frames} frames; the first is used")
        return _decode_opened(image, name, background, limit, bits)


def largest_allowed(max_pixels: int | None) -> int:
    """Return the limit of pixels: `max_pixels`, or else that of the environment, or else the default.

    Raises
    ------
    ValueError
        If the environment variable is not a whole number.
    """
    if max_pixels is not None:
        return max_pixels
    text = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if text and not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"{MAX_PIXELS_VARIABLE} is {text!r}; expected a whole number from 1")
    return int(text) if text else MAX_PIXELS


def _check_array(source: Any) -> None:
    """Raise unless `source`, which is neither a file nor a PIL image, is an array or a tensor."""
    if is_missing(source):
        raise ImageDecodeError(f"<{source}>", "the image is missing; omit the row")
    if not hasattr(source, "shape") or not hasattr(source, "dtype"):
        pair = "; of pairs of image and label, such as LabeledImages, pass data.images and data.labels"
        raise TypeError(
            f"an image is given as {type(source).__name__}; expected a path, bytes, an open file, a PIL image, "
            f"an array or a tensor{pair if isinstance(source, tuple) else ''}"
        )


def _decode_given(given: Any, name: str, background: tuple[int, int, int], limit: int, bits: int | None) -> Image.Image:
    """Decode the caller's PIL image, which may occur twice in a list or be decoded by another thread."""
    with held(given):
        file = getattr(given, "fp", None)
        is_open = file is not None and not getattr(file, "closed", False)
        if is_open and is_known_before_decoding(given):
            return _decode_opened(reopen(given, name), name, background, limit, bits)
        try:
            return _decode_opened(given, name, background, limit, bits)
        except Exception as error:
            if not is_open and ("closed" in str(error) or (given.format and isinstance(error, AssertionError))):
                cure = "call its load() before its file is closed, or pass its path"
                raise ImageDecodeError(name, f"this PIL image is closed; {cure}") from None
            raise


def _decode_opened(
    image: Image.Image, name: str, background: tuple[int, int, int], limit: int, bits: int | None
) -> Image.Image:
    """Check the size and free memory, then decode an opened image."""
    _check_size(image, name, limit)
    if (pixels := image.width * image.height) <= LARGE:
        return _decode_now(image, name, background, bits)
    with lock_of(decode):
        needed, free = BYTES_A_PIXEL * pixels, available_memory()
        if needed > free:
            size = f"{image.width} x {image.height}"
            reason = f"its {size} pixels take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free"
            raise OutOfMemoryError(name, reason=reason)
        return _decode_now(image, name, background, bits)


def _decode_now(image: Image.Image, name: str, background: tuple[int, int, int], bits: int | None) -> Image.Image:
    if "transparency" in image.info:
        correct_transparency(image)
    if is_deep(image):
        small = to_8_bits(image, bits, name)
    else:
        decode_pixels(image, name)
        small = image
    orientation = image.getexif().get(ORIENTATION, 1)
    if orientation != 1:  # exif_transpose always copies
        if small is not image:
            small.getexif()[ORIENTATION] = orientation
        small = ImageOps.exif_transpose(small)
    return _to_rgb(small, name, background)


def _check_size(image: Image.Image, name: str, limit: int) -> None:
    width, height = image.size
    if not width or not height:
        raise ImageDecodeError(name, f"it has {width} x {height} pixels; expected at least one")
    if width * height > limit:
        raise ImageDecodeError(
            name,
            f"it has {width} x {height} pixels, above the limit of {limit}; shrink it, or raise max_pixels",
        )


def _from_array(source: Any, name: str, bits: int | None) -> Image.Image:
    is_tensor = hasattr(source, "detach")
    if is_tensor:
        # numpy has no bfloat16
        source = (source.float() if source.is_floating_point() else source).detach().cpu().numpy()
    array = _channels_last(np.asarray(source), is_tensor, name)
    if array.dtype.kind == "f":
        array = _unit_to_bytes(array, name)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        array = scale(array.astype(np.uint16, copy=False), NOTHING, bits, name)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise ImageDecodeError(name, f"its values are {array.dtype}; expected uint8, uint16, or floats in 0..1")
    if array.size == 0:
        raise ImageDecodeError(name, "it has no pixels")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array))


def _channels_last(array: NDArray[Any], is_tensor: bool, name: str) -> NDArray[Any]:
    """Return an image (h, w) or (h, w, c) from an array, channels last, or a tensor, channels first."""
    if array.ndim == 2:
        return array
    if array.ndim != 3:
        raise ImageDecodeError(name, "expected one image: (h, w), an array (h, w, c) or a tensor (c, h, w)")
    first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
    if array.shape[0] == array.shape[2] in (3, 4):
        raise ImageDecodeError(
            name, "its channels could be the first or the last axis; pass a PIL image (Image.fromarray) instead"
        )
    if is_tensor:
        if first:
            return array.transpose(1, 2, 0)
        hint = ", not last; pass tensor.permute(2, 0, 1)" if last else ""
        raise ImageDecodeError(name, f"a tensor must have its 1 to 4 channels first{hint}")
    if last:
        return array
    hint = ", not first; pass array.transpose(1, 2, 0)" if first else ""
    raise ImageDecodeError(name, f"an array must have its 1 to 4 channels last{hint}")


def _to_rgb(image: Image.Image, name: str, background: tuple[int, int, int]) -> Image.Image:
    if image.mode == "F":
        return Image.fromarray(_unit_to_bytes(np.asarray(image), name)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)  # undo premultiplied alpha
        rgba = (image.convert(straight) if straight else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _unit_to_bytes(values: NDArray[np.floating], name: str) -> NDArray[np.uint8]:
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if np.isnan(low) or np.isnan(high):
        raise ImageDecodeError(name, "its floats hold NaN; repair them, or leave it out")
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise ImageDecodeError(
            name,
            f"its floats range from {low:.4g} to {high:.4g}; scale them to 0..1, and clip overshoot from resizing",
        )
    if low < 0 or high > 1:
        values = values.clip(0, 1)
    return (values * 255).round().astype(np.uint8)
