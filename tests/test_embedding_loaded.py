import warnings

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from fewshot import Embedder, FewShotImageClassifier, create_backbone
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.loaded import Loaded, choose_device, preprocessing_of


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
