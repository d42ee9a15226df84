"""Tiles of large pictures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fewshot import FewShotImageClassifier, tiles
from fewshot.cli import main
from fewshot.data.decode import decode
from fewshot.data.tiles import _places
from fewshot.errors import ImageDecodeError
from tests.photographs import GREY, RED, write_scene


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene.png")


@given(st.integers(1, 5000), st.integers(1, 600), st.floats(0, 0.9))
def test_tiles_cover_a_side_and_overlap_at_least_as_much_as_asked(length, side, overlap):
    width, starts = _places(length, side, overlap)
    assert width == min(side, length)
    assert (starts[0], starts[-1]) == (0, length - width)
    steps = np.diff(starts)
    assert (steps > 0).all()
    apart = max(width * (1 - overlap), 1)
    assert (steps <= apart + 1).all()
    assert len(starts) <= 2 + (length - width) / apart  # and no more than that takes


def test_tiles_are_parts_of_the_upright_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    upright = decode(tmp_path / "turned.png")
    assert upright.size == (70, 100)
    found = tiles(tmp_path / "turned.png", 40, overlap=0)
    assert len(found) == 2 * 3
    for tile in found:
        x, y, w, h = map(int, tile.box)
        assert (w, h) == (40, 40)
        assert tile.name == f"{tmp_path / 'turned.png'}#{x},{y},40,40"
        np.testing.assert_array_equal(decode(tile), upright.crop((x, y, x + w, y + h)))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"side": 0}, "side is 0; expected a whole number of at least 1"),
        ({"side": 64.5}, "side is 64.5; expected"),
        ({"side": 64, "overlap": 1.0}, "overlap is 1.0; expected a number from 0 to 0.9"),
        ({"side": 64, "overlap": -0.1}, "overlap is -0.1; expected"),
        ({"side": 64, "overlap": float("nan")}, "overlap is nan; expected"),
    ],
)
def test_wrong_sizes_are_refused(scene, given, told):
    with pytest.raises(ValueError, match=told):
        tiles(scene, **given)


def test_a_picture_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ImageDecodeError, match=r"text\.jpg"):
        tiles(tmp_path / "text.jpg", 64)
    with pytest.raises(ImageDecodeError, match="no such file"):
        tiles(tmp_path / "gone.jpg", 64)


def test_a_search_for_a_small_object_tells_its_place(scene, tmp_path, capsys):
    model = FewShotImageClassifier(learner="cosine-prototypical", img_size=32)
    plain, red = Image.new("RGB", (60, 60), GREY), Image.new("RGB", (60, 60), GREY)
    red.paste(RED, (10, 10, 50, 50))
    model.fit([plain, red], ["nothing", "sign"]).save(tmp_path / "model")
    Image.effect_noise((200, 200), 50).save(tmp_path / "whole.jpg")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    asked = [str(tmp_path / "model"), str(scene), str(tmp_path / "broken.jpg")]
    assert main(["predict", *asked, "--tiles", "60", "--csv", str(tmp_path / "found.csv")]) == 1
    assert capsys.readouterr().err.count("part of the file is missing") == 1
    rows = (tmp_path / "found.csv").read_text().splitlines()[1:]
    assert len(rows) == 45 + 25
    places = [row.split("#")[1] for row in rows if ",sign," in row]
    assert places
    for place in places:  # "x,y,w,h" in quotes
        x, y, w, h = map(int, place.split('"')[0].split(","))
        assert min(x + w, 370) - max(x, 330) > 0
        assert min(y + h, 120) - max(y, 80) > 0
