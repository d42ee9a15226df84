"""Pictures that stay decoded for their parts."""

import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from fewshot import tiles
from fewshot.data import picture
from fewshot.data.boxes import BoxedImage
from fewshot.data.decode import decode
from fewshot.data.picture import KEPT, Picture
from fewshot.errors import ImageDecodeError
from tests.photographs import GREY, RED, write_scene

BLUE = (30, 30, 200)


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene.png")


@pytest.fixture
def decodings(monkeypatch):
    """The paths that are decoded, in order."""
    found = []

    def noted(path):
        found.append(os.path.basename(path))
        return decode(path)

    monkeypatch.setattr(picture, "decode", noted)
    return found


def test_a_picture_is_decoded_once_for_its_parts_also_by_threads(scene, decodings):
    parts = tiles(scene, 60)
    assert decodings == []  # its head tells the size
    with ThreadPoolExecutor(4) as threads:
        sizes = list(threads.map(lambda part: decode(part).size, parts))
    assert (len(sizes), set(sizes), decodings) == (45, {(60, 60)}, ["scene.png"])


def test_few_pictures_stay_decoded_whatever_the_order_and_none_that_nobody_holds(tmp_path, decodings):
    for name in "abcd":
        Image.new("RGB", (64, 64), GREY).save(tmp_path / f"{name}.png")
    parts = [part for name in "abcd" for part in tiles(tmp_path / f"{name}.png", 32)]
    random.Random(0).shuffle(parts)
    for part in parts:
        decode(part)
        held = {id(one.picture) for one in parts if one.picture._decoded is not None}
        assert len(held) <= KEPT
    kept = [one() for one in picture._kept]
    del parts, part, kept
    assert all(one() is None for one in picture._kept)


def test_a_picture_that_changes_or_goes_is_read_again(scene):
    part = tiles(scene, 240)[0]
    assert decode(part).getpixel((0, 0)) == GREY
    Image.new("RGB", (400, 240), BLUE).save(scene)
    os.utime(scene, ns=(0, 0))
    assert decode(part).getpixel((0, 0)) == BLUE
    scene.unlink()
    with pytest.raises(ImageDecodeError, match="no such file"):
        decode(part)


def test_parts_reach_other_processes_without_pixels(scene):
    part = BoxedImage(Picture(scene), (330, 80, 40, 40))
    decode(part)
    sent = pickle.dumps([part, part])
    assert len(sent) < 1000
    one, other = pickle.loads(sent)
    assert decode(one).getpixel((5, 5)) == RED
    assert one is other
