from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from fewshot import Embedder
from fewshot.embedding.folding import fold_batch_norm
from fewshot.embedding.pointwise import hasten_pointwise
from fewshot.utils.isolation import seeded
from fewshot.utils.threads import compute_on
from tests.photographs import photos


def on_threads(n, act):
    with ThreadPoolExecutor(1, initializer=compute_on, initargs=(n,)) as pool:
        return pool.submit(act).result()


def test_embeddings_do_not_depend_on_the_number_of_threads():
    images, embedder = photos(4)[0], Embedder(progress=False)
    several, one = (on_threads(n, lambda: embedder.transform(images)) for n in (2, 1))
    assert (several == one).all()


@pytest.mark.parametrize(
    ("layer", "is_changed"),
    [
        (nn.Conv2d(16, 8, 1), True),
        (nn.Conv2d(16, 8, 1, stride=2, bias=False), True),
        (nn.Conv2d(16, 16, 1, padding=1, groups=4), True),
        (nn.Conv2d(16, 8, 3), False),
        (nn.Conv2d(16, 8, 1, padding="same"), True),
        (nn.Conv2d(16, 8, 1, padding=1, padding_mode="circular"), False),
        (nn.Conv2d(16, 8, 1).double(), False),
    ],
)
def test_layers_compute_the_same(layer, is_changed):
    layer.requires_grad_(False)
    x = torch.rand(2, 16, 9, 9, dtype=layer.weight.dtype, generator=torch.Generator().manual_seed(0))
    x, expected = x.contiguous(memory_format=torch.channels_last), layer(x)
    network = hasten_pointwise(nn.Sequential(layer))
    assert (type(layer) is not nn.Conv2d) is is_changed
    torch.testing.assert_close(on_threads(1, lambda: network(x)), expected)


def test_the_network_of_the_user_is_not_changed():
    with seeded(0):
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    folded = hasten_pointwise(fold_batch_norm(network, torch.ones(1, 3, 4, 4)))
    assert type(network[0]) is nn.Conv2d
    assert type(folded[0]) is not nn.Conv2d
