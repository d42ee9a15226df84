import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fewshot import MatchingLearner, PrototypicalLearner, create_backbone, load_learner
from fewshot.embedding.checkpoint import FORMAT, Checkpoint
from fewshot.randomness import seeded
from fewshot.weights import save_weights


@pytest.fixture
def path(tmp_path):
    save_weights(
        tmp_path / "best.safetensors",
        create_backbone("conv4", in_chans=1, img_size=28, seed=2),
        MatchingLearner(temperature=0.3),
    )
    return tmp_path / "best.safetensors"


def test_a_file_says_how_to_build_what_it_holds(path):
    checkpoint = Checkpoint.open(path)
    assert checkpoint.backbone == {"name": "conv4", "kwargs": {"in_chans": 1, "img_size": 28}}
    assert (checkpoint.preprocessing.channels, checkpoint.preprocessing.height) == (1, 28)
    expected = create_backbone("conv4", in_chans=1, img_size=28, seed=2).state_dict()
    network = checkpoint.network()
    assert not network.training
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    learner = load_learner(path)
    assert type(learner) is MatchingLearner
    assert learner.temperature.item() == pytest.approx(0.3)


def changed(path, **values):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["fewshot"])
    save_file(load_file(path), path, {"fewshot": json.dumps({**described, **values})})


def test_a_newer_format_is_refused(path):
    changed(path, format=FORMAT + 1, version="9.9")
    with pytest.raises(ValueError, match=r"written by fewshot 9\.9, which is newer"):
        Checkpoint.open(path)


@pytest.mark.parametrize("values", [{"format": "one"}, {"preprocessing": {}}, {"preprocessing": None}])
def test_a_description_that_cannot_be_read_is_damage(values, path):
    changed(path, **values)
    with pytest.raises(ValueError, match=r"best\.safetensors is damaged: what it says of itself"):
        Checkpoint.open(path)


@pytest.mark.parametrize(
    "backbone",
    [{"name": "conv4", "kwargs": {"img_sise": 28}}, {"name": "conv4", "kwargs": {"img_size": 84}}, {"name": "conv4"}],
)
def test_weights_of_another_network_than_it_names_are_told(backbone, path):
    changed(path, backbone=backbone)
    with pytest.raises(ValueError, match="does not hold the weights of the network that it names") as caught:
        Checkpoint.open(path).network()
    assert "\n" not in str(caught.value)


def test_bare_weights_are_no_checkpoint(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert not Checkpoint.is_one(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="not the network they belong to; name it"):
        Checkpoint.open(tmp_path / "w.safetensors")


def test_a_network_made_by_hand_cannot_be_rebuilt(tmp_path):
    with seeded(0):
        save_weights(tmp_path / "w.safetensors", nn.Linear(2, 3), PrototypicalLearner())
    with pytest.raises(ValueError, match="trained with a network made by hand"):
        Checkpoint.open(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: p.write_bytes(b"x"), "not a whole file"),
        (lambda p: p.mkdir(), "a folder"),
        (lambda p: None, "not there"),
    ],
)
def test_what_is_no_file_of_weights_is_told(make, reason, tmp_path):
    make(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=reason):
        Checkpoint.open(tmp_path / "w.safetensors")
