"""Collections, opened images, open files, data URLs and formats: shared by threads, closed, or refused."""

import base64
import io
import os
import tempfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageFile
from scipy import sparse

from fewshot.data import opening
from fewshot.data.decode import decode
from fewshot.data.opening import as_rows, as_sequence, check_paths, describe, is_name
from fewshot.data.scan import image_suffixes
from fewshot.embedding.cache import content_key
from fewshot.errors import ImageDecodeError, brief

PIXELS = np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8) // 8 + 90
FORMATS = ("PNG", "WEBP", "GIF", "TIFF", "JPEG", "BMP", "PPM", "JPEG2000")


def encoded(array, file_format="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, file_format, **options)
    return file.getvalue()


def pixels(source):
    return np.asarray(decode(source))


def at_once(calls, n_threads=8):
    """The results of functions that begin at the same moment."""
    gate = threading.Barrier(n_threads)

    def run(call):
        gate.wait(10)
        return call()

    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(run, calls))


@pytest.mark.parametrize("file_format", FORMATS)
def test_one_opened_image_is_decoded_by_many_threads_as_by_one(file_format):
    data = encoded(PIXELS, file_format)
    expected = pixels(data)
    for use in (pixels, content_key):
        given = Image.open(io.BytesIO(data))
        found = at_once([lambda: use(given)] * 8)  # noqa: B023
        assert all(np.array_equal(one, found[0]) for one in found)
        np.testing.assert_array_equal(pixels(given), expected)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP", "JPEG", "GIF"])
