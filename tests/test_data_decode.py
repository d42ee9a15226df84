import errno
import io
import os
import pickle
import resource
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fewshot.data import decode as module
from fewshot.data import opening
from fewshot.data.decode import decode
from fewshot.data.opening import check_readable, describe
from fewshot.data.preprocess import Preprocessing
from fewshot.errors import ImageDecodeError, OutOfMemoryError, ReadError

COLOURS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8))
ARRAY = np.asarray(COLOURS)
PLANES = torch.from_numpy(ARRAY.transpose(2, 0, 1).copy())
FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "WEBP")


def encoded(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def levels(source):
    """The pixels of a decoded image as (height, width, 3) whole numbers."""
    image = decode(source)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


GREY = Image.new("RGB", (5, 4), (200, 200, 200))


@pytest.mark.parametrize(
    ("image", "expected"),
    [(GREY.convert(mode), 200) for mode in ("L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBA", "LA")]
    + [(GREY.convert("LA").convert("La"), 200), (GREY.convert("RGBA").convert("RGBa"), 200)]
    + [(GREY.convert("P").convert("PA"), 200), (Image.new("LAB", (5, 4), (200, 128, 128)), 200)]
    + [(Image.new("1", (5, 4), 1), 255)],
    ids=lambda given: getattr(given, "mode", None),
)
def test_row_49_an_opaque_image_of_any_mode_keeps_its_brightness(image, expected):
    assert np.abs(levels(image) - expected).max() <= (6 if image.mode in ("LAB", "P", "PA") else 2)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (2, 2), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 128)), (255, 127, 127)),
        (Image.new("LA", (2, 2), (0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (255, 0, 0, 128)).convert("RGBa"), (255, 127, 127)),
        (Image.new("LA", (2, 2), (0, 128)).convert("La"), (127, 127, 127)),
    ],
    ids=["RGBA", "half", "LA", "RGBa", "La"],
)
def test_row_48_transparent_pixels_show_white_and_not_their_hidden_colour(image, expected):
    np.testing.assert_allclose(levels(image), np.broadcast_to(expected, (2, 2, 3)), atol=1)


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_row_48_the_transparent_colour_of_a_palette_shows_the_background(file_format):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    data = encoded(image, file_format, transparency=0)
    assert levels(data).tolist() == [[[255, 255, 255], [0, 0, 255]]]
    assert np.asarray(decode(data, background=(1, 2, 3)))[0, 0].tolist() == [1, 2, 3]


def test_row_48_the_transparent_colour_of_an_image_without_palette_shows_white():
    data = encoded(Image.new("RGB", (2, 2), (9, 8, 7)), "PNG", transparency=(9, 8, 7))
    assert (levels(data) == 255).all()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM", None])
def test_row_50_16_bits_are_scaled_and_do_not_saturate(file_format):
    image = Image.fromarray(np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16))
    data = encoded(image, file_format) if file_format else image
    assert levels(data)[0].T.tolist() == [[0, 0, 1, 1, 128, 255]] * 3


def test_row_50_32_bits_are_taken_for_16_and_refused_beyond():
    assert levels(Image.fromarray(np.array([[0, 65535]], np.int32)))[0, :, 0].tolist() == [0, 255]
    with pytest.raises(ImageDecodeError, match=r"greys range from -1 to 70000; expected 0\.\.65535"):
        decode(Image.fromarray(np.array([[-1, 70000]], np.int32)))


@pytest.mark.parametrize("through", [lambda a: a, Image.fromarray, lambda a: encoded(Image.fromarray(a), "TIFF")])
def test_row_51_floats_in_0_to_1_are_scaled_and_others_refused(through):
    assert levels(through(np.array([[0, 0.5, 1]], np.float32)))[0, :, 0].tolist() == [0, 128, 255]
    for wrong in ([0, 255], [-1, 0.5], [-0.2, 0.5], [0, 1.2], [0, np.inf], [np.nan, 0.5], [0.5, np.nan]):
        why = "its floats hold NaN" if np.isnan(wrong).any() else r"scale them to 0\.\.1"
        with pytest.raises(ImageDecodeError, match=why):
            decode(through(np.array([wrong], np.float32)))


