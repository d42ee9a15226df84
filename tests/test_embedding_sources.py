import ast
import copy
import re
import warnings

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from fewshot import (
    Embedder,
    FewShotImageClassifier,
    MetaTrainer,
    TrainConfig,
    create_backbone,
    digits,
    embed,
    evaluate,
    register_backbone,
)
from fewshot.embedding.backbones import registered
from fewshot.embedding.maps import Pooling
from fewshot.embedding.sources import OFFLINE, Source, offline_file, preprocessing_of


@pytest.fixture
def network():
    return create_backbone("conv4", img_size=32, seed=5)


def same(one, other):
    other = other.state_dict()
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize(
    "wrap", [dict, lambda s: {"state_dict": s}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
def test_weights_come_from_a_state_dict_in_any_of_its_wrappings(wrap, network, tmp_path):
    torch.save(wrap(network.state_dict()), tmp_path / "w.pth")
    assert same(Source("conv4", str(tmp_path / "w.pth"), img_size=32).load()[0], network)


def test_weights_come_from_safetensors_and_a_layer_more_is_left_there(network, tmp_path):
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file({**state, "head.weight": torch.zeros(3, 64)}, tmp_path / "w.safetensors")
    loaded, seen = Source("conv4", str(tmp_path / "w.safetensors"), img_size=32).load()
    assert same(loaded, network)
    assert (seen.height, seen.width) == (32, 32)


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    other = create_backbone("resnet12").state_dict()
    save_file({name: value.contiguous() for name, value in other.items()}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="weights of another network: blocks.0.conv.weight is missing"):
        Source("conv4", str(tmp_path / "w.safetensors")).load()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_damaged_file_is_one_sentence(name, tmp_path):
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=f"{name} is not a complete file of weights") as caught:
        Source("conv4", str(tmp_path / name)).load()
    assert "\n" not in str(caught.value)


def test_a_file_damaged_anywhere_is_one_sentence(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    for i in range(0, len(whole), 41):
        (tmp_path / "w.pth").write_bytes(whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :])
        with pytest.raises(ValueError, match=r"not a complete file of weights|another network|holds no state dict"):
            Source("conv4", str(tmp_path / "w.pth")).load()


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("yes",))

    torch.save({"weight": Evil()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="not a complete file of weights"):
        Source("conv4", str(tmp_path / "w.pth")).load()
    assert not (tmp_path / "ran").exists()


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        Source("conv4", str(tmp_path / "w.pth")).load()


@pytest.mark.parametrize("backbone", sorted(OFFLINE))
def test_each_package_of_the_extra_fits_its_network(backbone):
    network, seen = Source(backbone).load()
    assert offline_file(backbone).is_file()
    assert not network.training
    assert (seen.mean, seen.std) == ((0.5,) * 3, (0.5,) * 3)
    # Trained weights, not those of the seed.
    assert not same(network, create_backbone(backbone))


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


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PIXELS = r"does not say how its images were normalised, so it sees pixels from 0 to 1; set network\.pretrained_cfg = "


def bare(channels=3):
    with torch.random.fork_rng():
        return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def models_of(network):
    yield lambda: Embedder(network, img_size=32, progress=False).transform(COLOURS[:2])
    yield lambda: FewShotImageClassifier(network, img_size=32, progress=False).fit(COLOURS[:2], [0, 1])
    yield lambda: evaluate(
        "prototypical", COLOURS[:4], [0, 0, 1, 1], backbone=network, n_way=2, n_shot=1, n_query=1, n_episodes=1
    )
    yield lambda: embed(network, COLOURS[:2])


@pytest.mark.parametrize("way", range(4))
def test_a_network_that_does_not_say_how_images_were_normalised_is_told_once(way):
    network = bare()
    use = list(models_of(network))[way]
    with pytest.warns(UserWarning, match=PIXELS) as told:
        use()
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for again in models_of(network):
            again()


def test_a_network_whose_maps_are_compared_is_told_once_too():
    network = bare()
    network.forward_features = network[0]
    with pytest.warns(UserWarning, match=PIXELS):
        embed(Pooling(network, "maps"), COLOURS[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed(Pooling(network, "maps"), COLOURS[:2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.filterwarnings("error")
def test_the_two_cures_that_the_warning_names_work(channels):
    images, network = GREYS[:3] if channels == 1 else COLOURS[:3], bare(channels)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        kept = Embedder(network, img_size=32).transform(images)
        fingerprint = Embedder(network, img_size=32).fingerprint
    (said,) = re.findall(r"\{.*?\}(?= to keep)", str(told[0].message).partition("or ")[2])
    network = copy.deepcopy(network)
    network.pretrained_cfg = ast.literal_eval(said)
    np.testing.assert_array_equal(Embedder(network, img_size=32).transform(images), kept)
    assert Embedder(network, img_size=32).fingerprint == fingerprint
    (said,) = re.findall(r"\{.*?\}(?= for ImageNet)", str(told[0].message))
    network = copy.deepcopy(network)
    network.pretrained_cfg = ast.literal_eval(said)
    assert network.pretrained_cfg == IMAGENET
    seen = Embedder(network, img_size=32).preprocessing
    assert seen.channels == channels
    x = torch.from_numpy(np.stack([seen(image) for image in images]) / np.float32(255))
    x = x.unsqueeze(1) if channels == 1 else x.permute(0, 3, 1, 2)
    mean, std = (torch.tensor(IMAGENET[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    if channels == 1:  # of grey images, the average
        mean, std = mean.mean(), std.mean()
    with torch.no_grad():
        expected = network((x - mean) / std).numpy()
    np.testing.assert_allclose(Embedder(network, img_size=32).transform(images), expected, atol=1e-5)


@pytest.mark.filterwarnings("error")
def test_a_network_of_torchvision_that_says_so_sees_what_the_registered_one_does(monkeypatch):
    monkeypatch.setattr(registered, "_REGISTERED", {})
    with torch.random.fork_rng():
        network = torchvision.models.resnet18()
    network.fc = nn.Identity()
    network.pretrained_cfg = {**IMAGENET, "crop_pct": 1.0}
    register_backbone("mine.resnet", lambda: network)
    images = [COLOURS[0], np.repeat(COLOURS[1], 2, 0), COLOURS[2][:, :9]]
    expected = Embedder("mine.resnet", progress=False).transform(images)
    np.testing.assert_allclose(Embedder(network, progress=False).transform(images), expected, atol=1e-4)


@pytest.mark.filterwarnings("error")
def test_training_and_what_it_has_trained_say_nothing():
    network, data = bare(1), digits()[:300]
    config = TrainConfig(n_episodes=1, n_way=3, val_n_episodes=1, val_n_query=1)
    known, new = data.with_classes(range(6)), data.with_classes(range(6, 10))
    MetaTrainer(network, config=config).fit(known, new, progress=False)
    evaluate("prototypical", new.images, new.labels, backbone=network, n_way=3, n_query=1, n_episodes=1)
    Embedder(network, progress=False).transform(new.images[:2])
    MetaTrainer(Embedder(bare(1), progress=False), config=config).fit(known, new, progress=False)