def test_so_are_several_images_of_one_open_file(file_format):
    """Each seeks in the file that all read from."""
    data = encoded(PIXELS, file_format)
    file = io.BytesIO(data)
    images = [Image.open(file) for _ in range(8)]
    found = at_once([lambda image=image: pixels(image) for image in images])
    assert all(np.array_equal(one, pixels(data)) for one in found)


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_frame_that_it_shows_is_taken_by_all(file_format):
    frames = [Image.new("RGB", (64, 48), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    file = io.BytesIO()
    frames[0].save(file, file_format, save_all=True, append_images=frames[1:])
    given = Image.open(file)
    given.seek(2)
    assert {tuple(one[0, 0].tolist()).index(max(one[0, 0])) for one in at_once([lambda: pixels(given)] * 8)} == {2}
    assert given.tell() == 2


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "GIF", "JPEG"])
def test_a_damaged_image_is_damaged_each_time_that_it_stands_in_a_list(file_format):
    data = encoded(PIXELS, file_format)
    given = Image.open(io.BytesIO(data[: len(data) // 2]))
    for _ in range(3):
        with pytest.raises(ImageDecodeError):
            decode(given)
        content_key(given)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_closed_image_is_told_in_a_sentence(tmp_path, file_format):
    path = tmp_path / "a"
    path.write_bytes(encoded(PIXELS[:9, :9], file_format))
    for how in ("with", "close", "load and close", "file"):
        file = open(path, "rb")  # noqa: SIM115
        given = Image.open(file if how == "file" else path)
        if how == "with":
            with given:
                pass
        elif how == "file":
            file.close()
        else:
            if how == "load and close":
                given.load()
            given.close()
        file.close()
        if file_format == "WEBP" and how in ("with", "file"):  # read as a whole when it was opened
            assert decode(given).size == (9, 9)
        else:
            with pytest.raises(ImageDecodeError, match=r"closed; call its load\(\) before its file is closed, or pass"):
                decode(given)


def test_an_image_that_was_loaded_before_its_file_was_closed_is_taken(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(PIXELS))
    with Image.open(tmp_path / "a.png") as given:
        given.load()
    np.testing.assert_array_equal(pixels(given), PIXELS)


def test_locks_that_a_thread_holds_do_not_stop_a_forked_process():
    given = Image.open(io.BytesIO(encoded(PIXELS[:9, :9])))
    with opening.held(given):
        if (child := os.fork()) == 0:
            os._exit(0 if decode(given).size == (9, 9) else 1)
        deadline = 100
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and deadline:
            deadline -= 1
            threading.Event().wait(0.05)
        if not deadline:
            os.kill(child, 9)
            done = os.waitpid(child, 0)
        assert done[1] == 0


def archived(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", data)
    return zipfile.ZipFile(file).open("a.png")


def spooled(data):
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - what web frameworks keep uploads in
    file.write(data)
    return file


@pytest.mark.parametrize("make", [io.BytesIO, lambda d: io.BufferedReader(io.BytesIO(d)), archived, spooled])
def test_an_open_file_is_read_from_its_start_and_put_back(make):
    file = make(encoded(PIXELS))
    file.seek(5)
    for _ in range(2):
        np.testing.assert_array_equal(pixels(file), PIXELS)
        assert file.tell() == 5
    assert content_key(file) == content_key(encoded(PIXELS))
    assert all(np.array_equal(one, PIXELS) for one in at_once([lambda: pixels(file)] * 8))


def test_an_open_file_has_the_name_of_its_path(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with open(tmp_path / "a.png", "rb") as file:
        assert describe(file) == str(tmp_path / "a.png")
        with pytest.raises(ImageDecodeError, match=r"a\.png: the file is empty"):
            decode(file)
    assert describe(io.BytesIO()) == "<BytesIO>"


class Upload:
    """As of frameworks that read asynchronously."""

    async def read(self):
        return b""

    async def seek(self, place):
        return place


class Pipe(io.RawIOBase):
    def seek(self, *_):
        raise io.UnsupportedOperation("seek")

    tell = seek


class Reader(io.BytesIO):
    def read(self, *_):
        return np.zeros(3)


def closed(file):
    file.close()
    return file


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (closed(io.BytesIO(b"x")), "the file is closed; pass it while it is open, or pass its path or bytes"),
        (io.StringIO("x"), "the file is open as text; open it with mode 'rb'"),
        (io.TextIOWrapper(io.BytesIO(b"x")), "open it with mode 'rb'"),
        (Pipe(), r"this stream cannot be rewound; pass its bytes \(stream\.read\(\)\)"),
        (Upload(), "this stream cannot be rewound; pass its bytes"),
        (Reader(b"x"), r"its read\(\) returns a ndarray; pass the bytes themselves"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_the_cure(file, message):
    with pytest.raises(ImageDecodeError, match=message):
        decode(file)
    assert content_key(file) is None


def test_a_data_url_holds_the_image():
    data = encoded(PIXELS)
    text = base64.b64encode(data).decode()
    lines = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    for body in (text, lines, text.replace("+", "%2B").replace("=", "%3D")):
        np.testing.assert_array_equal(pixels(f"data:image/png;base64,{body}"), PIXELS)
        assert content_key(f"data:image/png;base64,{body}") == content_key(data)
    name = describe(f"data:image/png;base64,{text}")
    assert name == f"<data URL of {len(text) + 22} characters>"
    assert not is_name(name)
    with pytest.raises(ImageDecodeError, match="<data URL of .*: its base64 text is damaged"):
        decode(f"data:image/png;base64,{text[:-1]}!")


def test_no_message_repeats_a_long_text():
    text = base64.b64encode(encoded(PIXELS)).decode()
    with pytest.raises(ImageDecodeError, match="file name too long; to pass an image as text, write data:") as caught:
        decode(text)
    assert len(str(caught.value)) < 1000
    assert caught.value.source == text
    assert brief("a" * 400) == "a" * 400
    assert len(brief("a" * 10**6)) < 450


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program of this name that leaves a trace when it runs."""
    program, trace = tmp_path / "bin" / "gs", tmp_path / "it ran"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{trace}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    yield trace
    assert not trace.exists()


@pytest.mark.parametrize("name", ["a.eps", "a.png", "a"])
def test_what_pillow_hands_to_another_program_is_refused_whatever_it_is_called(tmp_path, ghostscript, name):
    (tmp_path / name).write_bytes(EPS)
    message = "this is a file in the EPS format, which would be drawn by Ghostscript; convert it to PNG"
    opened = Image.open(io.BytesIO(EPS))
    for source in (tmp_path / name, EPS, io.BytesIO(EPS), opened, opened):
        with pytest.raises(ImageDecodeError, match=message):
            decode(source)
    assert content_key(opened) is None


def test_an_image_inside_another_format_is_not_opened(ghostscript):
    header = b"".join(
        b"\x1c" + bytes(tag) + len(value).to_bytes(2, "big") + value
        for tag, value in (((3, 20), b"\0\x09"), ((3, 30), b"\0\x09"), ((3, 60), b"\1\0"), ((3, 120), b"\0\1"))
    )
    iptc = header + b"\x1c\x08\x0a" + len(EPS).to_bytes(2, "big") + EPS
    with pytest.raises(ImageDecodeError):
        decode(iptc)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xd7\xcd\xc6\x9a\0\0" + bytes(60), "WMF"),
        (b"GRIB\0\0\0\1" + bytes(60), "GRIB"),
        (b"BUFR" + bytes(60), "BUFR"),
    ],
)
def test_what_holds_no_pixels_of_its_own_is_named(head, kind):
    with pytest.raises(ImageDecodeError, match=f"this is a file in the {kind} format, .*; convert it to PNG"):
        decode(head + bytes(60))


def test_suffixes_of_images_are_those_of_formats_that_are_decoded_here():
    found = image_suffixes()
    assert {".png", ".jpg", ".jpeg", ".tif", ".webp", ".gif", ".bmp"} <= found
    assert not {".eps", ".ps", ".wmf", ".emf", ".h5", ".hdf", ".grib", ".bufr", ".mpg", ".iim"} & found


def test_a_format_that_somebody_has_registered_is_taken(monkeypatch):
    class Own(ImageFile.ImageFile):
        format = "OWN"

        def _open(self):
            self._mode, self._size = "L", (2, 2)
            self.tile = [ImageFile._Tile("raw", (0, 0, 2, 2), 4, ("L", 0, 1))]

    monkeypatch.setattr(Image, "ID", [*Image.ID, "OWN"])
    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN, "OWN": (Own, lambda head: head[:4] == b"OWN!")})
    assert pixels(b"OWN!" + bytes([7, 8, 9, 10]))[..., 0].tolist() == [[7, 8], [9, 10]]


def test_the_limit_of_pillow_does_not_count_and_stays(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(pixels(encoded(PIXELS)), PIXELS)
    assert Image.MAX_IMAGE_PIXELS == 10


PATHS = ["a.png", "b.png"]
FRAME = pd.DataFrame({"path": PATHS, "label": [0, 1]})


@pytest.mark.parametrize(
    "given",
    [
        PATHS,
        tuple(PATHS),
        np.array(PATHS),
        np.array(PATHS, object),
        np.array(PATHS, object)[:, None],
        FRAME["path"],
        FRAME["path"][::-1][::-1],
        FRAME[["path"]],
        FRAME[["path"]].rename(columns={"path": 7}),
        pd.array(PATHS, "string"),
    ],
)
@pytest.mark.parametrize("take", [as_sequence, as_rows])
def test_paths_are_taken_in_whatever_they_come(given, take):
    if take is as_rows and getattr(given, "ndim", 1) == 2 and isinstance(given, np.ndarray):
        pytest.skip("for other things than images an array of arrays is rows")
    items = take(given)
    assert [str(items[i]) for i in range(len(items))] == PATHS


def test_those_of_arrow_and_polars_are_taken():
    pyarrow = pytest.importorskip("pyarrow")
    assert as_sequence(pyarrow.array(PATHS)) == PATHS
    assert as_sequence(pyarrow.chunked_array([PATHS])) == PATHS
    polars = pytest.importorskip("polars")
    assert list(as_sequence(polars.DataFrame({"path": PATHS}))) == PATHS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a.png", r"X is one image \(str\); pass a list of images"),
        (memoryview(b"abc"), r"X is one image \(memoryview\)"),
        (io.BytesIO(b"abc"), r"X is one image \(BytesIO\)"),
        (SimpleNamespace(read=lambda: b""), r"X is one image \(SimpleNamespace\)"),
        (Image.new("L", (3, 3)), r"X is one image \(Image\)"),
        ((path for path in PATHS), r"X is a generator; expected a list or an array of items; pass list\(X\)"),
        (map(str, PATHS), r"X is a map; .*pass list\(X\)"),
        ({"a.png": 1}, r"X is a dict; expected a list or an array of items$"),
        (FRAME, r"X is a data frame; pass its column of images, e\.g\. frame\['path'\]"),
        (np.array("a.png"), r"X has shape \(\)"),
        (np.zeros((4, 5)), r"X has shape \(4, 5\)"),
        (np.zeros((4, 5, 3)), r"X has shape \(4, 5, 3\)"),
        (torch.zeros(3, 4, 5), r"X has shape \(3, 4, 5\)"),
    ],
)
def test_one_image_and_what_has_no_length_are_told_with_the_cure(given, message):
    with pytest.raises(TypeError, match=message):
        as_sequence(given)


def test_a_plural_name_has_its_verb():
    with pytest.raises(TypeError, match="^images are one image"):
        as_sequence("a.png", "images")


@pytest.mark.parametrize("shape", [(4, 5), (4, 1), (4, 5, 3), (4, 3, 5, 5)])
@pytest.mark.parametrize("kind", [np.zeros, torch.zeros])
def test_of_an_array_of_other_things_each_row_is_one(shape, kind):
    rows = as_rows(kind(shape))
    assert (len(rows), tuple(rows[0].shape)) == (4, shape[1:])


def test_so_is_each_row_of_a_table_of_numbers():
    assert np.asarray(as_rows(pd.DataFrame(np.eye(3)))).tolist() == np.eye(3).tolist()
    assert np.asarray(as_rows(pd.DataFrame({"x": [1.5, 2.5]}))).tolist() == [[1.5], [2.5]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("text", "X is one item"),
        (np.array(3.0), "X is a single value"),
        (sparse.eye(3).tocsr(), r"pass X\.toarray\(\)"),
        (iter(PATHS), r"pass list\(X\)"),
    ],
)
def test_one_thing_is_told(given, message):
    with pytest.raises(TypeError, match=message):
        as_rows(given)


def test_only_paths_are_looked_up(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    errors = list(check_paths([tmp_path / "a", b"x", str(tmp_path / "gone"), np.zeros(3)]))
    assert [error.index for error in errors] == [2]