def test_row_51_what_scaling_leaves_a_little_outside_is_clipped():
    step = torch.zeros(1, 3, 16, 16)
    step[..., 8:] = 1
    scaled = torch.nn.functional.interpolate(step, 24, mode="bicubic")[0]
    assert scaled.min() < -0.05
    assert set(levels(scaled)[0, [0, -1], 0].tolist()) == {0, 255}
    for dtype in (np.float32, np.float64):
        beyond = np.array([[np.nextafter(dtype(0), dtype(-1)), np.nextafter(dtype(1), dtype(2))]], dtype)
        assert levels(beyond)[0, :, 0].tolist() == [0, 255]
        assert levels(Image.fromarray(beyond.astype(np.float32)))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_row_52_every_orientation_is_turned_upright(orientation, file_format):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    # What a camera held that way has stored.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(file_format, {})
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif, **options)
    np.testing.assert_allclose(levels(data), upright, atol=4)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_row_53_of_several_frames_the_first_is_taken_with_a_warning(file_format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="has 3 frames; the first is used"):
        assert levels(data)[0, 0].argmax() == 0


def test_an_image_without_frames_warns_of_nothing():
    mpo = encoded(COLOURS, "MPO", save_all=True, append_images=[COLOURS])  # a photograph and its preview
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in [encoded(COLOURS, file_format) for file_format in FORMATS] + [mpo]:
            assert decode(data).size == (17, 13)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_row_54_a_truncated_file_is_an_error_that_names_it(tmp_path, file_format, part):
    data = encoded(COLOURS, file_format)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ImageDecodeError, match=r"cut\.img: ") as caught:
        decode(path)
    assert caught.value.source == str(path)


def test_row_56_a_bit_turned_over_in_a_png_is_noticed_wherever_it_changes_a_pixel():
    data, noticed = encoded(COLOURS, "PNG"), 0
    for i in range(8, len(data)):
        bad = bytearray(data)
        bad[i] ^= 4
        try:
            assert (levels(bytes(bad)) == ARRAY).all()
        except ImageDecodeError:
            noticed += 1
    assert noticed > 0.9 * len(data)


def test_row_55_a_bit_turned_over_in_a_jpeg_is_an_error_or_another_image():
    data, modes = encoded(COLOURS, "JPEG"), set()
    for i in range(2, len(data), 3):
        bad = bytearray(data)
        bad[i] ^= 4
        try:
            modes.add(decode(bytes(bad)).mode)
        except ImageDecodeError:
            modes.add(None)
    assert modes == {"RGB", None}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"once upon a time", "not an image that Pillow knows but text"),
        (b"\n<!DOCTYPE html><title>404</title>", "not an image that Pillow knows but an HTML or XML page"),
        (b"<html>", "but an HTML or XML page"),
        (b"%PDF-1.4", "but a PDF; save its pages as JPEG or PNG"),
        (b"PK\x03\x04\x14\x00", "but a zip archive or a document of Word and the like; save its pictures"),
        (encoded(COLOURS, "PNG")[:-40], "cannot be decoded: .*truncated.*; part of the file is missing: copy it again"),
        (bytes(range(200, 256)), "not an image that Pillow knows$"),
    ],
)
def test_row_57_what_is_no_image_is_told(tmp_path, content, reason):
    (tmp_path / "cat.jpg").write_bytes(content)
    with pytest.raises(ImageDecodeError, match=r"cat\.jpg: .*" + reason):
        decode(tmp_path / "cat.jpg")
    with pytest.raises(ImageDecodeError, match=rf"<{len(content)} bytes>: .*" + reason):
        decode(content)


@pytest.mark.parametrize("brands", [(b"heic", b"mif1"), (b"mif1", b"heic")])
def test_a_photograph_of_a_phone_names_the_package_that_is_missing(tmp_path, brands):
    first, second = brands
    head = (24).to_bytes(4) + b"ftyp" + first + bytes(4) + first + second
    (tmp_path / "1.heic").write_bytes(head + bytes(40))
    script = """
import sys
sys.modules["pillow_heif"] = None  # as if it were not installed
from fewshot.data.decode import decode
try:
    decode(sys.argv[1])
except ValueError as error:
    print(error)
"""
    told = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "1.heic")], capture_output=True, text=True, check=True
    )
    assert 'without the package for HEIC; pip install "fewshot-learn[heif]", or convert' in told.stdout


