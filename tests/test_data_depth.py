"""Cameras of 10, 12 and 14 bits, whose numbers lie in files of 16."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot.data.decode import decode
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.cache import content_key
from fewshot.errors import ImageDecodeError

rng = np.random.default_rng(0)
#: What is to be seen, in 8 bits, black and white among it.
SEEN = rng.integers(0, 256, (12, 15, 4), dtype=np.uint8)
SEEN[0, 0], SEEN[0, 1] = 0, 255


def deep(bits, channels=1):
    """The same picture as a camera of so many bits stores it."""
    values = np.round(SEEN / 255 * ((1 << bits) - 1)).astype(np.uint16)
    return values[..., 0] if channels == 1 else values[..., :channels]


def png(array, chunks=(), interlaced=False):
    """A PNG of 16 bits, grey, grey and alpha, colour or colour and alpha, which Pillow cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = (*array.shape, 1)[:3]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(array, order="<", tags=(), bits=16):
    """A TIFF of 16 bits in either byte order, of any channels."""
    height, width, channels = (*array.shape, 1)[:3]
    pixels = array.astype(f"{order}u2").tobytes()
    if bits == 12:
        flat = array.ravel().astype(np.uint32)
        pairs = (flat[::2] << 12 | flat[1::2]).astype(">u4")
        pixels = pairs.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    entries = {256: width, 257: height, 258: (bits,) * channels, 259: 1, 262: 2 if channels > 2 else 1}
    entries |= {273: 0, 277: channels, 278: height, 279: len(pixels), **dict(tags)}
    if channels == 4:
        entries[338] = 2
    extra, fields = b"", b""
    start = 8 + 2 + 12 * len(entries) + 4
    sizes = [2 * len(v) for v in entries.values() if isinstance(v, tuple) and len(v) > 2]
    entries[273] = start + sum(sizes)
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, tuple) else (value,)
        is_long = tag in (273, 279)
        packed = struct.pack(f"{order}{len(values)}{'L' if is_long else 'H'}", *values)
        if len(packed) > 4:
            offset, extra = start + len(extra), extra + packed
            packed = struct.pack(f"{order}L", offset)
        fields += struct.pack(f"{order}HHL", tag, 4 if is_long else 3, len(values)) + packed.ljust(4, b"\0")
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8)
    return header + struct.pack(f"{order}H", len(entries)) + fields + bytes(4) + extra + pixels


def saved(array, file_format, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, file_format, **options)
    return file.getvalue()


def pgm(array, largest):
    return b"P5 %d %d %d\n" % (array.shape[1], array.shape[0], largest) + array.astype(">u2").tobytes()


def levels(source, **options):
    return np.asarray(decode(source, **options)).astype(int)


def expected(channels):
    colours = SEEN[..., :1] if channels in (1, 2) else SEEN[..., :3]
    seen = np.broadcast_to(colours, (12, 15, 3)).astype(float)
    if channels in (2, 4):
        alpha = SEEN[..., channels - 1 :][..., :1] / 255.0
        seen = seen * alpha + 255 * (1 - alpha)
    return seen


