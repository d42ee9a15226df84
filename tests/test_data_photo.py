import numpy as np
import pytest
import torch

from fewshot import Chain, Distortion, Light, Mirror


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