@pytest.mark.filterwarnings("error")
def test_row_58_a_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    bomb, small = encoded(Image.new("1", (16400, 16400)), "PNG"), encoded(COLOURS, "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("unpacked"))
    cure = r"shrink it, or raise max_pixels"
    with pytest.raises(ImageDecodeError, match=f"16400 x 16400 pixels, above the limit of 268435456; {cure}"):
        decode(bomb)
    with pytest.raises(ImageDecodeError, match="17 x 13 pixels, above the limit of 220"):
        decode(small, max_pixels=220)
    monkeypatch.setenv("FEWSHOT_MAX_PIXELS", "220")
    with pytest.raises(ImageDecodeError, match="above the limit of 220"):
        decode(small)
    monkeypatch.setenv("FEWSHOT_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="FEWSHOT_MAX_PIXELS is 'many'; expected a whole number from 1"):
        decode(small)


@pytest.mark.filterwarnings("error")
def test_a_photograph_of_108_megapixels_is_taken_without_a_warning(monkeypatch):
    photograph = encoded(Image.new("L", (12000, 9000), 77), "JPEG", quality=30)
    assert decode(photograph).getpixel((11999, 8999)) == (77, 77, 77)
    monkeypatch.setattr(module, "available_memory", lambda: 8e8)
    with pytest.raises(OutOfMemoryError, match=r"its 12000 x 9000 pixels take 0\.9 GB, and 0\.8 GB of memory are free"):
        decode(photograph)


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 100)
    now, most, decoded = [], [], module.decode_pixels

    def watched(image, name):
        now.append(image)
        most.append(len(now))
        time.sleep(0.01)
        decoded(image, name)
        now.pop()

    monkeypatch.setattr(module, "decode_pixels", watched)
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(decode, [encoded(COLOURS, "PNG")] * 8))) == 8
    assert set(most) == {1}


def test_rows_59_60_one_pixel_is_enough_and_none_is_not():
    assert decode(encoded(Image.new("RGB", (1, 20000)), "PNG")).size == (1, 20000)
    assert levels(np.full((1, 1, 3), 7, np.uint8)).tolist() == [[[7, 7, 7]]]
    assert levels(encoded(Image.new("L", (1, 1), 9), "PNG")).tolist() == [[[9, 9, 9]]]
    for empty in (Image.new("RGB", (0, 0)), Image.new("L", (3, 0))):
        with pytest.raises(ImageDecodeError, match="pixels; expected at least one"):
            decode(empty)
    for empty in (np.zeros((0, 0), np.uint8), np.zeros((0, 5, 3)), np.zeros((4, 0), np.uint16), torch.zeros(3, 0, 5)):
        with pytest.raises(ImageDecodeError, match="no pixels"):
            decode(empty)


@pytest.mark.parametrize(
    "source",
    [
        ARRAY,
        ARRAY[::-1][::-1],
        np.asfortranarray(ARRAY),
        ARRAY.astype(np.uint16) * 257,
        ARRAY / 255,
        (ARRAY / 255).astype(np.float16),
        np.dstack([ARRAY, np.full((13, 17), 255, np.uint8)]),
        PLANES,
        PLANES / 255,
        (PLANES / 255).requires_grad_(),
        (PLANES / 255).double(),
        encoded(COLOURS, "PNG"),
        bytearray(encoded(COLOURS, "PNG")),
        memoryview(encoded(COLOURS, "PNG")),
        COLOURS,
    ],
)
def test_row_65_whatever_holds_the_colours_gives_the_same_image(source):
    np.testing.assert_array_equal(levels(source), ARRAY)


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (4, 5, 1)])
def test_row_65_greys_have_one_channel_or_none(shape):
    grey = np.full(shape, 77, np.uint8)
    source = torch.from_numpy(grey) if shape[0] == 1 else grey
    assert levels(source).tolist() == [[[77] * 3] * 5] * 4


def test_row_65_masks_and_half_precision_of_both_kinds_are_taken():
    assert levels(np.array([[True, False]]))[0, :, 0].tolist() == [255, 0]
    assert levels(torch.ones(3, 2, 2, dtype=torch.bfloat16)).tolist() == [[[255] * 3] * 2] * 2
    assert levels(torch.full((3, 2, 2), 0.5, dtype=torch.float16))[0, 0, 0] == 128


