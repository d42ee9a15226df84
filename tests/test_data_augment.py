"""Tests of data augmentation."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import Chain, Distortion, Light, Mirror

NONE = {"rotate": 0, "scale": 0, "shear": 0, "translate": 0}


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(*shape, **options):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), **options)


def blob(height, width, y, x):
    """A smooth spot at a place given in pixels."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8.0)[None, None]


def distort(images, generator, **ranges):
    return Distortion(**ranges)(images, generator)


def centre(image):
    rows, columns = torch.meshgrid(*map(torch.arange, image.shape[-2:]), indexing="ij")
    return float((image * rows).sum() / image.sum()), float((image * columns).sum() / image.sum())


@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 20), st.integers(2, 20))
@settings(max_examples=25, deadline=None)
def test_zero_ranges_are_the_identity(n, channels, height, width):
    images = noise(n, channels, height, width)
    torch.testing.assert_close(distort(images, rng(), **NONE), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("elastic", [0.0, 0.05])
def test_an_item_is_the_same_whatever_follows_it(elastic):
    images = noise(7, 3, 16, 16)
    whole = distort(images, rng(), elastic=elastic)
    torch.testing.assert_close(distort(images[:3], rng(), elastic=elastic), whole[:3], atol=1e-6, rtol=0)
    one = rng()
    parts = torch.cat([distort(images[:2], one, elastic=elastic), distort(images[2:], one, elastic=elastic)])
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)


def test_every_item_has_its_own_map_and_every_seed_its_own_maps():
    images = noise(1, 1, 16, 16).expand(5, -1, -1, -1)
    out = distort(images, rng())
    assert all(not torch.allclose(out[i], out[j], atol=1e-3) for i in range(5) for j in range(i))
    assert torch.equal(out, distort(images, rng()))
    assert not torch.allclose(out, distort(images, rng(1)), atol=1e-3)


def test_only_the_given_generator_moves():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    given = rng()
    distort(noise(1, 1, 8, 8), given, elastic=0.1)
    assert np.array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())
    assert given.random() != rng().random()


def drawn(k):
    """The first item's numbers, as `Distortion` draws them."""
    return rng().uniform(-1, 1, 5)[k]


def test_translation_moves_by_parts_of_each_side():
    out = distort(blob(40, 60, 20, 30), rng(), **NONE | {"translate": 0.1})
    assert centre(out[0, 0]) == pytest.approx((20 + drawn(4) * 4, 30 + drawn(3) * 6), abs=0.05)


@pytest.mark.parametrize(("height", "width"), [(61, 61), (61, 91), (91, 61)])
def test_rotation_keeps_lengths_even_in_oblong_images(height, width):
    middle = (height - 1) / 2, (width - 1) / 2
    out = distort(blob(height, width, middle[0], middle[1] + 20), rng(), **NONE | {"rotate": 40})
    y, x = centre(out[0, 0])
    angle = np.radians(40 * drawn(0))
    assert np.hypot(y - middle[0], x - middle[1]) == pytest.approx(20, abs=0.1)
    assert abs(y - middle[0]) == pytest.approx(20 * abs(np.sin(angle)), abs=0.1)


def test_scale_magnifies():
    out = distort(blob(61, 61, 30, 45), rng(), **NONE | {"scale": 0.3})
    assert centre(out[0, 0])[1] - 30 == pytest.approx(15 * 1.3 ** drawn(1), abs=0.1)


def test_shear_moves_rows_sideways():
    out = distort(blob(61, 61, 45, 30), rng(), **NONE | {"shear": 0.3})
    y, x = centre(out[0, 0])
    assert y == pytest.approx(45, abs=0.1)
    assert abs(x - 30) == pytest.approx(15 * 0.3 * abs(drawn(2)), abs=0.1)


def test_elastic_bends_smoothly_and_a_little():
    ramp = torch.linspace(0, 1, 64).expand(4, 1, 64, 64)
    out = distort(ramp, rng(), **NONE, elastic=0.02)
    inside = (out - ramp)[..., 8:-8, 8:-8]
    assert 0.005 < inside.abs().max() < 0.03
    assert inside.diff(dim=-2).abs().max() < 0.005


def test_type_and_emptiness_are_kept():
    assert distort(noise(2, 1, 8, 8, dtype=torch.float64), rng()).dtype == torch.float64
    assert distort(torch.empty(0, 3, 8, 8), rng()).shape == (0, 3, 8, 8)


