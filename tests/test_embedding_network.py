import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fewshot import create_backbone, embed, evaluate
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.network import Loaded, choose_device, embed_items, evaluating, to_input
from fewshot.errors import ImageDecodeError
from tests.photographs import photos, quick_embedder
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
    x = to_input(images, create_backbone("conv4", in_chans=expected[1]))
    assert x.shape == expected
    back = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy().reshape(shape)
    np.testing.assert_array_equal(back, images)
    x.zero_()
    np.testing.assert_array_equal(images, before)


def test_missing_images_are_rows_of_nan():
    loaded = Loaded(create_backbone("conv4", img_size=16), Preprocessing(3, 16, 16))
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with torch.inference_mode():
        some, none = loaded.embed([image, None, image]), loaded.embed([None, None])
    assert np.isnan(some).all(1).tolist() == [False, True, False]
    np.testing.assert_allclose(some[0], some[2], rtol=1e-5, atol=1e-6)
    assert none.shape == some[:2].shape
    assert np.isnan(none).all()


def test_a_network_without_one_vector_an_image_is_refused():
    loaded = Loaded(nn.Identity(), Preprocessing(3, 4, 4))
    with pytest.raises(ValueError, match=r"maps images to \(1, 3, 4, 4\); expected \(n, d\)"):
        loaded.embed([np.zeros((4, 4, 3), np.uint8)])


@pytest.mark.parametrize(("side", "batch"), [(28, 256), (112, 16), (224, 4), (448, 1), (4000, 1)])
def test_smaller_images_come_in_larger_batches(side, batch):
    assert Loaded(nn.Identity(), Preprocessing(3, side, side)).batch_size == batch


def test_the_fingerprint_changes_with_any_weight_and_any_preprocessing():
    network, seen = create_backbone("conv4", img_size=16), Preprocessing(3, 16, 16)
    before = Loaded(network, seen).fingerprint
    assert Loaded(network.to(memory_format=torch.channels_last), seen).fingerprint == before
    assert Loaded(network, Preprocessing(3, 16, 16, crop_pct=0.9)).fingerprint != before
    with torch.no_grad():
        network.blocks[3].norm.running_mean[5] += 1e-6
    assert Loaded(network, seen).fingerprint != before


def test_two_architectures_of_the_same_weights_have_two_identities():
    seen = Preprocessing(3, 32, 32)
    one = Loaded(create_backbone("efficientnet_b0"), seen)
    two = Loaded(create_backbone("tf_efficientnet_b0"), seen)  # the same layers, padded otherwise
    two.network.load_state_dict(one.network.state_dict())
    assert one.fingerprint == two.fingerprint
    assert one.identity != two.identity
    again = Loaded(create_backbone("efficientnet_b0"), seen)
    again.network.load_state_dict(one.network.state_dict())
    assert again.identity == one.identity
    assert Loaded(nn.Identity(), seen).identity != Loaded(nn.Flatten(), seen).identity


def test_a_device_is_chosen_or_refused():
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == expected
    assert choose_device("cpu").type == "cpu"
    for wrong in ("warp", "cuda:99", "meta"):
        with pytest.raises(ValueError, match=f"device '{wrong}' is not available"):
            choose_device(wrong)


PHOTOS, _ = photos(3)
LOADED = quick_embedder()._load()


@pytest.mark.parametrize("batch_size", [1, 4, None])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_batches_and_threads_change_nothing_but_rounding(batch_size, n_jobs):
    expected = np.concatenate([embed_items(LOADED, [image]).embeddings for image in PHOTOS])
    found = embed_items(LOADED, PHOTOS, batch_size=batch_size, n_jobs=n_jobs, thumbnails=True)
    np.testing.assert_allclose(found.embeddings, expected, atol=1e-5)
    assert len(found.thumbnails) == 6
    assert not found.errors


def test_an_unreadable_image_is_raised_or_keeps_its_place():
    items = [PHOTOS[0], b"no image", PHOTOS[1]]
    with pytest.raises(ImageDecodeError, match="image 1"):
        embed_items(LOADED, items)
    found = embed_items(LOADED, items, on_error="skip", thumbnails=True)
    assert np.isnan(found.embeddings).all(1).tolist() == [False, True, False]
    assert [error.index for error in found.errors] == [1]
    assert found.thumbnails[1] == b""


def test_nothing_has_the_width_of_something():
    assert embed_items(LOADED, []).embeddings.shape == (0, embed_items(LOADED, PHOTOS[:1]).embeddings.shape[1])


@pytest.mark.parametrize(
    ("shape", "channels", "told"),
    [
        ((2, 28, 28), 3, r"have 1 channel and the network takes 3; repeat grey images by np.repeat.*in_chans=1"),
        ((2, 28, 28, 3), 1, "have 3 channels and the network takes 1; convert them to grey.*in_chans=3"),
    ],
)
def test_images_of_other_channels_than_the_network_takes_are_told(shape, channels, told):
    with pytest.raises(ValueError, match=told):
        embed(create_backbone("conv4", in_chans=channels, img_size=28), np.zeros(shape, np.uint8))


class Returning(nn.Module):
    """A network that returns what a function makes of its input."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


@pytest.mark.parametrize(
    ("network", "what"),
    [(Returning(lambda x: x), r"\(4, 1, 8, 8\)"), (Returning(lambda x: (x, x)), "tuple")],
    ids=["map", "tuple"],
)
@pytest.mark.filterwarnings("ignore:.*pixels")
def test_a_network_that_returns_no_embedding_each_is_told(network, what):
    images = np.zeros((4, 8, 8), np.uint8)
    with pytest.raises(ValueError, match=rf"maps images to {what}; expected \(n, d\), one embedding per image"):
        embed(network, images)
    with pytest.raises(ValueError, match=f"maps images to {what}"):
        evaluate("prototypical", images, [0, 0, 1, 1], backbone=network, n_way=2, n_shot=1, n_query=1)
