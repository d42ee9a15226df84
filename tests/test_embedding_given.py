"""Networks that the caller gives: greys, other channels, and classification layers that are still there."""

import warnings

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from fewshot import Embedder, FewShotImageClassifier, create_backbone
from fewshot.embedding.given import preprocessing_of

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
    with pytest.warns(UserWarning, match=f"still has its classification layer, .*; take it off: {cure}"):
        Embedder(network, img_size=224, progress=False).transform(COLOURS[:1])
    exec(cure.replace("\\", ""), {"network": network, "torch": torch})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Embedder(network, img_size=224, progress=False).transform(COLOURS[:1])
    assert found.shape[1] != 1000
