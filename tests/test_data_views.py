"""Views: names in any order, and images shifted with their edges repeated, and mirrored."""

import numpy as np
import pytest
import torch

from fewshot.data.views import VIEWS, are_views, check_views, offsets, shown
from fewshot.errors import UnknownNameError


def test_names_come_in_any_order_and_are_kept_in_one():
    assert check_views("shifts+mirror+shifts") == "mirror+shifts"
    assert check_views(None) is None
    assert all(are_views(name) for name in (*VIEWS, "mirror+scales+shifts", None))
    assert not any(are_views(value) for value in ("shifts+mirror", "mirror+mirror", "", "x", 2, ["mirror"]))


def test_a_wrong_name_is_an_error_that_says_what_is_right():
    with pytest.raises(UnknownNameError, match=r"no view is called 'miror'; did you mean 'mirror'\?"):
        check_views("scales+miror")
    with pytest.raises(TypeError, match=r"views is 5; expected names joined by '\+'"):
        check_views(5)


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 5, 4, 3)])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_shifts_repeat_edges_and_mirrors_follow_them(shape, convert):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    views = list(shown(convert(images), [(0, 0), (-1, 2)], mirror=True))
    rest = ((0, 0),) * (len(shape) - 3)
    moved = np.pad(images, ((0, 0), (1, 0), (0, 2), *rest), mode="edge")[:, :5, 2:]
    for found, expected in zip(views, (images, images[:, :, ::-1], moved, moved[:, :, ::-1]), strict=True):
        np.testing.assert_array_equal(np.asarray(found), expected)


def test_shifts_are_a_small_part_of_the_image():
    assert offsets(224) == [(0, 0), (-8, -8), (-8, 8), (8, -8), (8, 8)]
    assert offsets(9)[-1] == (1, 1)
