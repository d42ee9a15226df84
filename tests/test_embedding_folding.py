from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from fewshot import create_backbone
from fewshot.embedding.folding import fold_batch_norm
from fewshot.utils.isolation import seeded


def noise(n, side):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def norms(network):
    return sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())


def trained(network):
    """Give batch norms statistics that are not those of a new network, so that folding has something to do."""
    with seeded(0):
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
                for values in (part.running_mean, part.bias.data):
                    values.normal_(0, 0.3)
                for values in (part.running_var, part.weight.data):
                    values.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "left"),
    [("conv4", 0), ("resnet12", 0), ("tf_efficientnet_lite0", 0), ("mobilenetv3_small_050", 0), ("densenet121", 62)],
)
def test_the_folded_network_computes_the_same(name, left):
    network, x = trained(create_backbone(name)), noise(2, 84)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_batch_norm(network, x[:1])
    assert norms(network) > norms(folded) == left
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(folded(x), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_weights_that_are_not_folded_are_shared():
    with seeded(0):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).eval()
    folded = fold_batch_norm(network, noise(1, 4))
    assert folded[3].weight.data_ptr() == network[3].weight.data_ptr()
    assert folded[0].weight.data_ptr() != network[0].weight.data_ptr()


class Net(nn.Module):
    """A convolution and a norm, put together by `forward`."""

    def __init__(self, forward, **options):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, **options)
        self.path = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.path(self, x).flatten(1)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        (lambda net, x: net.norm(net.conv(net.conv(x))), {}),
        (lambda net, x: net.norm(net.norm(net.conv(x))), {}),
        (lambda net, x: net.norm(y := net.conv(x)) + y, {}),
        (lambda net, x: net.norm(x), {}),
        (lambda net, x: net.norm(net.conv(x)), {"track_running_stats": False}),
        (lambda net, x: net.norm(net.conv(x)) if x.mean() > 0 else x, {}),
        (lambda net, x: net.norm(net.conv(x)) + net.conv.weight.sum(), {}),
    ],
    ids=["conv used twice", "norm used twice", "conv seen elsewhere", "no conv", "no statistics", "branch", "weight"],
)
def test_what_would_not_be_the_same_is_left_as_it_is(path, options):
    with seeded(0):
        network = trained(Net(path, **options))
    assert fold_batch_norm(network, noise(2, 4)) is network


def test_other_threads_may_call_modules_meanwhile():
    with seeded(0):
        other = nn.Linear(2, 2)
    pool = ThreadPoolExecutor(1)

    def path(net, x):
        assert type(pool.submit(other, torch.ones(1, 2)).result()) is Tensor
        return net.norm(net.conv(x))

    with seeded(0), pool:
        folded = fold_batch_norm(trained(Net(path)), noise(1, 4))
    assert norms(folded) == 0
