import pytest
import torch
from torch import nn

from fewshot.embedding.backbones import create_backbone, limits
from fewshot.embedding.backbones.limits import within_budget


@pytest.fixture(autouse=True)
def no_allowance(monkeypatch):
    monkeypatch.setattr(limits, "ALLOWANCE", 0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Linear(10**6, 10**6),
        lambda: nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(10**9))),
        lambda: torch.zeros(10**13),
        lambda: torch.arange(10**6),
        lambda: create_backbone("conv4", width=60_000),
    ],
)
def test_what_is_larger_than_its_weights_is_stopped_while_it_is_built(build):
    with pytest.raises(ValueError, match="far larger than its weights"), within_budget(10**6):
        build()


@pytest.mark.parametrize("name", ["conv4", "resnet12", "test_vit", "test_resnet", "swin_tiny_patch4_window7_224"])
def test_a_network_of_the_size_of_its_weights_is_built(name):
    n_bytes = sum(value.numel() * value.element_size() for value in create_backbone(name).state_dict().values())
    with within_budget(n_bytes):
        create_backbone(name)


def test_views_and_changes_in_place_are_free():
    x = torch.zeros(1000)
    with within_budget(0):
        for _ in range(100):
            x.view(10, 100).add_(1)
