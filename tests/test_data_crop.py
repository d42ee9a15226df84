"""Crops: a square is the same under each; a long image is seen whole, and its tiles cover it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.data.crop import CROPS, LONG, MOST_TILES, crop_of, seen_share, tile_boxes, whole_size
from fewshot.data.preprocess import Preprocessing

SIDES = st.integers(1, 3000)
NETWORK = Preprocessing(3, 32, 32, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "bicubic", 0.875)


@pytest.mark.parametrize("side", [1, 9, 32, 36, 37, 100])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0, 1.25])
@pytest.mark.parametrize("crop", CROPS)
def test_a_square_is_the_same_under_every_crop(crop, crop_pct, side):
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    middle = replace(NETWORK, crop_pct=crop_pct)
    pixels = middle.changed(bits=None, max_pixels=None, crop=crop)(image)
    np.testing.assert_array_equal(pixels, middle(image))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("crop", ["pad", "squash", "tiles", "adaptive"])
def test_both_ends_of_a_long_image_are_seen(crop, turned):
    image = np.zeros((240, 640, 3), np.uint8)
    image[:, :12, 0] = image[:, -12:, 1] = 255
    image = np.ascontiguousarray(image.swapaxes(0, 1)) if turned else image
    whole = NETWORK.parts(NETWORK.changed(bits=None, max_pixels=None, crop=crop)(image))[0]
    whole = whole.swapaxes(0, 1) if turned else whole
    assert whole[16, 0, 0] > 80
    assert whole[16, -1, 1] > 80
    assert NETWORK(image)[..., :2].max() == 0  # the middle shows neither


def test_borders_are_grey_and_a_squashed_image_has_none():
    image = np.full((60, 320, 3), 255, np.uint8)
    padded, squashed = (NETWORK.changed(bits=None, max_pixels=None, crop=crop)(image) for crop in ("pad", "squash"))
    assert padded[0, 0].tolist() == [128, 128, 128]
    assert (padded[13:19] == 255).all()
    assert (squashed == 255).all()


@given(st.tuples(SIDES, SIDES), st.integers(1, 64), st.integers(0, 16))
@settings(deadline=None)
def test_the_whole_is_never_larger_than_seen_beyond_the_rim_of_a_square(size, kept, rim):
    scaled = (kept + rim, kept + rim)
    for stretch in (False, True):
        found = whole_size(size, scaled, (kept, kept), stretch)
        low, high = sorted(size)
        assert max(found) <= max(scaled)
        assert min(found) >= 1
        if high * kept >= low * scaled[0]:
            axis = int(size[1] > size[0])
            assert found[axis] <= kept + 1


@given(st.tuples(SIDES, SIDES))
@settings(deadline=None)
def test_tiles_overlap_and_cover_the_image(size):
    tiles = tile_boxes(size, (256, 256))
    assert len(tiles) != 1
    assert len(tiles) <= MOST_TILES
    if tiles:
        axis = int(size[1] > size[0])
        assert tiles[0][axis] == 0
        assert tiles[-1][2 + axis] == size[axis]
        assert all(one[2 + axis] >= other[axis] for one, other in pairwise(tiles))
    else:
        assert seen_share(size, (256, 256)) > 0.89


def test_auto_keeps_a_crop_that_is_not_the_middle_and_names_lead_back():
    squashed = replace(NETWORK, crop_mode="squash")
    assert squashed.changed(bits=None, max_pixels=None, crop="auto") == squashed
    assert NETWORK.changed(bits=None, max_pixels=None, crop="auto").crop_mode == "adaptive"
    assert [crop_of(mode) for mode in CROPS.values()] == list(CROPS)
    assert crop_of("border") is None


def adaptive():
    return NETWORK.changed(bits=None, max_pixels=None, crop="adaptive")


def test_adaptive_pads_images_up_to_twice_as_long_as_wide_and_tiles_longer_ones():
    rng = np.random.default_rng(0)
    for long, n_tiles in ((90, 0), (180, 0), (181, 3), (240, 4), (900, MOST_TILES)):
        image = rng.integers(0, 256, (90, long, 3), np.uint8)
        padded, tiled = (replace(NETWORK, crop_mode=mode) for mode in ("pad", "overlap"))
        found = NETWORK.parts(adaptive()(image))
        assert len(found) == 1 + n_tiles
        np.testing.assert_array_equal(found[0], padded(image))
        np.testing.assert_array_equal(found[1:], tiled(image)[1:] if long > LONG * 90 else found[1:])


def test_a_tile_loses_no_rim():
    image = np.zeros((240, 640, 3), np.uint8)
    image[:, :4, 0] = 255
    assert adaptive()(image)[1][16, 0, 0] > 80