def test_row_65_blue_first_cannot_be_told_and_is_taken_as_it_comes():
    np.testing.assert_array_equal(levels(ARRAY[..., ::-1]), ARRAY[..., ::-1])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((3, 3, 3), np.uint8), "channels could be the first or the last axis; pass a PIL image"),
        (torch.zeros(3, 3, 3), "could be the first or the last axis"),
        (torch.zeros(4, 9, 4), "could be the first or the last axis"),
        (np.zeros((3, 8, 9), np.uint8), r"channels last, not first; pass array\.transpose\(1, 2, 0\)"),
        (torch.zeros(8, 9, 3), r"channels first, not last; pass tensor\.permute\(2, 0, 1\)"),
        (np.zeros((8, 9, 7), np.uint8), "an array must have its 1 to 4 channels last$"),
        (np.zeros(5, np.uint8), "expected one image"),
        (np.zeros((2, 8, 8, 3), np.uint8), "expected one image"),
        (np.zeros((8, 8), np.int64), "its values are int64; expected uint8, uint16, or floats"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), "its values are int32"),
        (np.array([["a"]]), "its values are <U1"),
    ],
)
def test_row_65_numbers_whose_meaning_would_be_guessed_are_refused(source, reason):
    with pytest.raises(ImageDecodeError, match=reason):
        decode(source)


@pytest.mark.parametrize("missing", [None, np.nan, np.float32("nan"), pd.NA, pd.NaT])
def test_what_tables_have_for_nothing_is_no_image(missing):
    with pytest.raises(ImageDecodeError, match="the image is missing; omit the row"):
        decode(missing)


@pytest.mark.parametrize("source", [3, [[0, 1]], {"path": "a.png"}, open])
def test_what_holds_no_image_is_a_type_error(source):
    with pytest.raises(TypeError, match=f"given as {type(source).__name__}; expected a path, bytes"):
        decode(source)


def test_rows_61_62_paths_that_are_no_readable_file_are_refused_unopened(tmp_path, monkeypatch):
    (tmp_path / "real.png").write_bytes(encoded(COLOURS, "PNG"))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name, reason in {
        "": "this is a folder",
        "none.png": "no such file",
        "pipe.png": "not a regular file",
        "zero.png": "not a regular file",
        "loop.png": "too many levels of symbolic links",
        "nul\0.png": "null",
    }.items():
        with pytest.raises(ImageDecodeError, match=reason):
            decode(str(tmp_path / name))
        with pytest.raises(ImageDecodeError, match=f"image 7, .*{reason}"):
            check_readable(tmp_path / name, 7)
    assert decode(tmp_path / "real.png").size == (17, 13)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ImageDecodeError, match="real.png: permission denied"):
        decode(tmp_path / "real.png")


def turned():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a title"
    return exif


SEEDS = [encoded(COLOURS, file_format, exif=turned()) for file_format in ("PNG", "JPEG", "WEBP", "TIFF")]
SEEDS += [
    encoded(COLOURS, "GIF", save_all=True, append_images=[COLOURS.rotate(90)]),
    encoded(COLOURS.quantize(8), "PNG"),
]
SEEDS += [encoded(COLOURS, "TIFF", compression=kind) for kind in ("tiff_lzw", "jpeg")]


def decodes_or_says_why(data):
    with suppress(ImageDecodeError):
        image = decode(data)
        assert image.mode == "RGB"
        assert min(image.size) > 0


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=800)
@given(
    data=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=8),
    cut=st.none() | st.integers(0, 1 << 16),
    head=st.booleans(),
)
def test_a_damaged_image_decodes_or_is_a_decode_error_and_nothing_else(data, changes, cut, head):
    damaged = bytearray(data)
    for position, value in changes:
        damaged[position % (min(len(data), 160) if head else len(data))] = value
    decodes_or_says_why(bytes(damaged if cut is None else damaged[: cut % len(data)]))


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=200), seed=st.sampled_from(SEEDS), kept=st.integers(0, 40))
def test_random_bytes_are_a_decode_error_and_nothing_else(data, seed, kept):
    decodes_or_says_why(seed[:kept] + data)