CONTAINERS = {
    "array": (lambda a: a, (1, 3, 4)),
    "array of the other byte order": (lambda a: a.astype(">u2"), (1, 3)),
    "array of one channel": (lambda a: a[..., None], (1,)),
    "strided array": (lambda a: np.repeat(a, 2, axis=0)[::2], (1, 3)),
    "tensor": (lambda a: torch.from_numpy(a if a.ndim == 2 else a.transpose(2, 0, 1).copy()), (1, 3)),
    "PIL image": (Image.fromarray, (1,)),
    "PIL image of 32 bits": (lambda a: Image.fromarray(a.astype(np.int32)), (1,)),
    "PNG": (png, (1, 2, 3, 4)),
    "opened PNG": (lambda a: Image.open(io.BytesIO(png(a))), (1, 2, 3, 4)),
    "TIFF": (tiff, (1, 3, 4)),
    "TIFF of the other byte order": (lambda a: tiff(a, ">"), (1, 3, 4)),
    "opened TIFF": (lambda a: Image.open(io.BytesIO(tiff(a, ">"))), (1, 3)),
    "compressed TIFF": (lambda a: saved(a, "TIFF", compression="tiff_lzw"), (1,)),
    "PGM without a range": (lambda a: saved(a, "PPM"), (1,)),
}
CASES = [(name, channels) for name, (_, all_channels) in CONTAINERS.items() for channels in all_channels]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize(("name", "channels"), CASES, ids=lambda value: str(value).replace(" ", "-"))
def test_a_picture_of_fewer_bits_looks_as_in_8_and_the_guess_is_told(name, channels, bits):
    source = CONTAINERS[name][0](deep(bits, channels))
    if bits == 16:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = levels(source)
    else:
        with pytest.warns(UserWarning, match=rf"read as {bits} bits, .*; give bits={bits} to confirm"):
            found = levels(source)
    assert np.abs(found - expected(channels)).max() <= 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(levels(source, bits=bits), found)
        assert bits == 16 or levels(source, bits=16).max() <= 70 or channels in (2, 4)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("kind", ["MaxSampleValue", "SMaxSampleValue", "sBIT", "sBIT in colour", "PGM", "colour TIFF"])
