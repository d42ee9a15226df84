"""Images of more than 8 bits: which range their numbers span, and how they become 8 bits.

Cameras of 10, 12 and 14 bits store their numbers in files of 16 bits, mostly unscaled: taken for 16 bits, they are
nearly black. What counts is, in this order: what the file says of itself; what the caller says (``bits=``); and else
the smallest usual range that holds the image's largest number, with a warning. The guess looks at one image alone. A
guess for a whole collection would make an embedding depend on which images it was made with, and so differ between
support and queries, shards of one folder, a cache and a device.
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

from fewshot.data.opening import open_content
from fewshot.errors import ImageDecodeError, brief
from fewshot.utils.warning import warn

#: Ranges that are guessed, in bits. Integers of 8 bits are often kept in arrays of 16.
USUAL_BITS = (8, 10, 12, 14, 16)
#: Tags of TIFF: bits of a number, the largest number of the range (and its signed form).
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE, _S_MAX_SAMPLE_VALUE = 258, 281, 341
#: Greys of fewer than 8 bits are spread over 0..255 by Pillow, but not their transparent one.
_SPREAD = {"L;2": 85, "L;4": 17}
#: How 16-bit colours lie in a file: whole pixels, or one plane after the other.
_SPLIT = ("RGB;16", "RGBX;16", "RGBA;16", "LA;16", "R;16", "G;16", "B;16", "A;16")
_GREY_ALPHA = "LA;16B"


@dataclass(frozen=True)
class Told:
    """What a file says of the range of its numbers.

    Attributes
    ----------
    bits : int or None
        The range, if it says one.
    significant : int or None
        PNG's sBIT: so many bits are meaningful. By the standard they are the upper ones, and the numbers span 16 bits;
        many cameras store them as they are.
    """

    bits: int | None = None
    significant: int | None = None

    def bits_of(self, values: NDArray[np.uint16], highest: int) -> int | None:
        """Return the range that the file says, if it can be true of these numbers."""
        if self.bits is not None and highest < 1 << self.bits:
            return self.bits
        if self.significant is not None and self.bits is None:
            if highest >= 1 << self.significant:
                return 16
            if (values & ((1 << (16 - self.significant)) - 1)).any():  # scaled to 16 bits, these would be zero
                return self.significant
        return None


NOTHING = Told()


def is_deep(image: Image.Image) -> bool:
    """Whether an image has numbers of 16 bits; of colours, Pillow says so only before it is decoded."""
    return image.mode[0] == "I" or ";16" in _raw_mode(image)


def check_bits(bits: object) -> None:
    """Refuse what is no range of 8 to 16 bits, and not None.

    Raises
    ------
    ValueError
        Naming it.
    """
    if bits is not None and (not isinstance(bits, (int, np.integer)) or not 8 <= bits <= 16):
        raise ValueError(f"bits is {brief(repr(bits))}; expected a whole number from 8 to 16, or None")


def is_known_before_decoding(image: Image.Image) -> bool:
    """Whether an opened image says something that is lost when it is decoded, so that it must be decoded in a copy."""
    return bool(_raw_mode(image)) and (is_deep(image) or _raw_mode(image) in _SPREAD)


def scale(values: NDArray[np.uint16], told: Told, bits: int | None, name: str) -> NDArray[np.uint8]:
    """Return numbers (h, w) or (h, w, c) of 16 bits scaled to 8, rounded; with 2 or 4 channels the last is alpha.

    Parameters
    ----------
    values : uint16 ndarray of shape (h, w) or (h, w, c)
        Numbers as they are stored.
    told : Told
        What the file says.
    bits : int or None
        What the caller says.
    name : str
        Of the image.

    Raises
    ------
    ImageDecodeError
        If a number is beyond what the caller says.
    """
    if not values.size:
        return values.astype(np.uint8)
    has_alpha = values.shape[2:] in ((2,), (4,))
    colours = values[..., :-1] if has_alpha else values
    found = _range_of(colours, told, bits, name)
    scaled = _table(found)[values]
    if has_alpha and values[..., -1].max() >= 1 << found:
        scaled[..., -1] = _table(16)[values[..., -1]]
    return scaled


def _range_of(values: NDArray[np.uint16], told: Told, bits: int | None, name: str) -> int:
    highest = int(values.max())
    stated = told.bits_of(values, highest)
    if stated is not None:
        return stated
    if bits is not None:
        if highest >= 1 << bits:
            raise ImageDecodeError(
                name, f"its numbers reach {highest}, beyond the {bits} bits of bits={bits}; give bits=16, or none"
            )
        return bits
    found = next(usual for usual in USUAL_BITS if highest < 1 << usual)
    if highest > 0 and found < 16:
        # One text for all images: Python shows it once, and not for each of ten thousand.
        warn(
            f"16-bit images with no number above {(1 << found) - 1} are read as {found} bits, since they would be "
            f"nearly black otherwise; give bits={found} to confirm, or bits=16 if they are so dark"
        )
    return found


@cache
def _table(bits: int) -> NDArray[np.uint8]:
    """Return what becomes of each number of 16 bits in a range of fewer; those beyond it are white."""
    top = (1 << bits) - 1
    table = (np.minimum(np.arange(1 << 16), top) * 255 + top // 2) // top
    return table.astype(np.uint8)


def file_content(image: Image.Image) -> bytes:
    """Return the whole file of an image that is not decoded yet, and leave it where it stands."""
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
    """Return an image of the same file, and frame, that has not been decoded yet."""
    return _open_frame(file_content(image), image.tell(), name)


def to_8_bits(image: Image.Image, bits: int | None, name: str) -> Image.Image:
    """Return an image of 16-bit numbers as one of 8 bits that is as transparent.

    Parameters
    ----------
    image : PIL.Image.Image
        One for which `is_deep` is true; it is decoded.
    bits : int or None
        The range that the caller says.
    name : str
        Of the image.

    Raises
    ------
    ImageDecodeError
        If a number is outside 0..65535, or beyond what the caller says.
    """
    told, transparent = _told(image), image.info.get("transparency")
    if image.mode.startswith("I"):
        values = _greys(image, name)
    else:
        content, frame, raw = file_content(image), image.tell(), _raw_mode(image)
        upper = np.asarray(image)  # all that Pillow takes of colours
        if not raw.startswith(_SPLIT) or (transparent is None and _is_full(upper, told, bits)):
            return image
        values = np.left_shift(upper, 8, dtype=np.uint16) | _lower(content, frame, raw, name)
    made = scale(values, told, bits, name)
    if isinstance(transparent, int) and values.ndim == 2:
        made = np.dstack([made, _alpha(values != transparent)])
    elif isinstance(transparent, tuple) and values.shape[2:] == (3,):
        made = np.dstack([made, _alpha((values != np.array(transparent)).any(-1))])
    return Image.fromarray(made)


def _alpha(opaque: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return opaque.astype(np.uint8) * 255


def _is_full(upper: NDArray[np.uint8], told: Told, bits: int | None) -> bool:
    """Whether the upper bytes of colours are enough to see that they span 16 bits."""
    if told.bits is not None or (bits is not None and bits < 16):
        return told.bits == 16
    least = max(USUAL_BITS[-2], told.significant or 0) - 8
    return (bits == 16 and told == NOTHING) or int(upper[..., :3].max(initial=0)) >> least > 0


def _lower(content: bytes, frame: int, raw: str, name: str) -> NDArray[np.uint8]:
    """Return the lower bytes of colours.

    Pillow has no mode for colours of 16 bits: it skips every other byte. Which ones depends on the byte order that it
    is told, so the other order gives the other bytes.
    """
    again: Any = _open_frame(content, frame, name)
    again.tile = [tile._replace(args=_other_order(tile.args)) for tile in again.tile]
    found = np.asarray(again)
    return found[..., [1, 1, 1, 3]] if raw == _GREY_ALPHA else found


def _other_order(arguments: Any) -> Any:
    """Return the arguments of a decoder that takes the other byte of each two."""
    if isinstance(arguments, tuple):
        return (_other_order(arguments[0]), *arguments[1:])
    if arguments == _GREY_ALPHA:
        return "RGBA"  # the four bytes of a pixel as they lie
    swapped = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    return arguments[:-1] + swapped[arguments[-1]]


def _open_frame(content: bytes, frame: int, name: str) -> Image.Image:
    image = open_content(content, name)
    if frame:
        image.seek(frame)
    return image


def correct_transparency(image: Image.Image) -> None:
    """Let the transparent grey of a PNG of 2 or 4 bits be one of 0..255, as Pillow makes its greys."""
    grey, factor = image.info.get("transparency"), _SPREAD.get(_raw_mode(image))
    if factor and isinstance(grey, int):
        image.info["transparency"] = grey * factor


def _greys(image: Image.Image, name: str) -> NDArray[np.uint16]:
    values = np.asarray(image)
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high > 65535:
        raise ImageDecodeError(name, f"its greys reach from {low} to {high}; expected 0..65535")
    return values.astype(np.uint16)


def _raw_mode(image: Image.Image) -> str:
    """Return how the numbers of an image lie in its file; empty once it is decoded."""
    tiles = getattr(image, "tile", None)
    arguments: Any = tiles[0][3] if tiles else ""
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""


def _told(image: Image.Image) -> Told:
    """Return what a file says of its range; most of it can be seen only before it is decoded."""
    if image.format == "JPEG2000":
        return Told(16)  # Pillow scales by the bits that these name
    if image.format == "PPM":
        tiles = getattr(image, "tile", None)
        arguments = tiles[0].args if tiles else ()
        largest = arguments[-1] if isinstance(arguments, tuple) and len(arguments) == 2 else 65535
        return Told(16 if largest != 65535 else None)  # Pillow scales by the largest number
    if image.format == "TIFF":
        return Told(_bits_of_tiff(getattr(image, "tag_v2", {})))
    if image.format == "PNG" and getattr(image, "fp", None) is not None:
        return Told(significant=_significant_bits(file_content(image)))
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
        # Some programs write the largest number that occurs: no range.
        if top is not None and int(top) in [(1 << usual) - 1 for usual in range(8, 17)]:
            return int(top).bit_length()
    return None


def _significant_bits(content: bytes) -> int | None:
    """Return what the chunk sBIT of a PNG says, if it is below 16; it comes before the pixels."""
    place = 8
    while place + 8 <= len(content):
        length, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        if kind == b"sBIT":
            colours = content[place + 8 : place + 8 + (1 if length <= 2 else 3)]  # behind them, alpha
            return max(colours) if colours and 8 <= max(colours) <= 16 else None
        if kind == b"IDAT":
            return None
        place += 12 + length
    return None