@pytest.mark.parametrize(
    "error", [RuntimeError, TypeError, KeyError, NotImplementedError, AssertionError, ZeroDivisionError]
)
def test_whatever_a_decoder_reports_damage_by_is_a_decode_error(monkeypatch, error):
    def fail(self):
        raise error("broken inside")

    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(ImageDecodeError, match="cannot be decoded: .*broken inside"):
        decode(COLOURS)


@pytest.mark.parametrize(
    ("error", "kind", "cure"),
    [
        (MemoryError(), OutOfMemoryError, "out of memory .the image may be intact"),
        (OSError("out of memory error when reading image file"), OutOfMemoryError, "free memory, then try again"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OutOfMemoryError, "out of memory"),
        *(
            (OSError(n, os.strerror(n)), ReadError, "close files or raise the limit")
            for n in (errno.EMFILE, errno.ENFILE)
        ),
        *(
            (OSError(n, os.strerror(n)), ReadError, "check the disk or the connection to it")
            for n in (
                errno.EIO,
                errno.ESTALE,
                errno.ENOSPC,
                errno.EINTR,
                errno.ETIMEDOUT,
                errno.EHOSTDOWN,
                errno.EREMOTEIO,
            )
        ),
        (TimeoutError("timed out"), ReadError, "timed out .the image may be intact"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("through", ["file", "stat", "pixels", "upload", "resize"])
def test_what_says_nothing_of_the_image_is_not_taken_for_damage(tmp_path, monkeypatch, error, kind, cure, through):
    def fail(*_, **__):
        raise error

    COLOURS.save(tmp_path / "a.png")
    source = tmp_path / "a.png"
    if through == "file":
        monkeypatch.setattr(Path, "read_bytes", fail)
    elif through == "stat":
        monkeypatch.setattr(os, "stat", fail)
    elif through == "pixels":
        monkeypatch.setattr(Image.Image, "load", fail)
    elif through == "resize":
        monkeypatch.setattr(Image.Image, "resize", fail)
    else:
        source = io.BytesIO(source.read_bytes())
        monkeypatch.setattr(opening, "_read_file", fail)
    is_number = getattr(error, "errno", None) is not None
    if (through == "stat" and not is_number) or (through == "resize" and not isinstance(error, MemoryError)):
        pytest.skip("no answer of stat, or of what reads no file")
    with pytest.raises(kind, match=cure) as caught:
        Preprocessing(3, 8, 8)(source)
    assert not isinstance(caught.value, ImageDecodeError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.source) == (kind, str(caught.value), caught.value.source)


def test_a_decoder_that_takes_a_lack_of_memory_for_damage_is_corrected(monkeypatch):
    def fail(self):
        raise OSError("broken data stream when reading image file")

    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(ImageDecodeError, match="broken data stream"):
        decode(COLOURS)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    large = Image.new("L", (6000, 6000))
    resource.setrlimit(resource.RLIMIT_AS, (used + (80 << 20), limits[1]))
    try:
        with pytest.raises(OutOfMemoryError):
            decode(large)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_an_interruption_is_not_taken_for_damage(monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode(COLOURS)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16", "F"])
def test_the_users_image_is_left_as_it_was(mode):
    image = Image.new(mode, (3, 2)) if mode in ("I;16", "F") else COLOURS.convert(mode)
    image.getexif()[0x0112] = 6
    before = image.tobytes(), image.mode, image.size, dict(image.getexif())
    assert decode(image).size == image.size[::-1]
    assert (image.tobytes(), image.mode, image.size, dict(image.getexif())) == before


def test_a_wrong_suffix_does_not_matter(tmp_path):
    COLOURS.save(tmp_path / "a.jpg", "PNG")
    np.testing.assert_array_equal(levels(tmp_path / "a.jpg"), ARRAY)


def test_row_53_of_a_pil_image_it_is_the_frame_that_it_shows():
    frames = [Image.new("RGB", (6, 4), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    image = Image.open(io.BytesIO(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])))
    image.seek(1)
    assert levels(image)[0, 0].tolist() == [0, 0, 250]
    assert image.tell() == 1


def test_an_image_has_a_name_in_messages():
    assert describe("a/b.png") == "a/b.png"
    assert describe(b"12345") == "<5 bytes>"
    assert describe(np.zeros((2, 3))) == "<ndarray of shape (2, 3)>"
    assert describe(Image.new("L", (1, 1))) == "<Image>"
