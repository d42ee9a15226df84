import numpy as np
import pytest
import torch

from fewshot import Distortion


def picture(n=3, side=28):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.uniform(size=(n, 1, side, side))).float()


def test_zero_ranges_are_the_identity():
    x = picture()
    same = Distortion(0, 0, 0, 0, 0)(x, np.random.default_rng(0))
    torch.testing.assert_close(same, x, atol=1e-5, rtol=0)


def test_an_item_does_not_depend_on_what_follows_it():
    x = picture(5)
    distort = Distortion(elastic=0.05)
    torch.testing.assert_close(
        distort(x[:2], np.random.default_rng(3)), distort(x, np.random.default_rng(3))[:2], atol=1e-6, rtol=0
    )


def test_every_item_gets_a_map_of_its_own_and_seeds_differ():
    x = picture(1).expand(2, -1, -1, -1)
    one = Distortion()(x, np.random.default_rng(0))
    assert not torch.allclose(one[0], one[1])
    assert not torch.allclose(one, Distortion()(x, np.random.default_rng(1)))


def test_a_pure_rotation_turns_about_the_centre():
    """With every draw at its upper end, 90 degrees are exactly torch's own quarter turn."""

    class Highest:
        def uniform(self, low, high, shape):
            return np.full(shape, high)

    x = picture(1)
    turned = Distortion(rotate=90, scale=0, shear=0, translate=0)(x, Highest())
    torch.testing.assert_close(turned, torch.rot90(x, 1, (2, 3)), atol=1e-4, rtol=0)


def test_a_shift_moves_by_its_share_of_the_side():
    class Highest:
        def uniform(self, low, high, shape):
            return np.full(shape, high)

    x = picture(1, 20)
    moved = Distortion(rotate=0, scale=0, shear=0, translate=0.1)(x, Highest())
    torch.testing.assert_close(moved[..., :-2, :-2], x[..., 2:, 2:], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "value"), [("rotate", -1), ("scale", 1.0), ("elastic", float("nan"))])
def test_bad_ranges_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        Distortion(**{name: value})
