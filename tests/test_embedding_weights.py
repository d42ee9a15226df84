import pytest
import torch
from safetensors import SafetensorError

from fewshot import MatchingLearner, PrototypicalLearner, create_backbone, load_learner, load_weights
from fewshot.embedding.weights import build_learner, save_weights
from fewshot.persistence import tensors as stored


def test_backbone_and_learner_come_back_bit_for_bit(tmp_path):
    backbone, learner = create_backbone("conv4", in_chans=1, seed=1), MatchingLearner(learn_temperature=True)
    torch.nn.init.constant_(learner.log_temperature, -1.5)
    save_weights(tmp_path / "w.safetensors", backbone, learner)
    other, fresh = create_backbone("conv4", in_chans=1, seed=2), MatchingLearner(learn_temperature=True)
    load_weights(tmp_path / "w.safetensors", other, fresh)
    assert all(
        torch.equal(a, b) for a, b in zip(backbone.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert fresh.log_temperature.item() == -1.5
    load_weights(tmp_path / "w.safetensors", create_backbone("conv4", in_chans=1))


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4", in_chans=1), MatchingLearner())
    with pytest.raises(ValueError, match=r"w\.safetensors holds weights of another network or learner"):
        load_weights(tmp_path / "w.safetensors", create_backbone("conv4", in_chans=3))


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(path, create_backbone("conv4", in_chans=1), MatchingLearner())
    before = path.read_bytes()

    def full(tensors, partial, metadata):
        partial.write_bytes(b"some")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(stored, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_weights(path, create_backbone("conv4", in_chans=1, seed=5), MatchingLearner())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_refused_file_leaves_the_network_as_it_was(tmp_path):
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4", in_chans=1, seed=9), MatchingLearner())
    network = create_backbone("conv4", in_chans=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match="blocks.0.conv.weight is .64, 1, 3, 3. there and .64, 3, 3, 3. here"):
        load_weights(tmp_path / "w.safetensors", network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, create_backbone("conv4", in_chans=1), MatchingLearner())
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"w\.safetensors is not a whole file of weights"):
        load_weights(path, create_backbone("conv4", in_chans=1))


@pytest.mark.parametrize(
    "learner",
    [PrototypicalLearner("cosine", 0.2), MatchingLearner(temperature=0.3), PrototypicalLearner(learn_temperature=True)],
)
def test_a_checkpoint_brings_its_learner_back(learner, tmp_path):
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4"), learner)
    loaded = load_learner(tmp_path / "w.safetensors")
    assert repr(loaded) == repr(learner)
    assert loaded.arguments() == learner.arguments()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in learner.state_dict().items())


@pytest.mark.parametrize("params", [{"temperatur": 1.0}, {"metric": "cosine", "learn_temperature": False}])
def test_a_learner_that_does_not_fit_what_was_saved_is_told(params):
    learner = PrototypicalLearner("cosine", 0.2, learn_temperature=True)
    with pytest.raises(ValueError, match="cannot be built as it was saved") as caught:
        build_learner({"name": "prototypical", "params": params}, learner.state_dict())
    assert "\n" not in str(caught.value)


def test_a_learner_of_a_name_that_is_not_registered_here_is_told(tmp_path):
    learner = MatchingLearner()
    learner.name = "elsewhere"
    save_weights(tmp_path / "w.safetensors", create_backbone("conv4"), learner)
    with pytest.raises(ValueError, match="elsewhere"):
        load_learner(tmp_path / "w.safetensors")


def test_tied_weights_are_written_once_for_each_name(tmp_path):
    network = create_backbone("conv4", in_chans=1)
    network.twin = network.blocks[1].conv
    save_weights(tmp_path / "w.safetensors", network, MatchingLearner())
    other = create_backbone("conv4", in_chans=1, seed=3)
    other.twin = other.blocks[1].conv
    load_weights(tmp_path / "w.safetensors", other)
    assert torch.equal(other.twin.weight, network.twin.weight)
