import numpy as np
import pytest
import torch
from torch import nn

from fewshot import LabeledImages, MetaTrainer, register_backbone
from fewshot.training.fitness import check_channels, check_network
from tests.training_data import QUICK, TRAIN, VAL

COLOUR = [LabeledImages(np.repeat(d.images[..., None], 3, -1), d.labels) for d in (TRAIN, VAL)]


@pytest.fixture(autouse=True)
def _drawing_the_weights_of_networks():
    with torch.random.fork_rng():
        yield


class Answering(nn.Module):
    """A linear network, of whose output `change` makes something else."""

    def __init__(self, change, size=256):
        super().__init__()
        self.layer, self.change = nn.Linear(size, 8), change

    def forward(self, x):
        return self.change(self.layer(x.flatten(1)))


def unpacked(y):
    one, _two, _three = y
    return one


def pooled(channels):
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


UNFIT = {
    "a map": (
        lambda: nn.Conv2d(1, 8, 5),
        r"maps images to \(2, 8, 12, 12\); expected \(n, d\), one embedding per image",
    ),
    "a tuple": (lambda: Answering(lambda y: (y,)), "maps images to tuple; expected"),
    "one of all": (
        lambda: Answering(lambda y: y.mean(0, keepdim=True)),
        r"maps 2 images to \(1, 8\); expected \(n, d\)",
    ),
    "a number": (lambda: Answering(torch.Tensor.sum), r"maps 2 images to \(\); expected \(n, d\)"),
    "a failure of its own": (
        lambda: Answering(unpacked),
        r"^Answering fails on images .* = \(2, 1, 16, 16\): not enough",
    ),
    "another size": (lambda: Answering(abs, 100), r"^Answering fails on images .* = \(2, 1, 16, 16\): mat1 and mat2"),
    "colour": (lambda: pooled(3), "the images have 1 channel and the network takes 3; repeat them"),
    "no weights": (
        nn.Flatten,
        "nothing to train: the embeddings of Flatten depend on no weights .* 'prototypical' has",
    ),
    "frozen": (lambda: Answering(abs).requires_grad_(False), r"depend on no weights .*; call network.requires_grad_"),
    "detached": (lambda: Answering(torch.detach), "depend on no weights that have a gradient"),
}


@pytest.mark.parametrize(("made", "message"), UNFIT.values(), ids=UNFIT)
def test_a_network_that_cannot_be_trained_is_told_in_a_sentence_before_anything_is_written(made, message, tmp_path):
    network = made()
    (tmp_path / "log.csv").write_text("episode,loss,accuracy\n")
    with pytest.raises(ValueError, match=message) as told:
        MetaTrainer(network, config=QUICK).fit(TRAIN, VAL, out=tmp_path, progress=False)
    assert "\n" not in str(told.value)
    assert not hasattr(network, "pretrained_cfg")
    assert (tmp_path / "log.csv").is_file()


def test_a_registered_network_is_told_too_and_built_again_for_the_next_training():
    register_backbone("mine.unfit", lambda: nn.Conv2d(1, 8, 5), size=16, channels=1)
    trainer = MetaTrainer("mine.unfit", config=QUICK)
    with pytest.raises(ValueError, match="one embedding per image"):
        trainer.fit(TRAIN, VAL, progress=False)
    register_backbone("mine.unfit", lambda: pooled(1), size=16, channels=1)
    assert len(trainer.fit(TRAIN, VAL, progress=False).records) == 12


@pytest.mark.parametrize("learner", ["dn4", "mutual-nearest"])
def test_maps_of_features_are_looked_at_for_a_learner_of_places(learner):
    class Mapping(nn.Module):
        def __init__(self):
            super().__init__()
            self.forward_features = nn.Conv2d(3, 8, 5)

    MetaTrainer(Mapping(), learner, QUICK).fit(COLOUR[0], progress=False)
    with pytest.raises(ValueError, match="the images have 1 channel and the network takes 3"):
        MetaTrainer(Mapping(), learner, QUICK).fit(TRAIN, progress=False)


def test_weights_of_the_learner_are_enough_to_train():
    check_network(nn.Flatten(), MetaTrainer("conv4", "relation").learner, TRAIN.images)


def test_what_the_network_takes_is_told_before_it_is_run():
    register_backbone("mine.grey", lambda: pooled(1), size=16, channels=1)
    network = MetaTrainer("mine.grey", config=QUICK)
    network.fit(TRAIN, progress=False)
    with pytest.raises(ValueError, match=r"3 channels and the network takes 1; convert them, .*grey=True"):
        check_channels(network.backbone, COLOUR[0].images)
    check_channels(pooled(3), TRAIN.images)  # nobody knows what it takes