@pytest.mark.filterwarnings("error")
def test_what_the_file_says_goes_first_and_needs_no_warning(kind, bits):
    top, grey, colour = (1 << bits) - 1, deep(bits), deep(bits, 3)
    data = {
        "MaxSampleValue": lambda: tiff(grey // 5, tags={281: top}),
        "SMaxSampleValue": lambda: tiff(grey // 5, ">", tags={341: top}),
        "sBIT": lambda: png(grey // 5, [(b"sBIT", bytes([bits]))]),
        "sBIT in colour": lambda: png(colour // 5, [(b"sBIT", bytes([bits] * 3))]),
        "PGM": lambda: pgm(grey // 5, top),
        "colour TIFF": lambda: tiff(colour // 5, tags={281: (top, top, top)}),
    }[kind]()
    seen = SEEN[..., :3] if "colour" in kind else SEEN[..., :1]
    for said in (None, 16, bits, 9):
        assert np.abs(levels(data, bits=said) - seen / 5).max() <= 2


@pytest.mark.filterwarnings("error")
def test_packed_tiffs_of_12_bits_say_so():
    array = deep(12)[:, :14] // 5
    assert np.abs(levels(tiff(array, bits=12))[..., 0] - SEEN[:, :14, 0] / 5).max() <= 2


def test_significant_bits_that_are_the_upper_ones_change_nothing():
    """As the standard of PNG has it: numbers are scaled to 16 bits, and so many of them are from the camera."""
    scaled = (deep(12) << 4).astype(np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = levels(png(scaled, [(b"sBIT", b"\x0c")]))
    np.testing.assert_allclose(found[..., 0], SEEN[..., 0], atol=1)


def test_what_cannot_be_true_is_not_believed():
    statement = {281: 4095}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(levels(tiff(deep(16), tags=statement))[..., 0], SEEN[..., 0], atol=1)
    with pytest.warns(UserWarning, match="read as 12 bits"):  # the largest number that occurs is no range
        levels(tiff(deep(12) // 2, tags={281: 2047 - 3}))


def test_a_caller_who_is_wrong_is_told():
    for source in (deep(16), png(deep(16, 3)), tiff(deep(14))):
        with pytest.raises(ImageDecodeError, match=r"reach \d+, beyond the 12 bits of bits=12; give bits=16, or omit"):
            decode(source, bits=12)
    for wrong in (7, 17, 12.0, "12"):
        with pytest.raises(ValueError, match="bits is .*; expected a whole number from 8 to 16, or None"):
            Preprocessing(3, 12, 15, bits=wrong)


@pytest.mark.filterwarnings("error")
def test_black_is_black_whatever_the_range():
    assert levels(np.zeros((4, 5), np.uint16)).max() == 0


def test_the_guess_is_one_warning_for_many_images():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(5):
            decode(deep(12))
    assert len(told) <= 1


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.filterwarnings("ignore:16-bit images")
def test_the_transparent_grey_or_colour_of_16_bits_shows_the_background(bits):
    for array in (deep(bits), deep(bits, 3)):
        key = array[3, 4]
        data = png(array, [(b"tRNS", np.atleast_1d(key).astype(">u2").tobytes())])
        for source in (data, Image.open(io.BytesIO(data))):
            found = levels(source, background=(1, 2, 3))
            is_key = (array == key) if array.ndim == 2 else (array == key).all(-1)
            assert (found[is_key] == (1, 2, 3)).all()
            seen = expected(1 if array.ndim == 2 else 3)
            assert np.abs(found[~is_key] - seen[~is_key]).max() <= 2


@pytest.mark.parametrize(("bits", "grey"), [(1, 1), (2, 3), (4, 9)])
def test_so_does_the_transparent_grey_of_few_bits(bits, grey):
    values = np.arange(1 << bits, dtype=np.uint8)
    packed = np.packbits(np.unpackbits(values[:, None], axis=1)[:, -bits:].ravel()).tobytes()
    array = np.zeros((1, len(values)), np.uint16)
    data = bytearray(png(array, [(b"tRNS", struct.pack(">H", grey))]))

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0))
    data = bytes(data[:8]) + head + chunk(b"tRNS", struct.pack(">H", grey))
    data += chunk(b"IDAT", zlib.compress(b"\0" + packed)) + chunk(b"IEND", b"")
    for source in (data, Image.open(io.BytesIO(data))):
        found = np.asarray(decode(source, background=(1, 2, 3)))[0]
        shown = [(1, 2, 3) if value == grey else (value * (255 // ((1 << bits) - 1)),) * 3 for value in values.tolist()]
        assert found.tolist() == list(map(list, shown))


@pytest.mark.filterwarnings("ignore:16-bit images")
@pytest.mark.parametrize("make", [lambda: png(deep(12, 3)), lambda: tiff(deep(12)), lambda: png(deep(12, 2))])
def test_an_opened_image_is_the_same_each_time_also_through_the_key_of_the_cache(make):
    given, data = Image.open(io.BytesIO(make())), make()
    key = content_key(given)
    for _ in range(3):
        np.testing.assert_array_equal(levels(given), levels(data))
        assert content_key(given) == key
    assert content_key(Image.open(io.BytesIO(make()))) == key


@pytest.mark.filterwarnings("ignore:16-bit images")
def test_it_is_turned_upright_as_others_are():
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (saved(deep(12), "PNG", exif=exif), png(deep(12, 3), [(b"eXIf", exif.tobytes()[6:])])):
        assert decode(data).size == (12, 15)


@pytest.mark.filterwarnings("ignore:16-bit images")
def test_the_page_that_an_opened_image_shows_is_taken():
    file, pages = io.BytesIO(), [Image.fromarray(deep(12)), Image.fromarray(deep(12)[::-1].copy())]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    given = Image.open(file)
    given.seek(1)
    np.testing.assert_allclose(levels(given)[..., 0], SEEN[::-1, :, 0], atol=1)
    assert given.tell() == 1


def test_a_jpeg_2000_is_scaled_by_the_bits_that_it_names():
    file = io.BytesIO()
    Image.fromarray(deep(16) // 5).save(file, "JPEG2000")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(levels(file.getvalue())[..., 0], SEEN[..., 0] / 5, atol=1)


@pytest.mark.filterwarnings("ignore:16-bit images")
def test_a_damaged_one_is_a_decode_error():
    for data in (png(deep(12, 3)), tiff(deep(12, 3)), png(deep(12))):
        for cut in (60, len(data) // 2):
            with pytest.raises(ImageDecodeError):
                decode(data[:cut])
