import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from fewshot import create_backbone
from fewshot.embedding.backbones import spec_of
from fewshot.embedding.backbones.networks import ResNet12
from fewshot.utils.isolation import seeded


class PlainConv4(nn.Module):
    """The network as the papers write it: convolution, batch norm, ReLU, then the pool."""

    def __init__(self, in_chans):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 64, 3, padding=1) for c in (in_chans, 64, 64, 64))
        self.norms = nn.ModuleList(nn.BatchNorm2d(64) for _ in range(4))

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(conv(x))), 2)
        return x.flatten(1)


@pytest.mark.parametrize(("channels", "side", "width"), [(1, 28, 64), (3, 32, 256), (3, 84, 1600)])
def test_conv4_is_the_function_of_the_papers_in_value_and_gradient(channels, side, width):
    fast = create_backbone("conv4", in_chans=channels, img_size=side).train()
    with seeded(0):
        plain = PlainConv4(channels).train().double()
    fast.double()
    for block, conv, norm in zip(fast.blocks, plain.convs, plain.norms, strict=True):
        conv.load_state_dict(block.conv.state_dict())
        norm.load_state_dict(block.norm.state_dict())
    x = torch.randn(6, channels, side, side, generator=torch.Generator(), dtype=torch.float64)
    ours, theirs = fast(x), plain(x)
    assert ours.shape == (6, width) == (6, fast.num_features)
    torch.testing.assert_close(ours, theirs)
    for output, first in ((ours, fast.blocks[0].conv), (theirs, plain.convs[0])):
        output.square().sum().backward()
        assert first.weight.grad is not None
    torch.testing.assert_close(fast.blocks[0].conv.weight.grad, plain.convs[0].weight.grad)


def test_resnet12_has_the_published_size():
    network = create_backbone("resnet12")
    assert sum(p.numel() for p in network.parameters()) == 12_424_320
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 640)


def test_dropblock_acts_in_training_only():
    network, x = create_backbone("resnet12", widths=(8, 8, 8, 8)), torch.ones(4, 3, 32, 32)
    torch.testing.assert_close(network(x), network(x))
    state = torch.random.get_rng_state()
    network.train()
    assert not torch.allclose(network(x), network(x))
    torch.random.set_rng_state(state)


@pytest.mark.parametrize("name", ["conv4", "resnet12"])
def test_they_are_timm_models(name):
    assert timm.is_model(name)
    network = create_backbone(name, in_chans=1)
    assert not network.training
    assert network.pretrained_cfg["architecture"] == name
    size = network.pretrained_cfg["input_size"][-1]
    x = torch.zeros(2, 1, size, size)
    features = network.forward_features(x)
    torch.testing.assert_close(network.forward_head(features, pre_logits=True), network(x))
    with seeded(0):
        network.reset_classifier(7)
    assert network(x).shape == (2, 7)
    assert network.get_classifier().out_features == 7


@pytest.mark.parametrize("name", ["conv4", "resnet12", "resnet18"])
def test_a_seed_fixes_the_weights(name):
    one, same, other = (create_backbone(name, seed=s).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)


def test_a_wrong_name_is_answered_with_near_ones():
    with pytest.raises(ValueError, match="no backbone is called 'conv5'; did you mean 'conv4'"):
        create_backbone("conv5")


def test_a_wrong_tag_is_answered_with_the_tags_there_are():
    with pytest.raises(ValueError, match=r"'resnet18\.a1_in1k'"):
        create_backbone("resnet18.a1_in2k")


def test_images_too_small_for_four_pools_are_refused():
    with pytest.raises(ValueError, match="img_size is 8; expected at least 16"):
        create_backbone("conv4", img_size=8)


def test_mismatched_builds_name_the_cure(monkeypatch):
    import builtins

    original = builtins.__import__

    def broken(name, *arguments):
        if name == "timm":
            raise RuntimeError("operator torchvision::nms does not exist")
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ImportError, match="pip install --force-reinstall torch torchvision"):
        create_backbone("conv4")


def test_widths_can_be_chosen():
    with seeded(0):
        assert ResNet12(0, widths=(4, 8))(torch.zeros(1, 3, 16, 16)).shape == (1, 8)


def test_a_network_knows_how_it_was_made_and_what_it_sees():
    network = create_backbone("conv4", in_chans=1, img_size=20)
    assert spec_of(network) == {"name": "conv4", "kwargs": {"in_chans": 1, "img_size": 20}}
    assert network.pretrained_cfg["input_size"] == (1, 20, 20)
    assert spec_of(torch.nn.Identity()) is None
    with_layer = create_backbone("conv4")
    with_layer.fewshot_spec = {"name": "conv4", "kwargs": {"norm_layer": torch.nn.BatchNorm2d}}
    assert spec_of(with_layer) is None


def test_the_hub_is_asked_only_for_what_somebody_publishes():
    with pytest.raises(ValueError, match="there are no published weights of 'conv4'"):
        create_backbone("conv4", pretrained=True)
