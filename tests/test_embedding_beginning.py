import pytest
import torch
from torch import nn

from fewshot import Embedder, MetaTrainer, TrainConfig, register_backbone
from fewshot.benchmark.backbones import is_external, is_pretrained, train_backbone
from fewshot.benchmark.grid_file import Backbone
from fewshot.embedding.beginning import draws_weights
from fewshot.embedding.checkpoint import Checkpoint
from tests.training_data import SIZES, TRAIN, VAL


def drawn():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(2), nn.Flatten())


def trained():
    network = drawn()
    network[0].weight = nn.Parameter(torch.linspace(-1, 1, 36).view(4, 1, 3, 3))
    return network


def with_a_new_head():
    return nn.Sequential(trained().requires_grad_(False), nn.Linear(16, 8))


MADE = {"drawn": (drawn, True), "trained": (trained, False), "new_head": (with_a_new_head, False)}
MADE["flat"] = (nn.Flatten, False)  # nothing tells


@pytest.fixture(params=MADE)
def made(request):
    factory, expected = MADE[request.param]
    register_backbone(f"begun.{request.param}", factory, size=16, channels=1)
    return f"begun.{request.param}", expected


def test_weights_that_differ_with_the_seed_were_drawn(made):
    name, expected = made
    assert draws_weights(name) is expected
    assert is_pretrained(name, None) is not expected
    assert not is_pretrained(name, "random")
    assert is_external(Backbone(name)) is not expected


@pytest.mark.parametrize("made", ["drawn", "trained"], indirect=True)
def test_a_checkpoint_knows_what_training_began_from(made, tmp_path):
    name, expected = made
    config = TrainConfig(n_episodes=1, **SIZES)
    for backbone, is_random in ((name, expected), (Embedder(name, weights="random"), True), (Embedder(name), False)):
        MetaTrainer(backbone, config=config).fit(TRAIN, VAL, out=tmp_path, progress=False)
        began = Checkpoint.open(tmp_path / "best.safetensors").training["began"]
        assert began == ("random" if is_random else "given")
    settings = {"n_episodes": 1, "n_way": 3, "val_n_way": 2, "val_n_episodes": 2}
    of_grid = Backbone(name, train_on="glyphs", train=settings)
    assert is_external(train_backbone(of_grid, tmp_path / "grid", False)) is not expected
