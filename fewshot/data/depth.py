"""Scale 16-bit images to 8 bits.

Cameras with 10, 12 or 14 bits usually store unscaled values in 16-bit files, which look nearly black if they are read
as 16 bits. The range is taken from the file, or else from the caller (``bits=``), or else it is the smallest usual
range that holds the largest value, with a warning. Each image is guessed separately: guessing for a whole collection
would make an embedding depend on the other images, and differ between support and queries, shards, caches and devices.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot.data.opening import SPREAD, open_content, raw_mode
from fewshot.errors import ImageDecodeError
from fewshot.utils.warning import warn

#: Ranges to guess from, in bits. Values of 8 bits are often kept in 16-bit arrays.
USUAL_BITS = (8, 10, 12, 14, 16)
#: TIFF tags: bits per value, largest value of the range, and the latter in signed form.
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE, _S_MAX_SAMPLE_VALUE = 258, 281, 341
#: Raw modes of 16-bit colours: whole pixels, or one plane after the other.
_SPLIT = ("RGB;16", "RGBX;16", "RGBA;16", "LA;16", "R;16", "G;16", "B;16", "A;16")
_GREY_ALPHA = "LA;16B"


@dataclass(frozen=True)
class Declared:
    """The range of values that a file declares.

    Attributes
    ----------
    bits : int or None
        The range in bits, if it is declared.
    significant : int or None
        Number of significant bits (sBIT of PNG). By the standard these are the upper bits of values that span 16 bits,
        but many cameras store the values unscaled.
    """

    bits: int | None = None
    significant: int | None = None

    def bits_of(self, values: NDArray[np.uint16], highest: int) -> int | None:
        """Return the declared range, if the values fit."""
        if self.bits is not None and highest < 1 << self.bits:
            return self.bits
        if self.significant is not None and self.bits is None:
            if highest >= 1 << self.significant:
                return 16
            if (values & ((1 << (16 - self.significant)) - 1)).any():  # would be zero in values scaled to 16 bits
                return self.significant
        return None


NOTHING = Declared()


def scale(values: NDArray[np.uint16], declared: Declared, bits: int | None, name: str) -> NDArray[np.uint8]:
    """Scale 16-bit values (h, w) or (h, w, c) to 8 bits, rounded; the last of 2 or 4 channels is alpha.

    Parameters
    ----------
    values : uint16 ndarray of shape (h, w) or (h, w, c)
        Values as stored.
    declared : Declared
        The range that the file declares.
    bits : int or None
        The range that the caller gives.
    name : str
        Name of the image.

    Raises
    ------
    ImageDecodeError
        If a value exceeds the caller's range.
    """
    if not values.size:
        return values.astype(np.uint8)
    has_alpha = values.shape[2:] in ((2,), (4,))
    colours = values[..., :-1] if has_alpha else values
    found = _range_of(colours, declared, bits, name)
    scaled = _table(found)[values]
    if has_alpha and values[..., -1].max() >= 1 << found:
        scaled[..., -1] = _table(16)[values[..., -1]]
    return scaled


def _range_of(values: NDArray[np.uint16], declared: Declared, bits: int | None, name: str) -> int:
    highest = int(values.max())
    known = declared.bits_of(values, highest)
    if known is not None:
        return known
    if bits is not None:
        if highest >= 1 << bits:
            raise ImageDecodeError(
                name, f"its values reach {highest}, beyond the {bits} bits of bits={bits}; give bits=16, or omit bits"
            )
        return bits
    found = next(usual for usual in USUAL_BITS if highest < 1 << usual)
    if highest > 0 and found < 16:
        # The text is the same for all images, so that Python shows the warning once.
        warn(
            f"16-bit images with no value above {(1 << found) - 1} are read as {found} bits, since otherwise they "
            f"would be nearly black; give bits={found} to confirm, or bits=16 if they really are that dark"
        )
    return found


@cache
def _table(bits: int) -> NDArray[np.uint8]:
    """Return a lookup table from 16-bit values in a range of `bits` to 8 bits; larger values are white."""
    top = (1 << bits) - 1
    table = (np.minimum(np.arange(1 << 16), top) * 255 + top // 2) // top
    return table.astype(np.uint8)


def file_content(image: Image.Image) -> bytes:
    """Return the whole file of an image that is not decoded yet; the file position is restored."""
    file: Any = getattr(image, "fp", None)
    if isinstance(file, io.BytesIO):
        return file.getvalue()
    place = file.tell()
    file.seek(0)
    try:
        return bytes(file.read())
    finally:
        file.seek(place)


def reopen(image: Image.Image, name: str) -> Image.Image:
    """Open the same frame of the file again, undecoded."""
    return _open_frame(file_content(image), image.tell(), name)


def to_8_bits(image: Image.Image, bits: int | None, name: str) -> Image.Image:
    """Decode a 16-bit image to 8 bits, with its transparency.

    Parameters
    ----------
    image : PIL.Image.Image
        An image for which `is_deep` is true.
    bits : int or None
        The range that the caller gives.
    name : str
        Name of the image.

    Raises
    ------
    ImageDecodeError
        If a value is outside 0..65535, or exceeds the caller's range.
    """
    declared, transparent = _declared(image), image.info.get("transparency")
    if image.mode.startswith("I"):
        values = _greys(image, name)
    else:
        content, frame, raw = file_content(image), image.tell(), raw_mode(image)
        upper = np.asarray(image)  # Pillow reads only the upper bytes of colours
        if not raw.startswith(_SPLIT) or (transparent is None and _is_full(upper, declared, bits)):
            return image
        values = np.left_shift(upper, 8, dtype=np.uint16) | _lower(content, frame, raw, name)
    made = scale(values, declared, bits, name)
    if isinstance(transparent, int) and values.ndim == 2:
        made = np.dstack([made, _alpha(values != transparent)])
    elif isinstance(transparent, tuple) and values.shape[2:] == (3,):
        made = np.dstack([made, _alpha((values != np.array(transparent)).any(-1))])
    return Image.fromarray(made)


def _alpha(opaque: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return opaque.astype(np.uint8) * 255


def _is_full(upper: NDArray[np.uint8], declared: Declared, bits: int | None) -> bool:
    """Whether the upper bytes of colours suffice to see that they span 16 bits."""
    if declared.bits is not None or (bits is not None and bits < 16):
        return declared.bits == 16
    least = max(USUAL_BITS[-2], declared.significant or 0) - 8
    return (bits == 16 and declared == NOTHING) or int(upper[..., :3].max(initial=0)) >> least > 0


def _lower(content: bytes, frame: int, raw: str, name: str) -> NDArray[np.uint8]:
    """Return the lower bytes of colours.

    Pillow has no mode for 16-bit colours and skips every other byte. Which bytes it skips depends on the byte order in
    the raw mode, so decoding with the opposite order gives the lower bytes.
    """
    again: Any = _open_frame(content, frame, name)
    again.tile = [tile._replace(args=_other_order(tile.args)) for tile in again.tile]
    found = np.asarray(again)
    return found[..., [1, 1, 1, 3]] if raw == _GREY_ALPHA else found


def _other_order(arguments: Any) -> Any:
    """Return decoder arguments with the opposite byte order."""
    if isinstance(arguments, tuple):
        return (_other_order(arguments[0]), *arguments[1:])
    if arguments == _GREY_ALPHA:
        return "RGBA"  # all four bytes of a pixel
    swapped = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    return arguments[:-1] + swapped[arguments[-1]]


def _open_frame(content: bytes, frame: int, name: str) -> Image.Image:
    image = open_content(content, name)
    if frame:
        image.seek(frame)
    return image


def correct_transparency(image: Image.Image) -> None:
    """Scale the transparent grey of a 2-bit or 4-bit PNG to 0..255, as Pillow scales its greys."""
    grey, factor = image.info.get("transparency"), SPREAD.get(raw_mode(image))
    if factor and isinstance(grey, int):
        image.info["transparency"] = grey * factor


def _greys(image: Image.Image, name: str) -> NDArray[np.uint16]:
    values = np.asarray(image)
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high > 65535:
        raise ImageDecodeError(name, f"its greys range from {low} to {high}; expected 0..65535")
    return values.astype(np.uint16)


def _declared(image: Image.Image) -> Declared:
    """Return the range that a file declares; most of it is visible only before decoding."""
    if image.format == "JPEG2000":
        return Declared(16)  # Pillow scales by the declared bits
    if image.format == "PPM":
        tiles = getattr(image, "tile", None)
        arguments = tiles[0].args if tiles else ()
        largest = arguments[-1] if isinstance(arguments, tuple) and len(arguments) == 2 else 65535
        return Declared(16 if largest != 65535 else None)  # Pillow scales by the declared maximum
    if image.format == "TIFF":
        return Declared(_bits_of_tiff(getattr(image, "tag_v2", {})))
    if image.format == "PNG" and getattr(image, "fp", None) is not None:
        return Declared(significant=_significant_bits(file_content(image)))
    return NOTHING


def _bits_of_tiff(tags: Any) -> int | None:
    def largest(tag: int) -> int | None:
        value = tags.get(tag)
        parts = value if isinstance(value, tuple) else (value,)
        return max(parts) if parts and all(isinstance(part, (int, float)) for part in parts) else None

    bits = largest(_BITS_PER_SAMPLE)
    if bits is not None and 8 < bits < 16:
        return bits
    for tag in (_MAX_SAMPLE_VALUE, _S_MAX_SAMPLE_VALUE):
        top = largest(tag)
        # Some programs write the largest value that occurs, which is not a range.
        if top is not None and int(top) in [(1 << usual) - 1 for usual in range(8, 17)]:
            return int(top).bit_length()
    return None


def _significant_bits(content: bytes) -> int | None:
    """Return the sBIT of a PNG, a chunk before the pixels; None if there is none or it is out of range."""
    place = 8
    while place + 8 <= len(content):
        length, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        if kind == b"sBIT":
            colours = content[place + 8 : place + 8 + (1 if length <= 2 else 3)]  # followed by alpha
            return max(colours) if colours and 8 <= max(colours) <= 16 else None
        if kind == b"IDAT":
            return None
        place += 12 + length
    return None
