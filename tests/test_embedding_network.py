import warnings

import numpy as np
import pytest
import torch

from fewshot import create_backbone, embed
from fewshot.embedding.network import evaluating, to_input
from tests.together import together

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 28, 28)).astype(np.uint8)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 100])
def test_an_embedding_does_not_depend_on_the_batch(batch_size):
    backbone = create_backbone("conv4", in_chans=1)
    whole = embed(backbone, IMAGES)
    assert whole.shape == (11, 64)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(embed(backbone, IMAGES, batch_size), whole, atol=1e-5)


def test_the_network_is_used_in_evaluation_mode_and_left_as_it_was():
    backbone = create_backbone("conv4", in_chans=1)
    expected = embed(backbone, IMAGES)
    statistics = backbone.blocks[0].norm.running_mean.clone()
    backbone.train()
    np.testing.assert_array_equal(embed(backbone, IMAGES), expected)
    assert backbone.training
    assert torch.equal(backbone.blocks[0].norm.running_mean, statistics)


def test_the_networks_own_mean_and_deviation_are_applied():
    backbone = create_backbone("resnet18")
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[..., 0] = 255
    x = to_input(image, backbone)
    assert x.shape == (1, 3, 4, 4)
    np.testing.assert_allclose(
        x[0, :, 0, 0], (np.array([1, 0, 0]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], rtol=1e-5
    )


@pytest.mark.parametrize(("shifts", "mirror"), [(0, True), (1, False), (2, True)])
def test_an_embedding_is_the_mean_over_the_views_of_an_image(shifts, mirror):
    backbone = create_backbone("conv4", in_chans=1)
    one, expected = IMAGES[0], []
    for down in range(-shifts, shifts + 1):
        for right in range(-shifts, shifts + 1):
            rows, columns = (np.clip(np.arange(28) + n, 0, 27) for n in (down, right))
            view = one[rows][:, columns]
            expected += [view, view[:, ::-1]] if mirror else [view]
    mean = embed(backbone, np.stack(expected)).mean(0)
    found = embed(backbone, IMAGES[:1], shifts=shifts, mirror=mirror)[0]
    np.testing.assert_allclose(found, mean, atol=1e-5)


def test_no_images_give_no_embeddings():
    assert embed(create_backbone("conv4", in_chans=1), IMAGES[:0]).shape == (0, 64)


def test_other_types_than_uint8_are_refused():
    with pytest.raises(TypeError, match=r"images are of type float64; expected uint8 values in 0\.\.255"):
        embed(create_backbone("conv4", in_chans=1), IMAGES / 255)


def test_threads_that_embed_with_one_network_find_it_in_evaluation_mode_until_the_last_is_done():
    backbone = create_backbone("conv4", in_chans=1).train()
    backbone.blocks[0].norm.eval()
    first, second = evaluating(backbone), evaluating(backbone)
    with first:
        with second:
            pass
        assert not backbone.training
    assert backbone.training
    modes = [part.training for part in backbone.modules()]
    expected = embed(backbone, IMAGES)
    for found in together(*[lambda: [embed(backbone, IMAGES) for _ in range(5)]] * 3):
        np.testing.assert_array_equal(found, [expected] * 5)
    assert [part.training for part in backbone.modules()] == modes


def test_each_part_of_a_network_gets_back_the_mode_it_had():
    backbone = create_backbone("conv4", in_chans=1).train()
    backbone.blocks[0].norm.eval()
    embed(backbone, IMAGES)
    assert backbone.training
    assert not backbone.blocks[0].norm.training


@pytest.mark.parametrize("view", [lambda a: a[..., ::-1], lambda a: a[::-1], np.asfortranarray])
def test_flipped_and_read_only_images_are_taken(view):
    images = view(IMAGES)
    expected = embed(create_backbone("conv4", in_chans=1), np.ascontiguousarray(images))
    images.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(embed(create_backbone("conv4", in_chans=1), images), expected)


def test_a_network_in_half_precision_is_fed_in_half_precision():
    backbone = create_backbone("conv4", in_chans=1)
    expected = embed(backbone, IMAGES)
    half = embed(backbone.bfloat16(), IMAGES)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, expected, atol=0.05)


@pytest.mark.parametrize(
    ("images", "more", "error", "match"),
    [
        (list(IMAGES), {}, TypeError, "images are a list; expected a uint8 array"),
        (IMAGES[0], {}, ValueError, r"images have shape \(28, 28\); expected \(n, h, w\)"),
        (IMAGES, {"batch_size": 0}, ValueError, "batch_size is 0"),
    ],
)
def test_bad_input_is_named(images, more, error, match):
    with pytest.raises(error, match=match):
        embed(create_backbone("conv4", in_chans=1), images, **more)


@pytest.mark.parametrize(("shape", "expected"), [((2, 4, 5), (2, 1, 4, 5)), ((2, 4, 5, 3), (2, 3, 4, 5))])
def test_input_is_channels_first_and_scaled(shape, expected):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    before = images.copy()
    x = to_input(images, create_backbone("conv4"))
    assert x.shape == expected
    back = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy().reshape(shape)
    np.testing.assert_array_equal(back, images)
    x.zero_()
    np.testing.assert_array_equal(images, before)
