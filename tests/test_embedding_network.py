import warnings

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from fewshot import Embedder, FewShotImageClassifier, create_backbone, embed
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.network import Loaded, choose_device, evaluating, preprocessing_of, to_input
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


GREYS = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _global_generators_are_left_alone():
    """Not here: who makes a network by hand draws from torch's generator."""


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
@pytest.mark.parametrize("in_chans", [1, 3])
@pytest.mark.filterwarnings("error")
def test_a_network_sees_images_of_as_many_channels_as_it_was_made_for(name, in_chans):
    network = timm.create_model(name, in_chans=in_chans, num_classes=0)
    embedder = Embedder(network, progress=False)
    assert embedder.preprocessing.channels == in_chans
    for images in (GREYS[:2], COLOURS[:2]):
        assert np.isfinite(embedder.transform(images)).all()


def test_a_grey_network_sees_the_brightness_of_colours():
    embedder = Embedder(timm.create_model("resnet18", in_chans=1, num_classes=0), progress=False)
    model = FewShotImageClassifier(embedder).fit(GREYS, [0, 0, 1, 1])
    assert model.predict(np.repeat(GREYS[..., None], 3, -1)).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("in_chans", [2, 4, 12])
@pytest.mark.parametrize(
    "make",
    [
        lambda n: timm.create_model("resnet18", in_chans=n, num_classes=0),
        lambda n: nn.Sequential(nn.Conv2d(n, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ],
    ids=["timm", "by hand"],
)
def test_other_channels_are_told_in_a_sentence(make, in_chans):
    with pytest.raises(ValueError, match=rf"takes images of {in_chans} channels; expected 1 \(grey\) or 3"):
        Embedder(make(in_chans), progress=False).transform(COLOURS)


def test_a_network_by_hand_may_be_grey_or_have_no_convolution():
    grey = nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert preprocessing_of(grey).channels == 1
    assert preprocessing_of(nn.Flatten()).channels == 3
    assert preprocessing_of(create_backbone("conv4", in_chans=1, img_size=28)).channels == 1


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda: timm.create_model("resnet18"), r"network\.reset_classifier\(0\)"),
        (lambda: timm.create_model("vit_tiny_patch16_224"), r"network\.reset_classifier\(0\)"),
        (lambda: torchvision.models.resnet18(), r"network\.fc = torch\.nn\.Identity\(\)"),
        (lambda: torchvision.models.mobilenet_v3_small(), r"network\.classifier = torch\.nn\.Identity\(\)"),
    ],
)
def test_a_classification_layer_is_told_with_the_line_that_takes_it_off(make, cure):
    network = make()
    with pytest.warns(UserWarning, match=f"still has its classification layer, .*; remove the layer: {cure}"):
        Embedder(network, img_size=224, progress=False).transform(COLOURS[:1])
    exec(cure.replace("\\", ""), {"network": network, "torch": torch})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Embedder(network, img_size=224, progress=False).transform(COLOURS[:1])
    assert found.shape[1] != 1000