def test_a_distortion_can_be_pickled():
    images, augment = noise(3, 1, 12, 12), Distortion(rotate=5, elastic=0.02)
    copied = pickle.loads(pickle.dumps(augment))
    assert copied == augment
    assert torch.equal(copied(images, rng()), augment(images, rng()))


@pytest.mark.parametrize(
    ("images", "generator", "options", "error", "match"),
    [
        (np.zeros((1, 1, 4, 4)), rng(), {}, TypeError, "images are ndarray; expected a float tensor"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), rng(), {}, TypeError, "images are torch.uint8"),
        (torch.zeros(1, 4, 4), rng(), {}, ValueError, r"shape \(1, 4, 4\); expected \(n, C, H, W\)"),
        (torch.zeros(1, 1, 4, 4), 0, {}, TypeError, "rng is a int; expected a numpy generator"),
        (torch.zeros(1, 1, 4, 4), rng(), {"rotate": -1}, ValueError, "rotate is -1; expected"),
        (torch.zeros(1, 1, 4, 4), rng(), {"elastic": float("nan")}, ValueError, "elastic is nan; expected"),
    ],
)
def test_bad_input_is_told_in_a_sentence(images, generator, options, error, match):
    with pytest.raises(error, match=match):
        distort(images, generator, **options)


def test_distortion_checks_its_ranges_at_once():
    with pytest.raises(ValueError, match=r"scale is -0\.1"):
        Distortion(scale=-0.1)


def photos(n=6, c=3):
    return torch.from_numpy(np.random.default_rng(0).random((n, c, 8, 10)).astype(np.float32))


@pytest.mark.parametrize("augment", [Mirror(), Light(), Chain((Mirror(), Light())), Chain(())])
def test_the_numbers_decide_and_the_input_is_left_alone(augment):
    x = photos()
    before = x.clone()
    one, other = (augment(x, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(x, before)
    assert (one.shape, one.dtype) == (x.shape, x.dtype)
    # The first images do not depend on how many follow.
    assert torch.equal(augment(x[:2], np.random.default_rng(3)), one[:2]) or augment == Chain((Mirror(), Light()))
    assert augment(x[:0], np.random.default_rng(3)).shape == (0, 3, 8, 10)


def test_half_of_the_images_are_mirrored():
    x = photos(400, 1)
    y = Mirror()(x, np.random.default_rng(0))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(y, x, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(y, x, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 150 < sum(mirrored) < 250


def test_light_changes_what_it_says_and_nothing_else():
    x, rng = photos(), np.random.default_rng
    draws = rng(5).uniform(-1, 1, (6, 3))
    brighter = Light(0.5, 0, 0)(x, rng(5)) - x
    expected = 0.5 * draws[:, 0] * x.mean(1).flatten(1).std(1, correction=0).numpy()
    np.testing.assert_allclose(brighter.flatten(1).mean(1), expected, atol=1e-5)
    assert brighter.flatten(1).std(1).max() < 1e-6
    contrast = Light(0, 0.5, 0)(x, rng(5))
    np.testing.assert_allclose(contrast.flatten(1).std(1) / x.flatten(1).std(1), 1 + 0.5 * draws[:, 1], rtol=1e-4)
    np.testing.assert_allclose(contrast.flatten(1).mean(1), x.flatten(1).mean(1), atol=1e-5)
    saturated = Light(0, 0, 0.5)(x, rng(5))
    torch.testing.assert_close(saturated.mean(1), x.mean(1))
    torch.testing.assert_close(Light(0, 0, 0)(x, rng(5)), x)


def test_light_does_not_depend_on_how_values_are_scaled():
    x = photos()
    scaled = Light()(2 * x - 1, np.random.default_rng(1))
    torch.testing.assert_close(scaled, 2 * Light()(x, np.random.default_rng(1)) - 1)


def test_a_chain_is_one_step_after_another():
    x = photos()
    rng = np.random.default_rng(2)
    expected = Distortion()(Mirror()(x, rng), rng)
    assert torch.equal(Chain((Mirror(), Distortion()))(x, np.random.default_rng(2)), expected)


@pytest.mark.parametrize("augment", [Mirror(), Light()])
def test_what_are_no_images_is_refused(augment):
    with pytest.raises(TypeError, match="expected a float tensor"):
        augment(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"expected \(n, C, H, W\)"):
        augment(torch.zeros(3, 8, 8), np.random.default_rng(0))
    with pytest.raises(ValueError, match="contrast is -1"):
        Light(contrast=-1)
